"""GET /api/tags, GET /api/ps, POST /api/show, and how moments are written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from hyperllamad.core.instance import State
from hyperllamad.core.models import Format
from hyperllamad.front import gotime
from hyperllamad.store import inspect
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Stream, by_path, short_chat

NOTHING = by_path({})
ZONED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?(Z|[+-]\d\d:\d\d)")
DETAILS = ["parent_model", "format", "family", "families", "parameter_size", "quantization_level"]


@pytest.fixture(params=["UTC", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's own zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


async def test_tags(house: OpenHouse, zone: str) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.get("/api/tags")
        assert reply.header("content-type") == "application/json; charset=utf-8"
        items = reply.json()["models"]
        assert [item["name"] for item in items] == [f"{name}:latest" for name in ("m", "mt", "mk", "mi", "ms", "me")]
        first = items[0]
        assert list(first) == ["name", "model", "modified_at", "size", "digest", "details", "capabilities"]
        assert list(first["details"]) == [*DETAILS, "context_length", "embedding_length"]
        assert first["details"]["parameter_size"] == "134.52M"
        assert first["model"] == first["name"]
        assert re.fullmatch("[0-9a-f]{64}", first["digest"])
        shown = {"UTC": "2025-11-21T18:33:20.25Z", "America/New_York": "2025-11-21T13:33:20.25-05:00"}
        assert first["modified_at"] == shown[zone]
        assert [item["capabilities"] for item in items[1:3]] == [["completion", "tools"], ["completion", "thinking"]]
        head = await h.client.ask("HEAD", "/api/tags")
        assert (head.status, head.body, head.header("content-length")) == (200, b"", str(len(reply.body)))


async def test_nothing_is_loaded(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        assert (await h.client.get("/api/ps")).body == b'{"models":[]}'


async def test_ps(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        now = time.time()
        h.supervisor.more_rows = [
            fakes.FakeRow("m:latest", "aa" * 32, State.STARTING),
            fakes.FakeRow("mt:latest", "bb" * 32, State.READY, until=now + 60),
            fakes.FakeRow("gone:latest", "cc" * 32, State.READY, until=now + 600, processor="100% GPU"),
            fakes.FakeRow("mk:latest", "dd" * 32, State.DRAINING, until=now + 999),
            fakes.FakeRow("ms:latest", "ee" * 32, State.FAILED),
            fakes.FakeRow("mi:latest", "ff" * 32, State.READY, until=None),
        ]
        models = (await h.client.get("/api/ps")).json()["models"]
        assert [item["name"] for item in models] == ["mi:latest", "gone:latest", "mt:latest", "mk:latest"]
        keys = ["name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length"]
        for item in models:
            assert list(item) == keys
            assert list(item["details"]) == DETAILS
            assert ZONED.fullmatch(item["expires_at"])
        assert models[0]["expires_at"] > "2300"
        times = [datetime.fromisoformat(item["expires_at"]).timestamp() for item in models[1:]]
        assert times == pytest.approx([now + 600, now + 60, now], abs=5)
        assert [item["size_vram"] for item in models] == [0, 832, 0, 0]
        assert models[1]["details"]["family"] == ""


async def test_show(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        reply = await h.client.post("/api/show", {"model": "m"})
        found = reply.json()
        assert list(found) == ["modelfile", "template", "details", "model_info", "capabilities", "modified_at"]
        assert list(found["details"]) == DETAILS
        assert found["model_info"] == {
            "general.architecture": "llama",
            "general.parameter_count": 134515008,
            "llama.attention.layer_norm_rms_epsilon": 1e-05,
            "llama.context_length": 8192,
            "llama.embedding_length": 576,
            "llama.rope.freq_base": 100000,
            "tokenizer.ggml.tokens": None,
        }
        assert list(found["model_info"]) == sorted(found["model_info"])
        assert found["capabilities"] == ["completion"]
        assert (await h.client.post("/api/show", {"name": "M"})).json() == found
        assert b'"llama.attention.layer_norm_rms_epsilon":0.00001,' in reply.body
        assert b'"llama.rope.freq_base":100000,' in reply.body


async def test_show_what_a_modelfile_brings(house: OpenHouse) -> None:
    stops = ["<|im_start|>", 'a"b']
    parameters = {"temperature": 0.7, "stop": stops, "num_ctx": 4096.0, "top_k": 1e6, "use_mmap": True}
    parameters |= {"seed": 1234567, "min_p": 0.00001, "top_p": 1, "num_keep": 0}
    model = fakes.model("ms", system="You are Bob.", parameters=parameters, license="MIT")
    async with house(NOTHING, models=(model,)) as h:
        found = (await h.client.post("/api/show", {"model": "ms"})).json()
        assert found["parameters"].split("\n") == [
            "temperature                    0.7",
            'stop                           "<|im_start|>"',
            'stop                           "a\\"b"',
            "num_ctx                        4096",
            "top_k                          1e+06",
            "use_mmap                       true",
            "seed                           1.234567e+06",
            "min_p                          1e-05",
            "top_p                          1",
            "num_keep                       0",
        ]
        assert (found["system"], found["license"]) == ("You are Bob.", "MIT")
        assert found["modelfile"].startswith('# Modelfile generated by "ollama show"\n')
        for line in ("FROM /models/m.gguf", "SYSTEM You are Bob.", "PARAMETER stop <|im_start|>", 'LICENSE """MIT"""'):
            assert line in found["modelfile"].split("\n")
        overlay = {"model": "ms", "system": "S\n2", "template": "T", "options": {"temperature": 1}}
        over = (await h.client.post("/api/show", overlay)).json()
        assert (over["system"], over["template"]) == ("S\n2", "T")
        assert over["parameters"].startswith("temperature                    1\n")
        assert 'SYSTEM """S\n2"""' in over["modelfile"]


async def test_show_of_a_directory(house: OpenHouse) -> None:
    info = {"general.architecture": "qwen3", "qwen3.context_length": 40960, "tokens": ["a"]}
    model = fakes.model("q", format=Format.SAFETENSORS, family="qwen3", context_length=40960, info=info)
    async with house(NOTHING, models=(model,)) as h:
        brief = (await h.client.post("/api/show", {"model": "q"})).json()
        assert [key for key in brief["model_info"] if "context_length" in key] == ["qwen3.context_length"]
        assert brief["model_info"]["tokens"] is None
        verbose = (await h.client.post("/api/show", {"model": "q", "verbose": True})).json()
        assert verbose["model_info"]["tokens"] == ["a"]
        assert "tensors" not in brief


async def test_show_reads_the_rest_from_the_file(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "tensors", lambda _: (inspect.TensorRow("blk.0.attn_q.weight", "Q4_1", (576, 576)),))
    monkeypatch.setattr(inspect, "verbose_info", lambda model: {**model.info, "tokenizer.ggml.tokens": ["<s>", "a"]})
    async with house(NOTHING) as h:
        brief = (await h.client.post("/api/show", {"model": "m"})).json()
        assert brief["tensors"] == [{"name": "blk.0.attn_q.weight", "type": "Q4_1", "shape": [576, 576]}]
        assert brief["model_info"]["tokenizer.ggml.tokens"] is None
        verbose = (await h.client.post("/api/show", {"model": "m", "verbose": True})).json()
        assert verbose["model_info"]["tokenizer.ggml.tokens"] == ["<s>", "a"]


async def test_copilot_is_told_the_name_it_asked_for(house: OpenHouse) -> None:
    async with house(NOTHING) as h:
        headers = {"User-Agent": "GitHubCopilotChat/0.31"}
        found = (await h.client.post("/api/show", {"model": "M"}, headers=headers)).json()
        assert found["model_info"]["general.basename"] == "M"


def test_moments_are_written_as_go_does() -> None:
    second = int(datetime(2026, 11, 21, 19, 29, 36, tzinfo=UTC).timestamp())
    for ns, tail in ((4728396, ".004728396Z"), (0, "Z"), (500_000_000, ".5Z"), (1, ".000000001Z"), (120, ".00000012Z")):
        assert gotime.utc(second * 10**9 + ns) == b"2026-11-21T19:29:36" + tail.encode()


@pytest.mark.parametrize("keep_alive", [1e300, -1, 9e9])
async def test_a_model_that_stays_longer_than_years_can_say_is_shown(house: OpenHouse, keep_alive: float) -> None:
    async with house(lambda _: Stream(short_chat("a"))) as h:
        await h.client.post("/api/generate", {"model": "m", "keep_alive": keep_alive})
        reply = await h.client.get("/api/ps")
    assert (reply.status, reply.json()["models"][0]["expires_at"][:2]) == (200, "23")


async def test_capabilities_are_the_same_wherever_they_are_told(house: OpenHouse) -> None:
    """Ollama's list is made without the chat template and knows fewer; clients choose models by either."""
    async with house(NOTHING) as h:
        tags = {item["name"]: item["capabilities"] for item in (await h.client.get("/api/tags")).json()["models"]}
        assert tags["mt:latest"] == ["completion", "tools"]
        for name, told in tags.items():
            assert (await h.client.post("/api/show", {"model": name})).json()["capabilities"] == told
