"""The `ollama` package for JavaScript, as it is but for the address, against the daemon and a real engine."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.clients.conftest import ABLE, ASKED, DEMO, ENCODER, JS, PARIS, TEXTS, WEATHER, WEATHER_IN_LIMA, alike
from tests.daemon import Daemon

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

GIVEN = {"demo": DEMO, "able": ABLE, "encoder": ENCODER, "paris": PARIS, "asked": ASKED, "lima": WEATHER_IN_LIMA}


@pytest.fixture(scope="module")
def got(served: Daemon) -> dict[str, Any]:
    """What ollama.js prints."""
    given = json.dumps({**GIVEN, "tool": WEATHER, "texts": TEXTS})
    done = subprocess.run(["node", "ollama.js", served.url, given], cwd=JS, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_whole_and_streamed(got: dict[str, Any]) -> None:
    assert "Paris" in got["whole"]["message"]["content"]
    *parts, last = got["streamed"]
    assert "".join(part["message"]["content"] for part in parts) == got["whole"]["message"]["content"]
    assert len(parts) > 3, "it came in pieces"
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert got["generated"] == got["generatedWhole"] != ""


def test_tools(got: dict[str, Any]) -> None:
    for calls in (got["calls"], got["callsStreamed"]):
        (call,) = calls
        assert call["function"]["name"] == "get_weather"
        assert call["function"]["arguments"] == {"city": "Lima"}


def test_thinking(got: dict[str, Any]) -> None:
    assert "capital" in got["thought"]["thinking"]
    assert got["thought"]["content"] == "The capital of France is Paris."


def test_embeddings(got: dict[str, Any]) -> None:
    assert alike(got["embeddings"])


def test_models(got: dict[str, Any]) -> None:
    assert {f"{name}:latest" for name in (ABLE, DEMO, ENCODER)} <= set(got["list"])
    assert f"{DEMO}:latest" in got["loaded"]
    assert set(got["capabilities"]) == {"completion", "tools", "thinking"}
    assert all(part.isdecimal() for part in got["version"].split("."))


def test_errors(got: dict[str, Any]) -> None:
    for failure in (got["notFound"], got["notFoundStreamed"], got["deleted"]):
        assert (failure["status"], failure["message"]) == (404, "model 'nope' not found")
    assert got["noTools"]["status"] == 400
    assert "does not support tools" in got["noTools"]["message"]
