"""Pulls as seen from the daemon: one download for each model, any number of clients that watch it.

A download is a child process (store/fetching.py); it ends with the last watcher, and what it has fetched stays for the
next.  The mutable state is the flights, one for each directory that is being filled.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import msgspec

from hyperllamad.core.errors import (
    ClosingError,
    DiskFullError,
    HyperLlamaError,
    InUseError,
    PullFailedError,
    RepositoryNotFoundError,
    StoreError,
    UnsupportedError,
)
from hyperllamad.store.fetch_wire import Event, Failure, Moved, Placed, Plan, Request, Verifying
from hyperllamad.store.steps import SUCCESS, WRITING, Step
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.store")

MANIFEST = Step("pulling manifest")
VERIFYING = Step("verifying sha256 digest")
_AGAIN = "pull again to go on"
_LINE = 16 << 20  # bytes of one line from the child: a plan of thousands of files fits
_KINDS: dict[str, type[HyperLlamaError]] = {
    kind.__name__: kind
    for kind in (RepositoryNotFoundError, UnsupportedError, DiskFullError, StoreError, InUseError, PullFailedError)
}


class _Phase(enum.IntEnum):
    MANIFEST = 0
    LAYERS = 1
    VERIFYING = 2
    WRITING = 3
    DONE = 4


class Pulls:
    """All downloads.  `run` must be running for watch() to be of use."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._flights: dict[str, _Flight] = {}
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the downloads until cancelled; then end them."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    def watch(
        self, request: Request, finish: Callable[[], Awaitable[None]], *, note: str = "", caution: str = ""
    ) -> Watch:
        """Watch the download into `request.target`, begun now unless it is going on.

        `finish` is called once when the model has come, before anybody hears of it.  `note` and `caution` are told to
        this watcher: what was chosen, and that it will not run here.  Raises ClosingError.
        """
        if self._tasks is None:
            raise ClosingError
        flight = self._flights.get(request.target)
        if flight is None or flight.over:  # one that has failed is still ending its child
            flight = _Flight(request, finish, environment(self._environ))
            self._flights[request.target] = flight
            self._tasks.start_soon(self._fly, flight)
        return Watch(flight, self._abandoned, note, caution)

    async def _fly(self, flight: _Flight) -> None:
        try:
            await flight.run()
        finally:
            self._forget(flight)

    def _abandoned(self, flight: _Flight) -> None:
        # Forgotten at once: who comes now begins a new one, which waits for the old child to be gone.
        self._forget(flight)
        flight.scope.cancel()

    def _forget(self, flight: _Flight) -> None:
        if self._flights.get(flight.target) is flight:
            del self._flights[flight.target]


class Watch:
    """One client's view of a download.  Leave it when done: the last one to leave ends a download that still runs."""

    def __init__(self, flight: _Flight, abandoned: Callable[[_Flight], None], note: str, caution: str) -> None:
        self._flight: _Flight | None = flight
        self.note, self.caution = note, caution
        self._steps = _told(flight.steps(), note, caution)
        self._abandoned = abandoned
        flight.watchers += 1

    def __aiter__(self) -> AsyncIterator[Step]:
        """Ollama's lines in Ollama's order, from the first; raises HyperLlamaError when the download fails."""
        return self._steps

    def leave(self) -> None:
        """Stop watching; again does nothing."""
        if self._flight is None:
            return
        flight, self._flight = self._flight, None
        flight.watchers -= 1
        if flight.watchers == 0 and not flight.over:
            self._abandoned(flight)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class _Flight:
    """One download: the child, and what it has said so far."""

    def __init__(self, request: Request, finish: Callable[[], Awaitable[None]], environ: dict[str, str]) -> None:
        self.target = request.target
        self.scope = anyio.CancelScope()
        self.watchers = 0
        self._request, self._finish, self._environ = request, finish, environ
        self._phase = _Phase.MANIFEST
        self._layers: tuple[tuple[str, int], ...] = ()
        self._names: tuple[str, ...] = ()
        self._completed: tuple[int, ...] = ()
        self._failure: tuple[type[HyperLlamaError], str, str] | None = None
        self._changed = anyio.Event()

    @property
    def over(self) -> bool:
        return self._phase is _Phase.DONE or self._failure is not None

    async def run(self) -> None:
        """Run the child to its end, or end it with the scope."""
        try:
            with self.scope:
                await self._run_child()
                if self._phase is _Phase.WRITING:
                    await self._finish()
                    self._phase = _Phase.DONE
        except HyperLlamaError as failure:
            self._failure = (type(failure), failure.message, failure.hint)
        finally:
            if not self.over:
                self._failure = (PullFailedError, "the pull was cut off", _AGAIN)
            self._wake()

    async def _run_child(self) -> None:
        argv = (sys.executable, "-m", "hyperllamad.store.fetching")
        try:
            child = await anyio.open_process(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environ
            )
        except OSError as failure:
            raise PullFailedError(f"the download could not be started: {failure.strerror}", hint=_AGAIN) from failure
        try:
            assert child.stdin is not None  # noqa: S101  # asked for
            with contextlib.suppress(anyio.BrokenResourceError):  # it ended at once: its exit status says more
                await child.stdin.send(msgspec.json.encode(self._request) + b"\n")
            async for event in _events(child):
                self._hear(event)
            code = await child.wait()
        finally:
            with anyio.CancelScope(shield=True):
                if child.returncode is None:
                    child.kill()
                await child.wait()
                await child.aclose()
        if self._phase is not _Phase.WRITING and self._failure is None:
            said = f"it exited with {code}" if code >= 0 else f"it was ended by signal {-code}"
            raise PullFailedError(f"the download process did not finish: {said}", hint=_AGAIN)

    def _hear(self, event: Event) -> None:
        match event:
            case Plan():
                self._layers, self._names = event.layers, event.names
                self._completed, self._phase = event.completed, _Phase.LAYERS
            case Moved():
                self._completed = event.completed
            case Verifying():
                self._phase = _Phase.VERIFYING
            case Placed():
                self._phase = _Phase.WRITING
            case Failure():
                if event.trace:
                    log.error("%s", event.message, extra=fields(model=self._request.name, trace=event.trace))
                self._failure = (_KINDS.get(event.kind, PullFailedError), event.message, event.hint)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def steps(self) -> AsyncIterator[Step]:
        """What a client that comes now is told: where things stand, then what moves, without what it slept through."""
        yield MANIFEST
        told: dict[int, int] = {}
        while True:
            news = self._layer_news(told)
            for step in news:
                yield step
            if not news:
                if self._phase > _Phase.LAYERS or self._failure is not None:
                    break
                await self._changed.wait()
        if self._failure is None:
            yield VERIFYING
        async for step in self._ending():
            yield step

    def _layer_news(self, told: dict[int, int]) -> list[Step]:
        """A step for each layer that has moved since it was told; nothing is said of those that have not begun."""
        news = []
        for number, (digest, size) in enumerate(self._layers):
            done = size if self._phase > _Phase.LAYERS else self._completed[number]
            if told.get(number) != done and (done or size == 0):
                told[number] = done
                news.append(Step(f"pulling {digest[:12]}", f"sha256:{digest}", size, done, self._names[number]))
        return news

    async def _ending(self) -> AsyncIterator[Step]:
        while self._phase < _Phase.WRITING and self._failure is None:
            await self._changed.wait()
        if self._phase >= _Phase.WRITING:
            yield WRITING
        while not self.over:
            await self._changed.wait()
        if self._failure is not None:
            kind, message, hint = self._failure
            raise kind(message, hint=hint)
        yield SUCCESS


async def _told(steps: AsyncIterator[Step], *sentences: str) -> AsyncIterator[Step]:
    """The steps, with the sentences behind the first one."""
    yield await anext(steps)
    for sentence in filter(None, sentences):
        yield Step(sentence)
    async for step in steps:
        yield step


async def _events(child: anyio.abc.Process) -> AsyncIterator[Event]:
    assert child.stdout is not None  # noqa: S101  # asked for
    rest = b""
    async for chunk in child.stdout:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            try:
                yield msgspec.json.decode(line, type=Event)
            except msgspec.DecodeError as failure:
                raise PullFailedError(
                    "the download process said something that makes no sense", hint=_AGAIN
                ) from failure
        if len(rest) > _LINE:
            raise PullFailedError("the download process said too much at once", hint=_AGAIN)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The child's variables: no statistics, no bars; a token from systemd's credential `hf_token` if there is one.

    Without Xet, which keeps what it has of a file where it cannot be checked or gone on with after a kill.
    """
    own = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_ENABLE_HF_TRANSFER": "0",
    }
    told = {"HF_HUB_DOWNLOAD_TIMEOUT": "30", **environ, **own}
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "hf_token"
    if credential.is_file():
        told.setdefault("HF_TOKEN_PATH", str(credential))
    return told
