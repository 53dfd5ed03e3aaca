"""A closed-loop client for benchmarks: so many streams at once, each asking again when it has been answered.

Knows the ways to one model: an engine's own OpenAI routes over its Unix socket, and the daemon's OpenAI and Ollama
routes.  Prompts are random words, so that no prefix cache answers for them.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

TEXT = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do"
)
WORDS = TEXT.split()
# An engine's chat begins with an event that names the role and has no text: nothing to read, and no token.
_TEXT = re.compile(rb'"(?:content|text|response)": ?"(?!")')


@dataclass(frozen=True)
class Way:
    """Where requests go.  `socket` = "" means TCP, over connections that are kept unless it is said otherwise."""

    title: str
    base: str
    path: str  # "/v1/completions", "/v1/chat/completions", "/api/generate" or "/api/chat"
    model: str
    socket: str = ""
    kept: bool = True

    def session(self) -> aiohttp.ClientSession:
        # An engine may close a connection that is kept at the moment it is used again, so none is (as in the daemon).
        connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=0, force_close=not self.kept)
        if self.socket:
            connector = aiohttp.UnixConnector(self.socket, limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=900)
        return aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=1 << 20)

    def body(self, prompt: str, tokens: int, options: Mapping[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {"prompt": prompt}
        if "chat" in self.path:
            asked = {"messages": [{"role": "user", "content": prompt}]}
        elif self.path == "/api/generate":
            asked["raw"] = True
        if self.path.startswith("/api/"):
            stated = {"num_predict": tokens, "temperature": 0.0, **options}
            return {"model": self.model, **asked, "stream": True, "options": stated}
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        return {"model": self.model, **asked, "max_tokens": tokens, "temperature": 0.0, **usage}


@dataclass(frozen=True)
class Answer:
    """One request: seconds to its first text and its last bytes, and its tokens."""

    began: float  # perf_counter
    first: float
    last: float
    tokens: int


class FailedError(Exception):
    """A request was not answered as it should."""


def prompt(words: int) -> str:
    return " ".join(random.choices(WORDS, k=words))


async def ask(
    session: aiohttp.ClientSession, way: Way, words: int, tokens: int, options: Mapping[str, Any] | None = None
) -> Answer:
    """Raises FailedError for anything but a whole answer."""
    body = way.body(prompt(words), tokens, options or {})
    began = time.perf_counter()
    first = last = 0.0
    made, events, ended = 0, 0, False
    async with session.post(way.base + way.path, json=body) as reply:
        if reply.status != 200:
            raise FailedError(f"{reply.status}: {(await reply.text())[:300]}")
        async for line in reply.content:
            if len(line) < 3:
                continue
            last = time.perf_counter()
            if not first and _TEXT.search(line):
                first = last
            if b'"usage":{' in line or b'"usage": {' in line:
                made = json.loads(line[6:])["usage"]["completion_tokens"]
            elif b'"done":true' in line:
                made, ended = json.loads(line).get("eval_count", 0), True
            elif b'"text":"' in line or b'"content":"' in line:
                events += 1
            elif line.startswith((b'{"error"', b'data: {"error"')):
                raise FailedError(line[:300].decode(errors="replace"))
            ended = ended or b"[DONE]" in line
    if not ended:
        raise FailedError("the answer was cut off")
    return Answer(began, (first or last) - began, last - began, made or events)  # not every engine counts for us


async def closed_loop(way: Way, streams: int, requests: int, *, words: int, tokens: int) -> tuple[list[Answer], float]:
    """All answers and the seconds they took together."""
    left = iter(range(requests))
    answers: list[Answer] = []

    async def one(session: aiohttp.ClientSession) -> None:
        for _ in left:
            answers.append(await ask(session, way, words, tokens))

    async with way.session() as session:
        began = time.perf_counter()
        await asyncio.gather(*(one(session) for _ in range(streams)))
        return answers, time.perf_counter() - began


def percentile(values: list[float], part: float) -> float:
    """The smallest value that at least `part` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def summary(answers: list[Answer], seconds: float) -> dict[str, float]:
    """Tokens per second of all together; milliseconds to the first token and between tokens."""
    firsts = [answer.first * 1e3 for answer in answers]
    between = [(a.last - a.first) / (a.tokens - 1) * 1e3 for a in answers if a.tokens > 1]
    return {
        "tok_s": round(sum(a.tokens for a in answers) / seconds, 1),
        "ttft_p50_ms": round(statistics.median(firsts), 2),
        "ttft_p99_ms": round(percentile(firsts, 0.99), 2),
        "itl_p50_ms": round(statistics.median(between), 2) if between else 0.0,
    }
