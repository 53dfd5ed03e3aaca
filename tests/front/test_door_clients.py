"""API keys as the official clients show them: each finds its own kind of error, and waits when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anthropic
import anyio.from_thread
import ollama
import openai
import pytest

from tests.front.conftest import House, open_house
from tests.front.scripted_engine import Answer, Asked, Stream, short_chat
from tests.front.test_door import ring

MESSAGES: list[Any] = [{"role": "user", "content": "x"}]
KEYS = """
[[key]]
name = "good"
key = "hl-good"

[[key]]
name = "spent"
key = "hl-spent"
tokens_per_minute = 6
"""


def talk(_: Asked) -> Answer:
    return Stream(short_chat("a"))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    held = AsyncExitStack()
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        opened = open_house(tmp_path, talk, keys=ring(tmp_path / "keys", KEYS), tcp=True)
        house: House = portal.call(held.enter_async_context, opened)
        yield f"http://127.0.0.1:{house.port}"
        portal.call(held.aclose)


def ask_openai(url: str, key: str) -> str | None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        return client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content


def ask_anthropic(url: str, **key: str) -> str:
    with anthropic.Anthropic(base_url=url, max_retries=0, **key) as client:  # type: ignore[arg-type]
        block = client.messages.create(model="m", messages=MESSAGES, max_tokens=5).content[0]
        assert isinstance(block, anthropic.types.TextBlock)
        return block.text


def ask_ollama(url: str, key: str) -> str | None:
    with ollama.Client(url, headers={"Authorization": f"Bearer {key}"}) as client:
        return client.chat("m", MESSAGES).message.content


def test_a_good_key_is_taken_from_each(url: str) -> None:
    assert ask_openai(url, "hl-good") == "a"
    assert ask_anthropic(url, api_key="hl-good") == "a"  # x-api-key
    assert ask_anthropic(url, auth_token="hl-good") == "a"  # Authorization
    assert ask_ollama(url, "hl-good") == "a"


def test_ollamas_client_has_a_variable_for_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "hl-good")
    with ollama.Client(url) as client:
        assert client.chat("m", MESSAGES).message.content == "a"


def test_a_wrong_key_is_an_authentication_error(url: str) -> None:
    with pytest.raises(openai.AuthenticationError, match="not known") as one:
        ask_openai(url, "hl-bad")
    assert one.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError, match="not known"):
        ask_anthropic(url, api_key="hl-bad")
    with pytest.raises(ollama.ResponseError, match="not known") as other:
        ask_ollama(url, "hl-bad")
    assert other.value.status_code == 401


def test_more_than_the_limit_is_a_rate_limit_error_that_says_when(url: str) -> None:
    assert ask_ollama(url, "hl-spent") == "a"
    with pytest.raises(openai.RateLimitError, match="tokens in a minute") as one:
        while True:  # an answer is paid for a moment after its end
            ask_openai(url, "hl-spent")
    assert (one.value.code, int(one.value.response.headers["retry-after"]) > 1) == ("rate_limit_exceeded", True)
    with pytest.raises(anthropic.RateLimitError, match="tokens in a minute") as other:
        ask_anthropic(url, api_key="hl-spent")
    assert int(other.value.response.headers["retry-after"]) > 1
    with pytest.raises(ollama.ResponseError, match="tokens in a minute") as third:
        ask_ollama(url, "hl-spent")
    assert third.value.status_code == 429
