"""LlamaIndex's two ways to this server, Ollama and OpenAILike, as they are but for the address."""

from __future__ import annotations

from typing import Any

import ollama
import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike

from tests.clients.conftest import ABLE, DEMO, ENCODER, QUESTION, SYSTEM, TEXTS, alike
from tests.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PARIS = [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=QUESTION)]


def native(served: Daemon, model: str) -> Ollama:
    return Ollama(base_url=served.url, model=model, temperature=0, additional_kwargs={"num_predict": 64})


def compatible(served: Daemon, model: str) -> OpenAILike:
    return OpenAILike(
        api_base=f"{served.url}/v1", api_key="unused", model=model, temperature=0, max_tokens=64, max_retries=0,
        is_chat_model=True, is_function_calling_model=True,
    )  # fmt: skip


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.mark.parametrize("make", [native, compatible])
def test_whole_and_streamed(served: Daemon, make: Any) -> None:
    model = make(served, DEMO)
    whole = model.chat(PARIS).message.content
    assert "Paris" in whole
    parts = [part.delta or "" for part in model.stream_chat(PARIS)]
    assert "".join(parts) == whole
    assert len(parts) > 3, "it came in pieces"
    assert model.complete("Count.").text


@pytest.mark.parametrize("make", [native, compatible])
def test_tools(served: Daemon, make: Any) -> None:
    model, tool = make(served, ABLE), FunctionTool.from_defaults(get_weather)
    asked = {"user_msg": "What is the weather in Lima?"}
    (call,) = model.get_tool_calls_from_response(model.chat_with_tools([tool], **asked))
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Lima"})
    *_, last = model.stream_chat_with_tools([tool], **asked)
    (streamed,) = model.get_tool_calls_from_response(last)
    assert (streamed.tool_name, streamed.tool_kwargs) == ("get_weather", {"city": "Lima"})
    assert str(model.predict_and_call([tool], **asked)) == "sunny in Lima"


def test_the_context_is_found(served: Daemon) -> None:
    assert native(served, DEMO).get_context_window() == 8192


def test_embeddings(served: Daemon) -> None:
    assert alike(OllamaEmbedding(base_url=served.url, model_name=ENCODER).get_text_embedding_batch(TEXTS))
    told = OpenAILikeEmbedding(api_base=f"{served.url}/v1", api_key="unused", model_name=ENCODER)
    assert alike(told.get_text_embedding_batch(TEXTS))


def test_errors(served: Daemon) -> None:
    with pytest.raises(ollama.ResponseError, match="not found"):
        native(served, "nope").chat(PARIS)
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        compatible(served, "nope").chat(PARIS)
    with pytest.raises(ollama.ResponseError, match='model "nope" not found'):
        OllamaEmbedding(base_url=served.url, model_name="nope").get_text_embedding("x")
