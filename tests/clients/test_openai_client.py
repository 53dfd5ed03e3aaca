"""The `openai` and `anthropic` packages, as they are but for the address, against the daemon and a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.clients.conftest import (
    ABLE,
    ASKED,
    DEMO,
    ENCODER,
    PARIS,
    QUESTION,
    SYSTEM,
    TEXTS,
    WEATHER,
    WEATHER_IN_LIMA,
    alike,
)
from tests.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture
def client(served: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(served: Daemon) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.url, api_key="unused", max_retries=0) as client:
        yield client


# -- openai ------------------------------------------------------------------------------------------------------------


def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=DEMO, messages=PARIS, temperature=0, max_completion_tokens=32)
    assert "Paris" in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 10


def test_chat_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=DEMO, messages=PARIS, temperature=0, max_tokens=32)
    options = {"include_usage": True}
    *chunks, last = client.chat.completions.create(
        model=DEMO, messages=PARIS, temperature=0, max_tokens=32, stream=True, stream_options=options
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 4, "it came in pieces"
    assert last.usage == whole.usage


def test_limit_and_stop(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=DEMO, messages=PARIS, max_completion_tokens=3)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 3
    reply = client.chat.completions.create(model=DEMO, messages=PARIS, temperature=0, stop=["Paris"])
    assert "Paris" not in (reply.choices[0].message.content or "")


def test_several_answers(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=DEMO, messages=PARIS, n=3, temperature=1, seed=1, max_tokens=24)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) > 1


def test_structured(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    reply = client.chat.completions.create(
        model=DEMO, messages=PARIS, temperature=0, response_format=wanted, max_tokens=64
    )
    assert list(json.loads(reply.choices[0].message.content or "")) == ["capital"]


def test_logprobs(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=DEMO, messages=PARIS, temperature=0, logprobs=True, top_logprobs=2, max_tokens=4
    )
    assert reply.choices[0].logprobs is not None
    items = reply.choices[0].logprobs.content or []
    assert len(items) == 4
    assert "".join(item.token for item in items) == reply.choices[0].message.content
    assert all(len(item.top_logprobs) == 2 for item in items)
    assert all(item.top_logprobs[0].logprob == pytest.approx(item.logprob, abs=1e-4) for item in items), "greedy"


def test_completion(client: openai.OpenAI) -> None:
    ask = {"model": DEMO, "prompt": "Count to three.", "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**ask)
    assert whole.choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**ask, stream=True))
    assert streamed == whole.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    assert {f"{name}:latest" for name in (ABLE, DEMO, ENCODER)} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(DEMO).to_dict()["context_length"] == 8192


def test_responses(client: openai.OpenAI) -> None:
    ask = {"model": DEMO, "instructions": SYSTEM, "input": QUESTION, "temperature": 0, "max_output_tokens": 32}
    whole = client.responses.create(**ask)
    assert "Paris" in whole.output_text
    assert whole.status == "completed"
    with client.responses.stream(**ask) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == whole.output_text
    cut = client.responses.create(**ask | {"max_output_tokens": 2})
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_tools(client: openai.OpenAI) -> None:
    ask = {"model": ABLE, "messages": WEATHER_IN_LIMA, "tools": [WEATHER], "temperature": 0, "max_tokens": 64}
    whole = client.chat.completions.create(**ask).choices[0]
    (call,) = whole.message.tool_calls or ()
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Lima"})
    assert whole.finish_reason == "tool_calls"
    with client.chat.completions.stream(**ask) as stream:
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or ()
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    forced = client.chat.completions.create(
        **ask, tool_choice={"type": "function", "function": {"name": "get_weather"}}
    )
    assert (forced.choices[0].message.tool_calls or ())[0].function.name == "get_weather"
    said = [*WEATHER_IN_LIMA, whole.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert client.chat.completions.create(**ask | {"messages": said}).choices[0].message


def test_tools_of_responses(client: openai.OpenAI) -> None:
    flat = {"type": "function", **WEATHER["function"], "strict": False}
    ask = {"model": ABLE, "input": WEATHER_IN_LIMA, "tools": [flat], "temperature": 0, "max_output_tokens": 64}
    (call,) = [item for item in client.responses.create(**ask).output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Lima"})
    with client.responses.stream(**ask) as stream:
        (streamed,) = [item for item in stream.get_final_response().output if item.type == "function_call"]
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)


def test_thinking(client: openai.OpenAI) -> None:
    ask = {"model": ABLE, "messages": ASKED, "temperature": 0, "max_tokens": 64, "reasoning_effort": "high"}
    message = client.chat.completions.create(**ask).choices[0].message
    assert "capital" in message.to_dict()["reasoning"]
    assert message.content == "The capital of France is Paris."
    plain = client.chat.completions.create(**ask | {"reasoning_effort": "none"}).choices[0].message
    assert "reasoning" not in plain.to_dict()


def test_embeddings(client: openai.OpenAI) -> None:
    """This client asks for base64 unless told otherwise."""
    found = client.embeddings.create(model=ENCODER, input=TEXTS)
    assert alike([item.embedding for item in found.data])
    told = client.embeddings.create(model=ENCODER, input=TEXTS[0], encoding_format="float").data[0].embedding
    assert found.data[0].embedding == pytest.approx(told, abs=1e-6)
    assert len(client.embeddings.create(model=ENCODER, input=TEXTS[0], dimensions=8).data[0].embedding) == 8


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        client.chat.completions.create(model="nope", messages=PARIS)
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        client.chat.completions.create(model=DEMO, messages=PARIS, tools=[WEATHER])
    with pytest.raises(openai.BadRequestError, match="does not support embeddings"):
        client.embeddings.create(model=DEMO, input="a")
    with pytest.raises(openai.BadRequestError, match="invalid reasoning value"):
        client.responses.create(model=DEMO, input="x", reasoning={"effort": "zzz"})


# -- anthropic ---------------------------------------------------------------------------------------------------------

USER = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0}  # this client has no name for it any more


def test_message(claude: anthropic.Anthropic) -> None:
    reply = claude.messages.create(model=DEMO, system=SYSTEM, messages=USER, max_tokens=32, extra_body=GREEDY)
    assert "Paris" in reply.content[0].text
    assert (reply.stop_reason, reply.role) == ("end_turn", "assistant")
    assert reply.usage.input_tokens > 10


def test_message_streamed(claude: anthropic.Anthropic) -> None:
    ask = {"model": DEMO, "system": SYSTEM, "messages": USER, "max_tokens": 32, "extra_body": GREEDY}
    with claude.messages.stream(**ask) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3, "it came in pieces"
    assert final.content[0].text == "".join(pieces) == claude.messages.create(**ask).content[0].text


def test_count_tokens(claude: anthropic.Anthropic) -> None:
    counted = claude.messages.count_tokens(model=DEMO, system=SYSTEM, messages=USER)
    reply = claude.messages.create(model=DEMO, system=SYSTEM, messages=USER, max_tokens=1)
    assert counted.input_tokens == reply.usage.input_tokens


def test_message_errors(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found") as found:
        claude.messages.create(model="nope", messages=USER, max_tokens=1)
    assert found.value.request_id is not None
    assert found.value.request_id.startswith("req_")
    tool = {"name": "clock", "input_schema": {"type": "object"}}
    with pytest.raises(anthropic.BadRequestError, match="does not support tools"):
        claude.messages.create(model=DEMO, messages=USER, max_tokens=1, tools=[tool])


def test_tools_and_thinking_of_messages(claude: anthropic.Anthropic) -> None:
    tool = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}
    ask = {"model": ABLE, "messages": WEATHER_IN_LIMA, "tools": [tool], "max_tokens": 64, "extra_body": GREEDY}
    reply = claude.messages.create(**ask)
    (use,) = [block for block in reply.content if block.type == "tool_use"]
    assert (use.name, use.input, reply.stop_reason) == ("get_weather", {"city": "Lima"}, "tool_use")
    with claude.messages.stream(**ask) as stream:
        (streamed,) = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert (streamed.name, streamed.input) == (use.name, use.input)
    on = {"type": "enabled", "budget_tokens": 1024}
    thought = claude.messages.create(model=ABLE, messages=USER, max_tokens=64, thinking=on, extra_body=GREEDY)
    assert [block.type for block in thought.content] == ["thinking", "text"]
    assert "capital" in thought.content[0].thinking
