"""LangChain's two ways to this server, langchain-ollama and langchain-openai, as they are but for the address."""

from __future__ import annotations

from typing import Any

import ollama
import openai
import pytest
from langchain_core.messages import AIMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.clients.conftest import ABLE, DEMO, ENCODER, QUESTION, SYSTEM, TEXTS, WEATHER, alike
from tests.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PARIS = [("system", SYSTEM), ("human", QUESTION)]
LIMA = [("human", "What is the weather in Lima?")]


def native(served: Daemon, model: str, **more: Any) -> ChatOllama:
    return ChatOllama(base_url=served.url, model=model, temperature=0, num_predict=64, **more)


def compatible(served: Daemon, model: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{served.url}/v1", api_key="unused", model=model, temperature=0, max_tokens=64, **more)


@pytest.mark.parametrize("make", [native, compatible])
def test_whole_and_streamed(served: Daemon, make: Any) -> None:
    chat = make(served, DEMO)
    whole = chat.invoke(PARIS)
    assert "Paris" in whole.content
    assert whole.usage_metadata["total_tokens"] > 10
    parts = list(chat.stream(PARIS))
    assert "".join(part.content for part in parts) == whole.content
    assert len(parts) > 3, "it came in pieces"


@pytest.mark.parametrize("make", [native, compatible])
def test_tools(served: Daemon, make: Any) -> None:
    chat = make(served, ABLE).bind_tools([WEATHER])
    whole = chat.invoke(LIMA)
    (call,) = whole.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Lima"})
    assert call["id"]
    gathered = None
    for part in chat.stream(LIMA):
        gathered = part if gathered is None else gathered + part
    assert gathered is not None
    assert [(one["name"], one["args"]) for one in gathered.tool_calls] == [("get_weather", {"city": "Lima"})]
    # And back again, as an agent would.
    said = [*LIMA, whole, {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]
    assert isinstance(chat.invoke(said), AIMessage)


def test_thinking(served: Daemon) -> None:
    said = native(served, ABLE, reasoning=True).invoke([("human", QUESTION)])
    assert "capital" in said.additional_kwargs["reasoning_content"]
    assert said.content == "The capital of France is Paris."


def test_structured(served: Daemon) -> None:
    schema = {"title": "Bob", "type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    found = native(served, DEMO).with_structured_output(schema, method="json_schema").invoke("Bob is 7.")
    assert list(found) == ["age"]


def test_text_completion(served: Daemon) -> None:
    model = OllamaLLM(base_url=served.url, model=DEMO, temperature=0, num_predict=8)
    assert model.invoke("Count.") == "".join(model.stream("Count.")) != ""


def test_embeddings(served: Daemon) -> None:
    assert alike(OllamaEmbeddings(base_url=served.url, model=ENCODER).embed_documents(TEXTS))
    # Its default sends token ids counted with OpenAI's own tokenizer, which says nothing to any other model.
    told = OpenAIEmbeddings(
        base_url=f"{served.url}/v1", api_key="unused", model=ENCODER, check_embedding_ctx_length=False
    )
    assert alike(told.embed_documents(TEXTS))


def test_errors(served: Daemon) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found"):
        native(served, "nope").invoke(PARIS)
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        compatible(served, "nope").invoke(PARIS)
    with pytest.raises(ollama.ResponseError, match="does not support tools"):
        native(served, DEMO).bind_tools([WEATHER]).invoke(LIMA)
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        compatible(served, DEMO).bind_tools([WEATHER]).invoke(LIMA)
