"""The native routes that change the store, over a real store on a disk and a hub on a loopback port."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest

from hyperllamad.config.load import load_config
from hyperllamad.core.models import Message
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from tests.front.conftest import House, OpenHouse, Store, wait_until
from tests.front.scripted_engine import Asked, Whole, by_path
from tests.store import hub as hub_module
from tests.store.files import small_gguf
from tests.store.hub import Hub
from tests.store.lora import lora_gguf

NOTHING = by_path({})
J = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
NOT_FOUND = "pull model manifest: file does not exist"
NAME = "hf.co/org/repo"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_module.serve() as hub:
        yield hub


@pytest.fixture
def store(tmp_path: Path, hub: Hub) -> Store:
    """The model `m`, and a library that pulls from our own hub."""
    config = load_config(tmp_path, environ={"HOME": str(tmp_path)})
    (config.paths.models / "m@latest").mkdir(parents=True)
    (config.paths.models / "m@latest" / "m.gguf").write_bytes(small_gguf())
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "127.0.0.1",
    }
    library = Library(config, ShortNames(()), environ=environ)
    return Store(Catalog(config.paths, config.models, config.model), library)


@pytest.fixture
def open_house(house: OpenHouse, store: Store) -> AbstractAsyncContextManager[House]:
    return house(NOTHING, store=store)


Opened = AbstractAsyncContextManager[House]


async def names(h: House) -> list[str]:
    return sorted(item["name"] for item in (await h.client.get("/api/tags")).json()["models"])


async def test_copy_and_delete(open_house: Opened) -> None:
    async with open_house as h:
        reply = await h.client.post("/api/copy", {"source": "m", "destination": "n"})
        assert (reply.status, reply.body, reply.header("content-type")) == (200, b"", None)
        assert await names(h) == ["m:latest", "n:latest"]
        for body in ({"name": "m"}, {"model": "n"}):  # the first leaves the files, the second uses them
            reply = await h.client.ask("DELETE", "/api/delete", body)
            assert (reply.status, reply.body) == (200, b"")
        assert await names(h) == []


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        (("POST", "copy", {"source": "M", "destination": "bad name"}), 400, 'destination "bad name" is invalid'),
        (("POST", "copy", {"source": "no", "destination": "n"}), 404, 'model "no" not found'),
        (("DELETE", "delete", {"model": "a b"}), 400, 'name "a b" is invalid'),
        (("DELETE", "delete", {"name": "no"}), 404, "model 'no' not found"),
        (("POST", "pull", {"name": "bad name"}), 400, "invalid model name"),
        (("POST", "create", {"model": "bad name", "from": "m"}), 400, "invalid model name"),
        (("POST", "push", {}), 400, "model is required"),
        (("POST", "pull", {"model": "m", "insecure": "x"}), 400,
         "json: cannot unmarshal string into Go struct field PullRequest.insecure of type bool"),
        (("POST", "blobs/sha256:12", {}), 400, "invalid digest format"),
        (("POST", "create", {"files": ["x"]}), 400,
         "json: cannot unmarshal array into Go struct field CreateRequest.files of type map[string]string"),
    ],
)  # fmt: skip
async def test_refused_at_once(
    open_house: Opened, asked: tuple[str, str, dict[str, Any]], status: int, error: str
) -> None:
    method, path, body = asked
    async with open_house as h:
        reply = await h.client.ask(method, f"/api/{path}", body)
        assert (reply.status, reply.header("content-type"), reply.json()) == (status, J, {"error": error})


@pytest.mark.parametrize("stream", [True, False])
async def test_a_quantisation_that_there_is_not(open_house: Opened, *, stream: bool) -> None:
    """In Ollama's words and with its status; the ones that there are are refused in ours."""
    async with open_house as h:
        reply = await h.client.post("/api/create", {"model": "n", "from": "m", "quantize": "zz", "stream": stream})
        kinds = "F32, F16, Q4_K_S, Q4_K_M, Q8_0"
        assert (reply.status, reply.header("content-type")) == (500, "application/json")
        assert reply.json() == {"error": f"unsupported quantization type ZZ - supported types are {kinds}"}


async def test_blobs(open_house: Opened) -> None:
    data = os.urandom(3_000_000)
    path = f"/api/blobs/{digest(data)}"
    async with open_house as h:
        assert (await h.client.ask("HEAD", path)).status == 404
        assert (await h.client.ask("HEAD", "/api/blobs/x")).status == 400
        wrong = await h.client.post(path, raw=data[1:])
        assert wrong.status == 400
        assert wrong.json()["error"].startswith(f'digest mismatch, expected "{digest(data)}", got "sha256:')
        assert (await h.client.ask("HEAD", path)).status == 404
        stored = await h.client.post(path, raw=data)
        assert (stored.status, stored.body, stored.header("content-type")) == (201, b"", None)
        assert (await h.client.post(path, raw=data)).status == 200
        for known in (path, path.replace("sha256:", "sha256-")):
            assert (await h.client.ask("HEAD", known)).status == 200
        refused = await h.client.get(path)
        assert (refused.status, refused.header("allow")) == (405, "HEAD, POST")


async def test_an_upload_is_taken_no_faster_than_it_is_stored(
    open_house: Opened, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody reads, the client has to wait: what it has sent lies in sockets and a few queues."""
    total, gate, taken = 64 << 20, asyncio.Event(), 0

    async def receive(_: str, chunks: Any) -> bool:
        nonlocal taken
        await gate.wait()
        async for chunk in chunks:
            taken += len(chunk)
        return True

    monkeypatch.setattr(store.library, "receive", receive)
    async with open_house as h:
        reader, writer = await asyncio.open_unix_connection(str(h.socket))
        head = f"POST /api/blobs/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {total}\r\n\r\n"
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(head.encode())
        sent, piece = 0, bytes(1 << 20)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):  # as long as it is blocked, nothing else can show that it is
                while sent < total:
                    writer.write(piece)
                    sent += len(piece)
                    await writer.drain()
        assert sent < 8 << 20
        gate.set()
        while sent < total:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        assert taken == total
        writer.close()


async def test_of_an_upload_that_breaks_off_nothing_remains(open_house: Opened, store: Store) -> None:
    data = b"x" * 100_000
    directory = store.library.blobs.directory
    async with open_house as h:
        _, writer = await asyncio.open_unix_connection(str(h.socket))
        head = f"POST /api/blobs/{digest(data)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data[:50_000])
        await wait_until(lambda: directory.is_dir() and any(directory.iterdir()))
        writer.close()
        await wait_until(lambda: not any(directory.iterdir()))


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


async def test_pull(open_house: Opened, hub: Hub) -> None:
    data = small_gguf()
    hub.put("org/repo", {"x-Q4_0.gguf": data})
    async with open_house as h:
        reply = await h.client.post("/api/pull", {"name": NAME, "insecure": True})
        assert (reply.status, reply.header("content-type")) == (200, NDJSON)
        first, *layers, verifying, writing, last = reply.lines()
        assert [first, verifying, writing, last] == [
            {"status": status}
            for status in ("pulling manifest", "verifying sha256 digest", "writing manifest", "success")
        ]
        done = {"status": f"pulling {digest(data)[7:19]}", "digest": digest(data), "total": len(data)}
        assert layers[-1] == done | {"completed": len(data)}
        assert await names(h) == ["hf.co/org/repo:latest", "m:latest"]
        whole = await h.client.post("/api/pull", {"model": NAME, "stream": False})
        assert (whole.body, whole.header("content-type")) == (b'{"status":"success"}', "application/json")


@pytest.mark.parametrize("name", ["hf.co/org/none", "nosuch", "example.com/org/repo"])
async def test_pull_of_what_is_nowhere(open_house: Opened, name: str) -> None:
    async with open_house as h:
        reply = await h.client.post("/api/pull", {"model": name})
        assert reply.status == 200
        assert reply.lines() == [{"status": "pulling manifest"}, {"error": NOT_FOUND}]
        whole = await h.client.post("/api/pull", {"model": name, "stream": False})
        assert (whole.status, whole.header("content-type")) == (500, "application/json")
        assert whole.json() == {"error": NOT_FOUND}


async def test_a_pull_ends_with_its_last_client(open_house: Opened, hub: Hub, store: Store) -> None:
    data = small_gguf()
    hub.put("org/repo", {"x-Q4_0.gguf": data})
    gate = hub.gates["org/repo/x-Q4_0.gguf"] = hub.gates["x-Q4_0.gguf"] = Semaphore(0)
    flights = store.library._pulls._flights  # whether one flies is not to be seen otherwise
    async with open_house as h:
        async with h.client.exchange("POST", "/api/pull", {"model": NAME}) as one:
            await one.event()
            assert b"pulling manifest" in await one.data()
            async with h.client.exchange("POST", "/api/pull", {"model": NAME, "stream": False}):
                await wait_until(lambda: [flight.watchers for flight in flights.values()] == [2])
            await wait_until(lambda: [flight.watchers for flight in flights.values()] == [1])
        await wait_until(lambda: not flights)
        for _ in range(1000):
            gate.release()
        assert (await h.client.post("/api/pull", {"model": NAME})).lines()[-1] == {"status": "success"}


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


async def test_push_is_refused(open_house: Opened) -> None:
    async with open_house as h:
        *lines, last = (await h.client.post("/api/push", {"model": "m"})).lines()
        assert lines == [{"status": "retrieving manifest"}, {"status": "couldn't retrieve manifest"}]
        assert last["error"].startswith("push is not supported")
        whole = await h.client.post("/api/push", {"model": "m", "stream": False})
        assert (whole.status, whole.header("content-type")) == (400, "application/json")
        assert whole.json() == last


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "me", 401, {"error": "unauthorized"}),
        ("POST", "signout", 401, {"error": "you are not currently signed in"}),
        ("DELETE", "user/keys/abc", 401, {"error": "you are not currently signed in"}),
        ("GET", "status", 200, {"cloud": {"disabled": True, "source": "config"}}),
        ("POST", "experimental/web_search", 403, {"error": "ollama cloud is disabled: web search is unavailable"}),
        ("POST", "experimental/web_fetch", 403, {"error": "ollama cloud is disabled: web fetch is unavailable"}),
        ("GET", "experimental/model-recommendations", 200, {"recommendations": []}),
    ],
)
async def test_account(open_house: Opened, method: str, path: str, status: int, body: dict[str, Any]) -> None:
    async with open_house as h:
        reply = await h.client.ask(method, f"/api/{path}")
        assert (reply.status, reply.header("content-type"), reply.json()) == (status, J, body)
        assert (await h.client.ask("HEAD", "/api/status")).status == 405


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
