"""An engine is killed at a random token of a greedy answer, again and again: is the text the same as unkilled?"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ollama

from tests.daemon import Daemon
from tests.faults.house import row, unload
from tests.faults.report import Row
from tests.real.conftest import SYSTEM

TOKENS = 24
QUESTIONS = (
    "What is the capital of France?",
    "Count from one to fifty in words.",
    "Write a short story about a lighthouse.",
    "List the months of the year with one fact each.",
    "Explain why the sky is blue, in English, then say it in French: caf\u00e9, na\u00efve, \u00fcber.",
    "Write a Python function that reverses a list, with comments.",
)


@dataclass
class Tally:
    """What became of the runs."""

    runs: int = 0
    continued: int = 0  # the engine was killed before the answer had ended
    equal: int = 0
    different: list[tuple[str, str]] = field(default_factory=list)  # expected, got
    errors: Counter[str] = field(default_factory=Counter)
    where: Counter[int] = field(default_factory=Counter)  # killed at which piece
    gaps: list[float] = field(default_factory=list)  # seconds from the kill to the next piece


def unkilled(client: ollama.Client, model: str, questions: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """The pieces of each answer of some length, asked in peace."""
    answers = {
        (route, question): [piece for piece in _pieces(client, model, route, question) if piece]
        for route in ("chat", "generate")
        for question in questions
    }
    return {asked: pieces for asked, pieces in answers.items() if len(pieces) > 2}


def _pieces(client: ollama.Client, model: str, route: str, question: str) -> Any:
    options = {"temperature": 0, "num_predict": TOKENS}
    if route == "chat":
        messages = [SYSTEM, {"role": "user", "content": question}]
        for part in client.chat(model, messages, options=options, stream=True):
            yield part.message.content or ""
    else:
        for whole in client.generate(model, question, raw=True, options=options, stream=True):
            yield whole.response


def campaign(running: Daemon, model: str, runs: int, *, seed: int, questions: Sequence[str] = QUESTIONS) -> Tally:
    """`runs` answers of that model, each with its engine killed once, at a random token."""
    dice = random.Random(seed)
    tally = Tally()
    with ollama.Client(running.url, timeout=600) as client:
        expected = unkilled(client, model, questions)
        for _ in range(runs):
            (route, question), pieces = dice.choice(list(expected.items()))
            got = _one(running, client, (model, route, question), dice.randrange(1, len(pieces)), tally)
            if got is None:
                continue
            if got == "".join(pieces):
                tally.equal += 1
            else:
                tally.different.append(("".join(pieces), got))
    return tally


def _one(running: Daemon, client: ollama.Client, asked: tuple[str, str, str], at: int, tally: Tally) -> str | None:
    """The text of an answer whose engine was killed after so many pieces; None when it ended with an error."""
    tally.runs += 1
    pid = _fresh(running, client, asked[0])
    got, killed_at = "", 0.0
    try:
        for number, piece in enumerate(_pieces(client, *asked), 1):
            got += piece
            if killed_at and piece:
                tally.gaps.append(time.monotonic() - killed_at)
                killed_at = 0.0
            if number == at:
                os.kill(pid, signal.SIGKILL)
                killed_at = time.monotonic()
                tally.continued += 1
                tally.where[at] += 1
    except ollama.ResponseError as failure:
        tally.errors[failure.error] += 1
        return None
    return got


def _fresh(running: Daemon, client: ollama.Client, model: str) -> int:
    """The process of an engine without a past: one that has crashed before is restarted later and later."""
    if (seen := row(running, model)) and seen.restarts > 1:
        unload(running, model)
    client.chat(model, [SYSTEM], options={"num_predict": 1})
    seen = row(running, model)
    assert seen is not None
    return seen.pid


def row_of(tally: Tally, engine: str) -> Row:
    """The row for the report."""
    told = f"{tally.equal} texts equal, {len(tally.different)} different, {sum(tally.errors.values())} errors; "
    told += f"the next piece came after {statistics.median(tally.gaps):.1f} s (median)" if tally.gaps else ""
    what = f"greedy answer continued after SIGKILL at a random token, {engine}"
    return Row(what, str(tally.continued), tally.equal == tally.runs == tally.continued, told)
