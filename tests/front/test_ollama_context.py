"""`context` of /api/generate, and a prompt shown in place of an answer: what only an engine's tokenizer can tell."""

from __future__ import annotations

from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse
from tests.front.ollama_asks import CHAT, COMPLETION, METRICS, ask
from tests.front.scripted_engine import Asked, Stream, Whole, by_path, recording, short_chat


def tokenizer(asked: Asked) -> Stream | Whole:
    """An engine that can render and tokenise: a token for each character."""
    if asked.path == "/apply":
        prompt = "".join(f"<{m['role']}>{m['content']}" for m in asked.body["messages"])
        return Whole(200, ('{"prompt":"%s"}' % prompt).encode())  # noqa: UP031
    if asked.path == "/tok":
        return Whole(200, str({"tokens": [ord(c) for c in asked.body["content"]]}).replace("'", '"').encode())
    if asked.path == COMPLETION:
        return Stream([recording("llama_cpp-completion-logprobs")])
    return Stream(short_chat("Hi", "!"))


CAN_TELL = fakes.FakeEngine(apply_template="/apply", tokenize="/tok")


async def test_context_of_generate(house: OpenHouse) -> None:
    async with house(tokenizer, engine=CAN_TELL) as h:
        asked = {"model": "m", "prompt": "Hello", "system": "S"}
        last = (await h.client.post("/api/generate", asked)).lines()[-1]
        assert list(last) == ["model", "created_at", "response", "done", "done_reason", "context", *METRICS]
        assert "".join(map(chr, last["context"])) == "<system>S<user>HelloHi!"
        whole = (await h.client.post("/api/generate", asked | {"stream": False})).json()
        assert whole["context"] == last["context"]
        chat = (await h.client.post("/api/chat", ask())).lines()[-1]
        assert "context" not in chat


async def test_generate_continues_from_a_context(house: OpenHouse) -> None:
    async with house(tokenizer, engine=CAN_TELL) as h:
        asked = {"model": "m", "prompt": "you", "context": [72, 105], "stream": False}
        found = (await h.client.post("/api/generate", asked)).json()
        (sent,) = (asked.body for asked in h.engine.asked if asked.path == COMPLETION)
        assert "".join(map(chr, sent["prompt"])) == "Hi<user>you"
        assert "".join(map(chr, found["context"])) == "Hi<user>you, the city"


async def test_context_where_the_engine_cannot_tell(house: OpenHouse) -> None:
    async with house(by_path({CHAT: Stream(short_chat("Hi"))})) as h:
        last = (await h.client.post("/api/generate", {"model": "m", "prompt": "x"})).lines()[-1]
        assert "context" not in last
        refused = await h.client.post("/api/generate", {"model": "m", "prompt": "x", "context": [1]})
        assert (refused.status, refused.json()["error"]) == (
            400,
            "Scripted cannot continue from a context (send the messages to /api/chat)",
        )


async def test_rendered_prompt_is_shown_instead_of_run(house: OpenHouse) -> None:
    async with house(tokenizer, engine=CAN_TELL) as h:
        chat = await h.client.post("/api/chat", ask(_debug_render_only=True))
        assert list(chat.json()) == ["model", "created_at", "message", "done", "_debug_info"]
        assert chat.json()["message"] == {"role": "", "content": ""}
        assert chat.json()["_debug_info"] == {"rendered_template": "<user>What is the capital of France?"}
        asked = {"model": "m", "prompt": "x", "images": ["iVBORw0KGgo="], "_debug_render_only": True}
        generate = (await h.client.post("/api/generate", asked)).json()
        assert generate["_debug_info"]["image_count"] == 1
        assert (generate["response"], generate["done"]) == ("", False)
        assert {asked.path for asked in h.engine.asked} == {"/apply"}
