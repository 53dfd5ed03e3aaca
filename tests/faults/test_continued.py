"""An answer outlives its engine, over fake engines and llama.cpp; where it must not, it says why."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, daemon
from tests.faults import continued
from tests.faults.house import answer_of, chat, fakes
from tests.real.conftest import demo_model

WORDS = 30
SLOW = ("--token-delay", "0.01", "--words", "100000")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    # Slow enough that what an engine says is read before it is dead: what nobody has read is asked for anew, once.
    poison = ("--exit-after-tokens", "5", "--words", "30", "--token-delay", "0.05")
    models = dict.fromkeys("abcdef", SLOW) | {"poison": poison}
    with fakes(tmp_path_factory.mktemp("house"), models, main="[fleet]\nmax_loaded_models = 20\n") as running:
        yield running


def killed(running: Daemon, model: str, at: int, **more: Any) -> tuple[str, str]:
    """(text, error) of an answer whose engine is killed after `at` pieces."""
    text, error = "", ""
    list(chat(running, model, 1))
    pid = running.row(model)["pid"]
    try:
        for number, piece in enumerate(chat(running, model, WORDS, **more)):
            text += piece
            if number == at:
                os.kill(pid, signal.SIGKILL)
    except AssertionError as failure:
        error = str(failure)
    return text, error


@pytest.mark.parametrize(("model", "at"), [("a", 0), ("b", 7), ("c", 20)])
def test_the_text_is_that_of_the_unkilled(house: Daemon, model: str, at: int) -> None:
    assert killed(house, model, at) == (answer_of(WORDS), "")
    assert house.row(model)["restarts"] == 1


def test_the_counts_are_those_of_the_whole(house: Daemon) -> None:
    body = {"model": "d", "messages": [{"role": "user", "content": "x y z"}], "options": {"num_predict": WORDS}}
    plain = _last(house, body)
    again = _last(house, body, kill=house.row("d")["pid"])
    assert house.row("d")["restarts"] == 1
    for name in ("eval_count", "prompt_eval_count", "done_reason"):
        assert again[name] == plain[name], name


def _last(running: Daemon, body: dict[str, Any], kill: int = 0) -> dict[str, Any]:
    request = urllib.request.Request(f"{running.url}/api/chat", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as reply:
        for number, line in enumerate(reply):
            event: dict[str, Any] = json.loads(line)
            if kill and number == 5:
                os.kill(kill, signal.SIGKILL)
    return event


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"options": {"temperature": 1, "seed": 3}}, "drawn at random from a seed"),
        ({"format": "json"}, "its form is checked"),
        ({"logprobs": True}, "tells probabilities"),
    ],
)
def test_what_would_be_wrong_is_refused(house: Daemon, more: dict[str, Any], why: str) -> None:
    text, error = killed(house, "e", 3, **more)
    assert answer_of(WORDS).startswith(text)
    assert "ended with -9" in error
    assert why in error
    house.ctl("unload", "e")


def test_an_answer_that_kills_its_engines_comes_to_an_end(house: Daemon) -> None:
    """Each one dies after five tokens, whoever asks for them."""
    pieces = []
    with pytest.raises(AssertionError, match="it has cost several engines already"):
        pieces.extend(chat(house, "poison", WORDS))
    assert house.row("poison")["restarts"] <= 4


def test_an_unload_on_purpose_is_no_death(house: Daemon) -> None:
    text = ""
    with pytest.raises(AssertionError, match="unloaded"):
        for number, piece in enumerate(chat(house, "f", 10_000)):
            text += piece
            if number == 3:
                house.ctl("unload", "--now", "f")
    assert answer_of(10_000).startswith(text)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with fakes(tmp_path, {"m": SLOW}, server="continue_streams = false") as running:
        text, error = killed(running, "m", 3)
    assert answer_of(WORDS).startswith(text)
    assert "ended with -9" in error
    assert "continued" not in error


@pytest.mark.real
@pytest.mark.timeout(300)
def test_llama_cpp_writes_the_same_text() -> None:
    name = "demo-llama_cpp"
    with daemon({name: demo_model("llama_cpp") | {"args": ["--threads", "1"]}}) as running:
        tally = continued.campaign(running, name, 3, seed=1, questions=continued.QUESTIONS[:1])
    assert (tally.runs, tally.continued, tally.equal) == (3, 3, 3), (tally.errors, tally.different)
