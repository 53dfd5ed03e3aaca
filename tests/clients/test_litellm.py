"""LiteLLM's four ways to this server, as it is but for the address: Ollama's two routes, OpenAI's and Anthropic's."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read at import: it would fetch a list of prices

import litellm
import pytest

from tests.clients.conftest import ABLE, DEMO, ENCODER, PARIS, TEXTS, WEATHER, WEATHER_IN_LIMA, alike
from tests.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

WAYS = ("ollama", "ollama_chat", "openai", "anthropic")


def ask(served: Daemon, way: str, model: str, messages: list[dict[str, Any]], **more: Any) -> Any:
    where = {
        "api_base": f"{served.url}/v1" if way == "openai" else served.url,
        **({"api_key": "unused"} if way in {"openai", "anthropic"} else {}),
    }
    limits = {"temperature": 0, "max_tokens": 64, "num_retries": 0}
    return litellm.completion(model=f"{way}/{model}", messages=messages, **where, **limits, **more)


@pytest.mark.parametrize("way", WAYS)
def test_whole_and_streamed(served: Daemon, way: str) -> None:
    whole = ask(served, way, DEMO, PARIS)
    text = whole.choices[0].message.content
    if way == "ollama":  # it makes one prompt of the messages, which says less to so small a model
        assert text
    else:
        assert ("Paris" in text, whole.choices[0].finish_reason) == (True, "stop")
    assert whole.usage.completion_tokens > 3
    parts = [part.choices[0].delta.content or "" for part in ask(served, way, DEMO, PARIS, stream=True)]
    assert "".join(parts) == text
    assert len(parts) > 3, "it came in pieces"


@pytest.mark.parametrize("way", ["ollama_chat", "openai", "anthropic"])
def test_tools(served: Daemon, way: str) -> None:
    (call,) = ask(served, way, ABLE, WEATHER_IN_LIMA, tools=[WEATHER]).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Lima"})
    parts = list(ask(served, way, ABLE, WEATHER_IN_LIMA, tools=[WEATHER], stream=True))
    (streamed,) = litellm.stream_chunk_builder(parts, messages=WEATHER_IN_LIMA).choices[0].message.tool_calls
    assert (streamed.function.name, json.loads(streamed.function.arguments)) == ("get_weather", {"city": "Lima"})


def test_embeddings(served: Daemon) -> None:
    found = litellm.embedding(model=f"ollama/{ENCODER}", input=TEXTS, api_base=served.url)
    assert alike([item["embedding"] for item in found.data])
    found = litellm.embedding(model=f"openai/{ENCODER}", input=TEXTS, api_base=f"{served.url}/v1", api_key="unused")
    assert alike([item["embedding"] for item in found.data])


@pytest.mark.parametrize("way", WAYS)
def test_errors(served: Daemon, way: str) -> None:
    with pytest.raises(litellm.NotFoundError, match="model 'nope' not found"):
        ask(served, way, "nope", PARIS)
