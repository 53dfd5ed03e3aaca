"""Log lines and metrics."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hyperllamad.telemetry import LineFormatter, Metrics, fields, start_logging


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.root, logging.getLogger("hyperllamad")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_for_the_journal() -> None:
    stream = io.StringIO()
    start_logging(debug=False, stream=stream)
    log = logging.getLogger("hyperllamad.front")
    log.info("request", extra=fields(model="m:latest", status=200, duration=0.0123456, gone=None, client=True))
    log.warning("two\nlines", extra=fields(path='/a "b"', empty=""))
    log.debug("not shown")
    logging.getLogger("aiohttp").info("not shown")
    assert lines(stream) == [
        "<6>hyperllamad.front: request model=m:latest status=200 duration=0.01235 client=true",
        '<4>hyperllamad.front: two\\nlines path="/a \\"b\\"" empty=""',
    ]


def test_a_traceback_is_one_line_for_the_journal() -> None:
    stream = io.StringIO()
    start_logging(debug=True, stream=stream)
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logging.getLogger("hyperllamad.x").exception("failed")
    (line,) = lines(stream)
    assert line.startswith('<3>hyperllamad.x: failed exception="Traceback')
    assert "ValueError: bad\\nthing" in line


def test_a_line_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = Terminal()
    start_logging(debug=True, stream=stream)
    logging.getLogger("hyperllamad.x").debug("hello", extra=fields(n=12345.6))
    (line,) = lines(stream)
    assert line[8:] == " debug   hyperllamad.x: hello n=12346"
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    start_logging(debug=True, stream=stream)
    logging.getLogger("hyperllamad.x").info("hello")
    assert lines(stream)[-1] == "<6>hyperllamad.x: hello"


def test_secrets_are_never_printed() -> None:
    record = logging.makeLogRecord({"msg": "x", "levelno": 20, **fields(Authorization="Bearer abc", tokens=3)})
    assert LineFormatter(journal=True).format(record).endswith("x Authorization=(hidden) tokens=3")


@dataclass
class Row:
    name: str
    state: str
    waiting: int = 0
    restarts: int = 0


def test_metrics() -> None:
    metrics = Metrics()
    rows: list[Row] = []
    metrics.watch(lambda: rows)
    metrics.request("/api/chat", 200, 1.5)
    metrics.tokens("m:latest", prompt=7, completion=3)
    metrics.first_token("m:latest", 0.2)
    rows += [Row("m", "ready", 2, 1), Row("m", "starting", 3), Row("n", "ready")]
    text = metrics.text().decode()
    for line in (
        'hyperllama_requests_total{route="/api/chat",status="200"} 1.0',
        'hyperllama_request_duration_seconds_sum{route="/api/chat"} 1.5',
        'hyperllama_tokens_total{kind="prompt",model="m:latest"} 7.0',
        'hyperllama_tokens_total{kind="completion",model="m:latest"} 3.0',
        'hyperllama_time_to_first_token_seconds_bucket{le="0.25",model="m:latest"} 1.0',
        'hyperllama_instances{state="ready"} 2.0',
        'hyperllama_instances{state="starting"} 1.0',
        "hyperllama_queue_length 5.0",
        'hyperllama_restarts_total{model="m"} 1.0',
    ):
        assert line in text.split("\n")
    assert metrics.content_type.startswith("text/plain; version=")
