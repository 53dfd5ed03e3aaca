"""What the daemon tells the outside: log lines on standard error, metrics for Prometheus.

Owns the wording of a line and the names of the metrics.  Must not know what an instance or a request is beyond the
few fields it prints; never prints a body, a header or anything that looks like a secret.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, TextIO

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# -- log lines ---------------------------------------------------------------------------------------------------------

# sd-daemon(3): a line that starts with <n> is stored with that priority.
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_SECRET = frozenset({"authorization", "api_key", "password", "secret", "token", "body", "prompt"})
_SPECIAL = re.compile(r'[ "=\\]')  # in a value that is quoted


def fields(**values: object) -> dict[str, Any]:
    """`extra=` of a log call: printed as key=value behind the message; None is left out."""
    return {"fields": values}


class LineFormatter(logging.Formatter):
    """One line per record: `message key=value ...`, with journald's priority or with the time and level for people."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        pairs: Mapping[str, object] = getattr(record, "fields", {})
        for name, value in pairs.items():
            if value is not None:
                text += f" {name}={_value('(hidden)' if name.lower() in _SECRET else value)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            # The journal would store every line of a traceback as a record of its own, without its priority.
            text += f" exception={json.dumps(trace)}" if self._journal else f"\n{trace}"
        if self._journal:
            level = max((known for known in _PRIORITY if known <= record.levelno), default=logging.DEBUG)
            return f"<{_PRIORITY[level]}>{record.name}: {text}".replace("\n", "\\n")
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{moment} {record.levelname.lower():<7} {record.name}: {text}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    text = str(value)
    plain = text.isprintable() and not _SPECIAL.search(text)
    return text if text and plain else json.dumps(text, ensure_ascii=False)


def start_logging(*, debug: bool, stream: TextIO | None = None) -> None:
    """Send every record of the process to standard error; call once, before the first record.

    journald's form is used when the journal reads us ($JOURNAL_STREAM, systemd.exec(5)) or nobody does (no terminal).
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(journal="JOURNAL_STREAM" in os.environ or not stream.isatty()))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)  # other people's libraries speak up only when something is wrong
    logging.getLogger("hyperllamad").setLevel(logging.DEBUG if debug else logging.INFO)
    # No line says which code wrote it, nor in which thread, so nobody needs to find out ("Optimization" in the HOWTO).
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


# -- metrics -----------------------------------------------------------------------------------------------------------


class InstanceRow(Protocol):
    """What the metrics read of an instance; supervision's rows have it."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def waiting(self) -> int: ...
    @property
    def restarts(self) -> int: ...


_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
_DURATION = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)  # seconds


class Metrics:
    """Every metric of the daemon, in a registry of its own (so that tests may make as many as they like)."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests = Counter("hyperllama_requests", "Requests answered.", ("route", "status"), registry=self.registry)
        tokens = Counter("hyperllama_tokens", "Tokens processed.", ("model", "kind"), registry=self.registry)
        first_token = Histogram(
            "hyperllama_time_to_first_token_seconds",
            "From the arrival of a request to the first token, loading included.",
            ("model",),
            buckets=_FIRST_TOKEN,
            registry=self.registry,
        )
        duration = Histogram(
            "hyperllama_request_duration_seconds",
            "From the arrival of a request to the end of its answer.",
            ("route",),
            buckets=_DURATION,
            registry=self.registry,
        )
        # By labels, each found once: a metric keeps its children for ever, but takes its time to find them.
        self._requests, self._tokens = cache(requests.labels), cache(tokens.labels)
        self._first_token, self._duration = cache(first_token.labels), cache(duration.labels)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request ended; `route` is a rule of the API, never a path as sent (that would be without bound)."""
        self._requests(route, str(status)).inc()
        self._duration(route).observe(seconds)

    def tokens(self, model: str, *, prompt: int, completion: int) -> None:
        """Tokens of one answer, by the model's short name."""
        self._tokens(model, "prompt").inc(prompt)
        self._tokens(model, "completion").inc(completion)

    def first_token(self, model: str, seconds: float) -> None:
        """An answer's first token left the engine `seconds` after its request came."""
        self._first_token(model).observe(seconds)

    def watch(self, rows: Callable[[], Sequence[InstanceRow]]) -> None:
        """Report the instances too; `rows` is called at each scrape."""
        self.registry.register(_Instances(rows))

    def text(self) -> bytes:
        """The Prometheus text of everything."""
        return generate_latest(self.registry)


class _Instances(Collector):
    """The instances as they are at the moment of the scrape: nothing to keep in step."""

    def __init__(self, rows: Callable[[], Sequence[InstanceRow]]) -> None:
        self._rows = rows

    def describe(self) -> Iterator[Metric]:
        """Registering must not call `rows`: at that moment its owner may not stand yet."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        rows = self._rows()
        states = GaugeMetricFamily("hyperllama_instances", "Engine instances by state.", labels=["state"])
        for state in sorted({row.state for row in rows}):
            states.add_metric([state], sum(row.state == state for row in rows))
        yield states
        waiting = sum(row.waiting for row in rows)
        yield GaugeMetricFamily("hyperllama_queue_length", "Requests that wait for a model.", value=waiting)
        restarts = CounterMetricFamily("hyperllama_restarts", "Engine crashes of each loaded model.", labels=["model"])
        for name in dict.fromkeys(row.name for row in rows):
            restarts.add_metric([name], sum(row.restarts for row in rows if row.name == name))
        yield restarts
