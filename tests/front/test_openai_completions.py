"""/v1/completions: a prompt with the chat template around it, as in Ollama."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.front import relay
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import DONE, USAGE, Stream, chat_event, events, recording, short_chat
from tests.front.sse_client import cut_short, datas, thinking

ASK: dict[str, Any] = {"model": "m", "prompt": "Once"}
STREAM = ASK | {"stream": True}
PATH = "/v1/completions"
ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
REAL = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


async def test_whole(house: OpenHouse) -> None:
    async with house(lambda _: Stream(short_chat("Hel", "lo"))) as h:
        reply = await h.client.post(PATH, ASK | {"max_tokens": 6})
        found = reply.json()
        assert reply.body.endswith(b"}\n")
        assert found["id"].startswith("cmpl-")
        assert found["object"] == "text_completion"
        assert found["choices"] == [{"text": "Hello", "index": 0, "finish_reason": "stop"}]
        assert found["usage"] == REAL
        (asked,) = h.engine.asked
        assert asked.path == "/v1/chat/completions"
        assert asked.body["messages"] == [{"role": "user", "content": "Once"}]
        assert (asked.body["temperature"], asked.body["top_p"], asked.body["max_tokens"]) == (1.0, 1.0, 6)


async def test_stream(house: OpenHouse) -> None:
    async with house(lambda _: cut_short("Hel", "lo")) as h:
        reply = await h.client.post(PATH, STREAM)
        *chunks, done = datas(reply)
        assert [chunk["choices"][0] for chunk in chunks] == [
            {"text": "Hel", "index": 0, "finish_reason": None},
            {"text": "lo", "index": 0, "finish_reason": None},
            {"text": "", "index": 0, "finish_reason": "length"},
        ]
        assert [list(chunk) for chunk in chunks] == [
            ["id", "object", "created", "choices", "model", "system_fingerprint"]
        ] * 3
        assert done == "[DONE]"


async def test_usage_in_every_chunk(house: OpenHouse) -> None:
    """All zero but in the last one (case 101)."""
    async with house(lambda _: Stream(short_chat("a", "b"))) as h:
        *chunks, usage, _ = datas(await h.client.post(PATH, STREAM | {"stream_options": {"include_usage": True}}))
        assert [chunk["usage"] for chunk in chunks] == [ZERO] * 3
        assert (usage["choices"], usage["usage"]) == ([], REAL)


async def test_thoughts_are_left_out(house: OpenHouse) -> None:
    async with house(lambda _: thinking()) as h:
        assert (await h.client.post(PATH, ASK | {"model": "mk"})).json()["choices"][0]["text"] == "Yes."
        chunks = datas(await h.client.post(PATH, STREAM | {"model": "mk"}))
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "Yes."


async def test_an_empty_prompt_loads(house: OpenHouse) -> None:
    async with house(lambda _: Stream([])) as h:
        found = (await h.client.post(PATH, ASK | {"prompt": "", "keep_alive": 9})).json()
        assert found["choices"] == [{"text": "", "index": 0, "finish_reason": "load"}]
        assert h.supervisor.keep_alive == 9
        chunk, done = datas(await h.client.post(PATH, STREAM | {"prompt": ""}))
        assert (chunk["choices"][0]["finish_reason"], done) == ("load", "[DONE]")
        assert h.engine.asked == []
        await h.wait_idle()


async def test_suffix(house: OpenHouse) -> None:
    answer = Stream([b'data: {"choices":[{"text":"c","finish_reason":"stop"}]}\n\n', USAGE, DONE])
    async with house(lambda _: answer) as h:
        found = (await h.client.post(PATH, ASK | {"model": "mi", "suffix": "end", "logprobs": 1})).json()
        assert found["choices"][0]["text"] == "c"
        (asked,) = h.engine.asked
        assert asked.path == PATH
        assert (asked.body["prompt"], asked.body["suffix"], asked.body["logprobs"]) == ("Once", "end", 1)


async def test_logprobs(house: OpenHouse) -> None:
    """Ollama takes the field and returns nothing."""
    async with house(lambda _: Stream(events(recording("llama_cpp-chat-logprobs")))) as h:
        found = (await h.client.post(PATH, ASK | {"logprobs": 2})).json()["choices"][0]
        listed = found["logprobs"]
        assert "".join(listed["tokens"]) == found["text"]
        assert len(listed["tokens"]) == len(listed["token_logprobs"]) == len(listed["top_logprobs"])
        assert listed["text_offset"][:2] == [0, len(listed["tokens"][0])]
        chunks = datas(await h.client.post(PATH, STREAM | {"logprobs": 2}))
        offsets = [
            offset
            for chunk in chunks[:-1]
            for offset in (chunk["choices"][0].get("logprobs") or {"text_offset": []})["text_offset"]
        ]
        assert offsets == listed["text_offset"]


async def test_n(house: OpenHouse) -> None:
    async with house(lambda _: Stream(short_chat("a"))) as h:
        found = (await h.client.post(PATH, ASK | {"n": 2})).json()
        assert [(choice["index"], choice["text"]) for choice in found["choices"]] == [(0, "a"), (1, "a")]
        assert len(h.engine.asked) == 2


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"model": ""}, 404, "model '' not found"),
        ({"model": "me"}, 400, '"me" does not support generate'),
        ({"model": "me", "prompt": ""}, 400, '"me" does not support generate'),
        ({"suffix": "x"}, 400, "registry.ollama.ai/library/m:latest does not support insert"),
        ({"stop": [1]}, 400, "invalid type for 'stop' field: float64"),
        ({"stop": 1}, 400, "invalid type for 'stop' field: float64"),
        (
            {"prompt": ["a"]},
            400,
            "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string",
        ),
        ({"n": -1}, 400, "n must be between 1 and 128"),
        ({"logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ],
)
async def test_refused(house: OpenHouse, fields: dict[str, Any], status: int, text: str) -> None:
    async with house(lambda _: Stream([])) as h:
        reply = await h.client.post(PATH, ASK | fields)
        assert (reply.status, reply.json()["error"]["message"]) == (status, text)
        assert h.engine.asked == []


async def test_fails_in_the_middle(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "DEATH_KNOWN", 0.05)
    async with house(lambda _: Stream([chat_event("a")], cut=True)) as h:
        *_, error, done = datas(await h.client.post(PATH, STREAM))
        assert error["error"]["message"].startswith("an error was encountered while running the model: Scripted: ")
        assert done == "[DONE]"
