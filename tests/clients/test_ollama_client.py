"""The `ollama` package for Python, as it is but for the address, against the daemon and a real engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import ollama
import pytest

from tests.clients.conftest import ABLE, ASKED, DEMO, ENCODER, PARIS, TEXTS, WEATHER, WEATHER_IN_LIMA, alike
from tests.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

GREEDY = {"temperature": 0, "num_predict": 64}


@pytest.fixture
def client(served: Daemon) -> Iterator[ollama.Client]:
    with ollama.Client(served.url) as client:
        yield client


@pytest.fixture
async def waiting(served: Daemon) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(served.url) as client:
        yield client


def test_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.chat(DEMO, PARIS, options=GREEDY)
    assert "Paris" in (whole.message.content or "")
    *parts, last = client.chat(DEMO, PARIS, options=GREEDY, stream=True)
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert len(parts) > 3, "it came in pieces"
    assert (last.done, last.done_reason, last.message.content) == (True, "stop", "")


async def test_the_same_without_blocking(waiting: ollama.AsyncClient) -> None:
    whole = await waiting.chat(DEMO, PARIS, options=GREEDY)
    parts = [part async for part in await waiting.chat(DEMO, PARIS, options=GREEDY, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == whole.message.content


def test_generate(client: ollama.Client) -> None:
    whole = client.generate(DEMO, "Count to three.", options=GREEDY)
    assert whole.response
    assert whole.context
    *parts, last = client.generate(DEMO, "Count to three.", options=GREEDY, stream=True)
    assert "".join(part.response for part in parts) == whole.response
    assert last.context == whole.context


def test_tools(client: ollama.Client) -> None:
    def get_weather(city: str) -> str:
        """The weather in a city.

        Args:
          city: its name
        """
        return f"sunny in {city}"

    for tool in (WEATHER, get_weather):
        whole = client.chat(ABLE, WEATHER_IN_LIMA, tools=[tool], options=GREEDY)
        (call,) = whole.message.tool_calls or ()
        assert (call.function.name, dict(call.function.arguments)) == ("get_weather", {"city": "Lima"})
        assert whole.done_reason == "stop"
        parts = list(client.chat(ABLE, WEATHER_IN_LIMA, tools=[tool], options=GREEDY, stream=True))
        (streamed,) = [call for part in parts for call in part.message.tool_calls or ()]
        assert streamed.function == call.function
        assert not parts[-1].message.tool_calls, "a line of its own, then the one that says done"
    # And back again: what the tool said, by its name.
    said = [*WEATHER_IN_LIMA, whole.message, {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
    assert client.chat(ABLE, said, tools=[WEATHER], options=GREEDY).done


def test_thinking(client: ollama.Client) -> None:
    whole = client.chat(ABLE, ASKED, think=True, options=GREEDY)
    assert whole.message.thinking
    assert "capital" in whole.message.thinking
    assert whole.message.content == "The capital of France is Paris."
    parts = list(client.chat(ABLE, ASKED, think=True, options=GREEDY, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == whole.message.thinking
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert client.chat(ABLE, ASKED, think=False, options=GREEDY).message.thinking is None


def test_structured(client: ollama.Client) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    said = client.chat(DEMO, [{"role": "user", "content": "Bob is 7."}], format=schema, options=GREEDY).message.content
    assert list(json.loads(said or "")) == ["age"]


def test_embeddings(client: ollama.Client) -> None:
    found = client.embed(ENCODER, TEXTS)
    assert alike([list(vector) for vector in found.embeddings])
    assert found.prompt_eval_count
    assert len(client.embed(ENCODER, TEXTS[0], dimensions=8).embeddings[0]) == 8
    assert len(client.embeddings(ENCODER, TEXTS[0]).embedding) == len(found.embeddings[0])


def test_models(client: ollama.Client) -> None:
    assert {f"{name}:latest" for name in (ABLE, DEMO, ENCODER)} <= {model.model for model in client.list().models}
    shown = client.show(ABLE)
    assert set(shown.capabilities or ()) == {"completion", "tools", "thinking"}
    assert (shown.modelinfo or {})["llama.context_length"] == 8192
    client.create("bob", from_=DEMO, system="You are Bob.")
    assert client.show("bob").modelfile
    assert client.copy("bob", "bobby").status == client.delete("bob").status == client.delete("bobby").status
    client.generate(DEMO, keep_alive="10m")
    assert f"{DEMO}:latest" in {model.model for model in client.ps().models}


def test_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as found:
        client.chat("nope", PARIS)
    assert found.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="does not support tools"):
        client.chat(DEMO, PARIS, tools=[WEATHER])
    with pytest.raises(ollama.ResponseError, match='"demo" does not support thinking'):
        client.chat(DEMO, PARIS, think=True)
    with pytest.raises(ollama.ResponseError, match="does not support chat"):
        list(client.chat(ENCODER, PARIS, stream=True))
    with pytest.raises(ollama.ResponseError, match="must be of type float32"):
        client.generate(DEMO, "x", options={"temperature": "hot"})
