"""POST /api/create: of a model, of files, with an adapter; and what is refused."""

from __future__ import annotations

from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest

from hyperllamad.core.models import Message
from tests.front.conftest import OpenHouse, Store, wait_until
from tests.front.scripted_engine import Asked, Whole
from tests.front.store.asks import NAME, NDJSON, NOT_FOUND, digest, names
from tests.front.store.conftest import Opened
from tests.store.files import small_gguf
from tests.store.hub import Hub
from tests.store.lora import lora_gguf


@pytest.mark.parametrize("stream", [True, False])
async def test_a_quantisation_that_there_is_not(open_house: Opened, *, stream: bool) -> None:
    """In Ollama's words and with its status; the ones that there are are refused in ours."""
    async with open_house as h:
        reply = await h.client.post("/api/create", {"model": "n", "from": "m", "quantize": "zz", "stream": stream})
        kinds = "F32, F16, Q4_K_S, Q4_K_M, Q8_0"
        assert (reply.status, reply.header("content-type")) == (500, "application/json")
        assert reply.json() == {"error": f"unsupported quantization type ZZ - supported types are {kinds}"}


async def test_create_from_a_model(open_house: Opened, store: Store) -> None:
    said = [{"role": "user", "content": 'Say "hi"'}, {"role": "assistant", "content": "hi"}]
    body = {"model": "n", "from": "m", "system": "S", "template": "{{ .Prompt }}", "license": ["L", "K"]}
    body |= {"parameters": {"stop": ["a", "b"], "foo": 1}, "messages": said}
    async with open_house as h:
        reply = await h.client.post("/api/create", body)
        assert (reply.status, reply.header("content-type")) == (200, NDJSON)
        lines = [line["status"] for line in reply.lines()]
        assert lines[0].startswith("using existing layer sha256:")
        assert lines[-2:] == ["writing manifest", "success"]
        shown = (await h.client.post("/api/show", {"model": "n"})).json()
        assert (shown["system"], shown["template"], shown["messages"]) == ("S", "{{ .Prompt }}", said)
        assert shown["details"]["parent_model"] == "m:latest"
        assert shown["parameters"].split("\n")[-1].split() == ["foo", "1"]
        for line in ("TEMPLATE {{ .Prompt }}", "SYSTEM S", 'MESSAGE user """Say "hi""""', "MESSAGE assistant hi"):
            assert line in shown["modelfile"].split("\n")
        assert "messages" not in (await h.client.post("/api/show", {"model": "m"})).json()
        tags = (await h.client.get("/api/tags")).json()["models"]
        assert [item["details"]["parent_model"] for item in tags] == ["m:latest", ""]
        whole = await h.client.post("/api/create", body | {"stream": False})
        assert (whole.body, whole.header("content-type")) == (b'{"status":"success"}', "application/json")
        model = store.catalog.resolve("n")
        assert model.messages == (Message("user", 'Say "hi"'), Message("assistant", "hi"))


async def test_create_from_files(open_house: Opened) -> None:
    data = small_gguf()
    async with open_house as h:
        assert (await h.client.post(f"/api/blobs/{digest(data)}", raw=data)).status == 201
        reply = await h.client.post("/api/create", {"name": "f", "files": {"f.gguf": digest(data)}})
        assert reply.lines()[-1] == {"status": "success"}
        assert await names(h) == ["f:latest", "m:latest"]


async def test_create_with_an_adapter(open_house: Opened) -> None:
    data = lora_gguf()
    async with open_house as h:
        assert (await h.client.post(f"/api/blobs/{digest(data)}", raw=data)).status == 201
        reply = await h.client.post("/api/create", {"model": "a", "from": "m", "adapters": {"l.gguf": digest(data)}})
        assert [line["status"] for line in reply.lines()][1:] == ["using adapter l.gguf", "writing manifest", "success"]
        shown = (await h.client.post("/api/show", {"model": "a"})).json()["modelfile"].split("\n")
        (line,) = [line for line in shown if line.startswith("ADAPTER ")]
        assert Path(line.removeprefix("ADAPTER ")).read_bytes() == data
        tags = {item["name"]: item["digest"] for item in (await h.client.get("/api/tags")).json()["models"]}
        assert tags["a:latest"] != tags["m:latest"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"from": "bad name"}, 400, "invalid model name"),
        ({"files": {"/x.gguf": "sha256:" + "0" * 64}}, 400, "file path must be relative"),
        ({"files": {"x.gguf": "sha256:0"}}, 400, "invalid digest format"),
        ({"from": "m", "quantization": "q4_K_M"}, 400, "quantising is not supported"),
        ({"from": "m", "adapters": {"a": "b"}}, 400, "invalid digest format"),
        ({"from": "m", "info": {"model_family": 5}}, 400, 'info field "model_family" must be a string'),
        ({"from": "m", "license": 5}, 400, "license must be a string or a list of strings"),
        ({"from": "hf.co/org/none"}, 500, NOT_FOUND),
    ],
)
async def test_create_refused(
    open_house: Opened, body: dict[str, Any], status: int, error: str, *, stream: bool
) -> None:
    """Errors that come before the first line are HTTP errors; a base that is not here is looked for on the hub."""
    async with open_house as h:
        reply = await h.client.post("/api/create", {"model": "n", "stream": stream, **body})
        if status == 500 and stream:
            assert [*map(list, reply.lines())] == [["status"], ["error"]]
            assert reply.lines()[-1] == {"error": error}
        else:
            assert (reply.status, reply.header("content-type")) == (status, "application/json")
            assert reply.json()["error"].startswith(error)
        assert await names(h) == ["m:latest"]


async def test_a_create_that_pulls_ends_with_its_client(open_house: Opened, hub: Hub, store: Store) -> None:
    hub.put("org/repo", {"x-Q4_0.gguf": small_gguf()})
    gate = hub.gates["org/repo/x-Q4_0.gguf"] = hub.gates["x-Q4_0.gguf"] = Semaphore(0)
    flights = store.library._pulls._flights
    body = {"model": "n", "from": NAME, "system": "S"}
    async with open_house as h:
        async with h.client.exchange("POST", "/api/create", body) as exchange:
            await exchange.event()
            assert b"pulling manifest" in await exchange.data()
            assert len(flights) == 1
        await wait_until(lambda: not flights)
        for _ in range(1000):
            gate.release()
        assert (await h.client.post("/api/create", body)).lines()[-1] == {"status": "success"}
        assert await names(h) == ["hf.co/org/repo:latest", "m:latest", "n:latest"]


async def test_a_variants_conversation_comes_first(house: OpenHouse, store: Store) -> None:
    def engine(asked: Asked) -> Whole:
        return Whole(418, b"seen")

    async with house(engine, store=store) as h:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        created = await h.client.post("/api/create", {"model": "n", "from": "m", "system": "S", "messages": turns})
        assert created.lines()[-1] == {"status": "success"}
        await h.client.post("/api/chat", {"model": "n", "messages": [{"role": "user", "content": "c"}]})
        await h.client.post("/api/generate", {"model": "n", "prompt": "c"})
        for asked in h.engine.asked:
            assert [message["content"] for message in asked.body["messages"]] == ["S", "a", "b", "c"]
        assert len(h.engine.asked) == 2
