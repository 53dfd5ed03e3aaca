"""What is checked before an engine is asked, and what it is then asked: sections 2.1, 3, 4, 5 and 6."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from hyperllamad.core.models import Capability
from hyperllamad.front import ollama_bodies, ollama_options
from hyperllamad.front.body import read
from hyperllamad.front.ollama_requests import CHAT as CHAT_SHAPE
from hyperllamad.front.ollama_requests import GENERATE
from tests.front import fake_supervisor as fakes
from tests.front.conftest import OpenHouse, wait_until
from tests.front.scripted_engine import Stream, by_path, short_chat

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
GOOD = by_path({CHAT: Stream(short_chat("Hi")), COMPLETION: Stream(short_chat("Hi"))})
HI = [{"role": "user", "content": "hi"}]
TOOL = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
NO_THINKING = '"m" does not support thinking'
RAW_CONFLICT = "raw mode does not support template, system, or context"
REGISTRY = "registry.ollama.ai/library/"
REMOTE = "ollama cloud is disabled: remote model is unavailable"

# (path, body, status, text): what is refused before a lease is taken, in the order of the checks.
REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("/api/chat", {}, 400, "model is required"),
    ("/api/generate", {}, 404, "model '' not found"),
    ("/api/show", {}, 400, "model is required"),
    ("/api/chat", {"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ("/api/generate", {"model": "nope", "top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
    ("/api/chat", {"model": "bad name"}, 400, "invalid model name"),
    ("/api/generate", {"model": "m:"}, 400, "invalid model name"),
    ("/api/show", {"model": "a/b/c/d"}, 400, "invalid model name"),
    ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
    ("/api/generate", {"model": "Nope:q8"}, 404, "model 'Nope:q8' not found"),
    ("/api/show", {"model": "Nope"}, 404, "model 'Nope:latest' not found"),
    ("/api/show", {"name": "x/Nope:q8"}, 404, "model 'x/Nope:q8' not found"),
    ("/api/chat", {"model": "m:cloud"}, 403, REMOTE),
    ("/api/chat", {"model": "m:7b-cloud"}, 403, REMOTE),
    ("/api/show", {"model": "m:cloud"}, 403, "ollama cloud is disabled: remote model details are unavailable"),
    ("/api/chat", {"model": "m:cloud:local"}, 400, 'use either :local or :cloud, not both: "m:cloud:local"'),
    ("/api/chat", {"model": "nope:local"}, 404, "model 'nope:local' not found"),
    ("/api/generate", {"model": "m", "prompt": "x", "raw": True, "system": "s", "think": True}, 400, RAW_CONFLICT),
    ("/api/generate", {"model": "m", "raw": True, "context": [1]}, 400, RAW_CONFLICT),
    ("/api/chat", {"model": "m", "messages": HI, "think": True, "tools": TOOL}, 400, NO_THINKING),
    ("/api/chat", {"model": "m", "think": "low"}, 400, NO_THINKING),
    ("/api/generate", {"model": "M", "think": True}, 400, '"M" does not support thinking'),
    ("/api/chat", {"model": "me", "messages": HI}, 400, '"me" does not support chat'),
    ("/api/generate", {"model": "me"}, 400, '"me" does not support generate'),
    ("/api/chat", {"model": "m", "messages": HI, "tools": TOOL}, 400, f"{REGISTRY}m:latest does not support tools"),
    ("/api/generate", {"model": "m", "prompt": "x", "suffix": "y"}, 400, f"{REGISTRY}m:latest does not support insert"),
    ("/api/chat", {"model": "m", "options": {"min_p": "hot"}}, 500, 'option "min_p" must be of type float32'),
    ("/api/chat", {"model": "m", "options": {"num_ctx": True}}, 500, 'option "num_ctx" must be of type integer'),
    ("/api/chat", {"model": "m", "options": {"use_mmap": 1}}, 500, 'option "use_mmap" must be of type boolean'),
    ("/api/chat", {"model": "m", "options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
    ("/api/chat", {"model": "m", "options": {"stop": [1]}}, 500, 'option "stop" must be of an array of strings'),
]


@pytest.mark.parametrize(("path", "body", "status", "text"), REFUSED)
async def test_refused_before_a_lease(house: OpenHouse, path: str, body: Any, status: int, text: str) -> None:
    async with house(GOOD) as h:
        reply = await h.client.post(path, body)
        assert (reply.status, reply.json()) == (status, {"error": text})
        assert reply.header("content-type") == "application/json; charset=utf-8"
        assert h.supervisor.taken == 0


BAD_FORMATS = [("xml", '"\\"xml\\""'), (5, '"5"'), ([], '"[]"'), (True, '"true"'), ([1, "a"], '"[1,\\"a\\"]"')]


@pytest.mark.parametrize(("given", "shown"), BAD_FORMATS)
async def test_bad_format_is_found_after_the_load(house: OpenHouse, given: object, shown: str) -> None:
    text = f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
    async with house(GOOD) as h:
        for stream, content_type in ((True, "application/json"), (False, "application/json; charset=utf-8")):
            asked = {"model": "m", "messages": HI, "format": given, "stream": stream}
            reply = await h.client.post("/api/chat", asked)
            assert (reply.status, reply.json()) == (500, {"error": text})
            assert reply.header("content-type") == content_type
        await h.wait_idle()
        assert (h.supervisor.taken, h.engine.asked) == (2, [])


async def test_names_are_echoed_and_found_in_any_spelling(house: OpenHouse) -> None:
    async with house(GOOD) as h:
        for name in ("m", "M", "m:latest", "library/m", "registry.ollama.ai/library/M:LATEST", " m ", "m:local"):
            line = (await h.client.post("/api/generate", {"model": name, "prompt": "x"})).lines()[0]
            assert line["model"] == name
        assert (await h.client.post("/api/chat", {"name": "m", "messages": HI})).status == 200


# -- load, unload, keep_alive ------------------------------------------------------------------------------------------


async def test_load_forms(house: OpenHouse) -> None:
    async with house(GOOD) as h:
        for asked in ({"model": "m"}, {"model": "m", "prompt": "", "stream": True, "keep_alive": "10m"}):
            reply = await h.client.post("/api/generate", asked)
            assert (reply.status, reply.header("content-type")) == (200, "application/json; charset=utf-8")
            assert not reply.body.endswith(b"\n")
            assert list(reply.json()) == ["model", "created_at", "response", "done", "done_reason"]
            assert (reply.json()["done_reason"], reply.json()["response"]) == ("load", "")
        chat = (await h.client.post("/api/chat", {"model": "m", "messages": []})).json()
        assert list(chat) == ["model", "created_at", "message", "done", "done_reason"]
        assert (chat["message"], chat["done_reason"]) == ({"role": "assistant", "content": ""}, "load")
        await h.wait_idle()
        assert (h.supervisor.taken, h.supervisor.keep_alive) == (3, 600)
        assert h.engine.asked == []


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", 0.0])
async def test_unload_forms_check_nothing_else(house: OpenHouse, keep_alive: object) -> None:
    wrong = {"options": {"stop": "x"}, "think": True, "format": "xml", "raw": True, "system": "s"}
    asked = {"model": "m", "keep_alive": keep_alive, **wrong}
    async with house(GOOD) as h:
        generate = await h.client.post("/api/generate", asked)
        assert (generate.status, generate.json()["done_reason"]) == (200, "unload")
        chat = await h.client.post("/api/chat", asked | {"messages": []})
        assert (chat.status, chat.json()["done_reason"]) == (200, "unload")
        assert h.supervisor.kept == [("m:latest", 0.0)] * 2
        assert h.supervisor.taken == 0
        assert (await h.client.post("/api/chat", {"model": "nope", "keep_alive": 0})).status == 404


@pytest.mark.parametrize(("value", "seconds"), [(-1, math.inf), ("-1m", math.inf), ("1h30m", 5400), (0.5, 0.5), (0, 0)])
async def test_keep_alive_reaches_the_lease(house: OpenHouse, value: object, seconds: float) -> None:
    async with house(GOOD) as h:
        await h.client.post("/api/chat", {"model": "m", "messages": HI, "keep_alive": value})
        assert h.supervisor.keep_alive == seconds
        assert h.supervisor.kept == []
        await h.client.post("/api/chat", {"model": "m", "messages": HI})
        assert h.supervisor.keep_alive == seconds  # not said: left as it is


async def test_a_client_that_leaves_while_the_model_loads(house: OpenHouse) -> None:
    async with house(GOOD) as h:
        h.supervisor.ready = type(h.supervisor.ready)()
        async with h.client.exchange("POST", "/api/chat", {"model": "m", "messages": HI}):
            await wait_until(lambda: h.supervisor.open == 1)
        await h.wait_idle()
        assert 'route="/api/chat",status="499"' in (await h.client.get("/metrics")).text


# -- bodies ------------------------------------------------------------------------------------------------------------

SAMPLING = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.0}
STREAMING = {"stream": True, "stream_options": {"include_usage": True}}


def body_of(make: Any, shape: Any, asked: dict[str, Any], model: Any, context: int) -> dict[str, Any]:
    """What a request becomes, less what every body has."""
    request = read(msgspec.json.encode(asked), shape)
    body = make(request, model, ollama_options.merge(model.parameters, request.options), context)
    for key, value in STREAMING.items():
        assert body.pop(key) == value
    return dict(body)


def chat_body(model: str = "m", context: int = 2048, **asked: Any) -> dict[str, Any]:
    made = fakes.model(model, *([Capability.THINKING] if model == "mk" else []))
    return body_of(ollama_bodies.chat, CHAT_SHAPE, {"messages": HI} | asked, made, context)


def test_defaults() -> None:
    assert chat_body() == SAMPLING | {"max_tokens": 2048, "messages": HI}
    assert chat_body(context=0) == SAMPLING | {"messages": HI}


def test_every_option_that_can_be_said() -> None:
    said = {"temperature": 1, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.7, "repeat_last_n": 10, "seed": 5}
    said |= {"presence_penalty": 0.3, "frequency_penalty": 0.4}
    options = {"top_k": 1.9, "repeat_penalty": 1.2, "num_predict": 3.9, "stop": ["x", ""]}
    meaningless = {"num_ctx": 9999, "mirostat": 1, "foo": {"a": 1}, "num_gpu": None, "use_mmap": False}
    wanted = {"top_k": 1, "repetition_penalty": 1.2, "max_tokens": 3, "stop": ["x"], "messages": HI}
    assert chat_body(options=said | options | meaningless) == said | wanted
    assert ollama_options.unknown(meaningless) == ["mirostat", "foo"]


@pytest.mark.parametrize(
    ("asked", "chat", "raw"), [(5, 5, 5), (0, 1, 2048), (-1, 2048, 2048), (-2, 2048, 2048), (9999, 2048, 2048)]
)
def test_num_predict(asked: int, chat: int, raw: int) -> None:
    assert chat_body(options={"num_predict": asked})["max_tokens"] == chat
    assert ollama_options.max_tokens({"num_predict": asked}, 2048, zero=-1) == raw


def test_precedence_of_parameters() -> None:
    model = fakes.model("ms", system="You are Bob.", parameters={"temperature": 0, "stop": ["A", "B"], "seed": 7})
    body = body_of(ollama_bodies.chat, CHAT_SHAPE, {"messages": HI}, model, 0)
    assert (body["temperature"], body["stop"], body["seed"]) == (0, ["A", "B"], 7)
    assert body["messages"] == [{"role": "system", "content": "You are Bob."}, *HI]
    said = {"messages": [{"role": "system", "content": "S"}, *HI], "options": {"temperature": 1, "stop": ["C"]}}
    body = body_of(ollama_bodies.chat, CHAT_SHAPE, said, model, 0)
    assert (body["temperature"], body["stop"], body["seed"]) == (1, ["C"], 7)
    assert body["messages"][0]["content"] == "S"
    body = body_of(ollama_bodies.generate, GENERATE, {"prompt": "p"}, model, 0)
    assert body["messages"] == [{"role": "system", "content": "You are Bob."}, {"role": "user", "content": "p"}]
    body = body_of(ollama_bodies.generate, GENERATE, {"prompt": "p", "system": "T"}, model, 0)
    assert body["messages"][0]["content"] == "T"


@pytest.mark.parametrize(
    ("think", "enabled", "effort"),
    [(None, True, None), (True, True, None), (False, False, None), ("low", True, "low"), ("max", True, "high")],
)
def test_think(think: object, enabled: bool, effort: str | None) -> None:
    found = chat_body("mk", think=think)
    level = {"reasoning_effort": effort} if effort else {}
    assert found["chat_template_kwargs"] == {"enable_thinking": enabled, **level}
    assert found.get("reasoning_effort") == effort
    assert "chat_template_kwargs" not in chat_body("m", think=False)


def test_format() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}
    assert chat_body(format="json")["response_format"] == {"type": "json_object"}
    found = chat_body(format=schema)["response_format"]
    assert found == {"type": "json_schema", "json_schema": {"name": "format", "schema": schema}}
    assert list(found["json_schema"]["schema"]["properties"]) == ["b", "a"]
    for absent in ("", None):
        assert "response_format" not in chat_body(format=absent)


def test_logprobs() -> None:
    assert {"logprobs": True, "top_logprobs": 2}.items() <= chat_body(logprobs=True, top_logprobs=2).items()
    assert "top_logprobs" not in chat_body(top_logprobs=2)


def test_images_become_data_uris() -> None:
    png, jpeg, webp = "iVBORw0KGgo=", "/9j/4AAQ", "UklGRg=="
    messages = [{"role": "user", "content": "look", "images": [png, jpeg]}, {"role": "user", "images": [webp]}]
    first, second = chat_body(messages=messages)["messages"]
    assert first["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"}},
    ]
    assert second["content"] == [{"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{webp}"}}]


def test_calls_and_their_results_find_each_other() -> None:
    def call(name: str, **more: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"b": 1, "a": [2.5]}}, **more}

    messages = [
        {"role": "Assistant", "thinking": "hm", "tool_calls": [call("f"), call("g", id="mine"), call("f")]},
        {"role": "tool", "content": "1", "tool_name": "f"},
        {"role": "tool", "content": "2", "tool_call_id": "mine"},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4"},
    ]
    assistant, *results = chat_body(messages=messages, tools=TOOL)["messages"]
    assert [c["id"] for c in assistant["tool_calls"]] == ["call_0_0", "mine", "call_0_2"]
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"b":1,"a":[2.5]}'}
    assert (assistant["role"], assistant["content"], "thinking" in assistant) == ("assistant", "", False)
    assert [r["tool_call_id"] for r in results] == ["call_0_0", "mine", "call_0_2", "call_0"]
    assert (results[0]["name"], "name" in results[2]) == ("f", False)
    assert chat_body(tools=TOOL)["tools"] == TOOL


async def test_the_right_route_is_asked(house: OpenHouse) -> None:
    async with house(GOOD) as h:
        await h.client.post("/api/chat", {"model": "m", "messages": HI})
        await h.client.post("/api/generate", {"model": "m", "prompt": "p"})
        await h.client.post("/api/generate", {"model": "m", "prompt": "p", "raw": True, "template": ""})
        await h.client.post("/api/generate", {"model": "mi", "prompt": "p", "suffix": "s"})
        assert [asked.path for asked in h.engine.asked] == [CHAT, CHAT, COMPLETION, COMPLETION]
        assert h.engine.asked[3].body["suffix"] == "s"
        assert all(asked.body["model"] == h.supervisor.upstream.name for asked in h.engine.asked)
