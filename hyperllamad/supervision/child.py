"""One engine process tree as one scope: started under a guard, its output as lines, its end as a value.

Knows processes and pipes; must not know the fleet, HTTP or what an engine is.  run() comes back only when nobody of the
tree is left, however that came about: by itself, by terminate() or kill(), by cancellation, by the death of the guard.
The one exception is leave(): the tree goes on, and the next life of the daemon takes it over with `found`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from hyperllamad.engines.base import Launch, Place
from hyperllamad.supervision import cgroups, orphans, place, procfs
from hyperllamad.supervision.cgroups import NO_DEATHS, Deaths
from hyperllamad.supervision.lines import LineSplitter
from hyperllamad.supervision.place import Leader
from hyperllamad.supervision.procfs import Identity

GUARD = Path(__file__).with_name("guard.py")
KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "CUDA_VISIBLE_DEVICES")
LAST_WAIT = 10.0  # seconds after a kill when the daemon itself falls; then only a driver can hold the process
CHUNK = 1 << 16
PIPE_SIZE = 1 << 20  # bytes an engine may print before it waits for a reader; what may be had without privileges


@dataclass(frozen=True, slots=True)
class Exit:
    """How it ended.  `code` as subprocess gives it: negative = killed by that signal."""

    code: int
    spawn_error: int = 0  # errno when the program could not be started at all; `code` means nothing then
    guard_lost: bool = False  # the guard was killed, and the rest after it
    memory: Deaths = NO_DEATHS  # what the kernel did to its control group
    left: bool = False  # it has not ended: leave() was called

    @property
    def transient(self) -> bool:
        """Whether starting it again may succeed, as far as the spawn is concerned."""
        return self.spawn_error not in {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EPERM}


class _Message(msgspec.Struct):
    """A line from the guard; exactly one kind of field is there (see guard.py)."""

    pid: int | None = None
    start: int = 0
    exit: int | None = None
    spawn_error: int | None = None


class Child:
    """A process tree to be: run() once; terminate() and kill() at any time, before that too."""

    def __init__(
        self,
        launch: Launch,
        where: Place,
        *,
        on_line: Callable[[str], None],
        on_start: Callable[[], None] = lambda: None,
        patience: float = 0.0,
        found: Leader | None = None,
    ) -> None:
        """`patience` is how many seconds the tree waits for another daemon when this one is gone; 0 = it ends then.

        `found` is one that an earlier life of the daemon left, to be taken over instead of started.
        """
        self.identity: Identity | None = None  # of the engine's main process, from on_start() on
        self.guard = 0  # number of the guard's process
        self._launch = launch
        self._where = where
        self._on_line = on_line
        self._on_start = on_start
        self._lines = LineSplitter()
        self._told = b""
        self._told_to_end = False
        self._control: socket.socket | None = None
        self._exit: Exit | None = None
        self._patience = patience
        self._found = found
        self._popen: subprocess.Popen[bytes] | None = None  # the guard, when it is our child
        self._process: int | None = None  # a hold on the guard's process, while it is open
        self._scope = anyio.CancelScope()
        self._left = False

    def terminate(self) -> None:
        """Ask the engine's main process to end (SIGTERM)."""
        self._tell(b"T")

    def kill(self) -> None:
        """End the whole tree (SIGKILL)."""
        self._tell(b"K")

    @property
    def can_be_left(self) -> bool:
        """It runs, and somebody would wait for another daemon."""
        return self.identity is not None and self._patience > 0 and self._control is not None and not self._told_to_end

    def leave(self) -> None:
        """Let it go on without us; run() comes back with an Exit that says so."""
        self._left = True
        self._scope.cancel()

    def members(self) -> list[int]:
        """Everybody of the tree who is there now, but for the guard: who may hold memory on a GPU."""
        if self._where.group:
            return cgroups.members(Path(self._where.group))
        return procfs.descendants(self.guard, procfs.processes()) if self.guard else []

    async def run(self) -> Exit:
        """Until nobody of the tree is left.  Cancellation kills the tree first, and waits LAST_WAIT for it at most."""
        with contextlib.ExitStack() as held:
            try:
                guard, output = self._take_over(self._found, held) if self._found else self._spawn(held)
            except OSError as failure:
                if self._found is not None:
                    return await self._lost(self._found)
                if self._popen is not None:
                    await self._end_unwatched(self._popen)
                return Exit(0, spawn_error=failure.errno or errno.EIO)
            try:
                with self._scope:
                    await self._live(guard, output)
                if self._left and self._exit is not None:  # it ended by itself in the moment it was left
                    await self._wait_gone(guard)
            except BaseException:
                self.kill()
                with anyio.move_on_after(LAST_WAIT, shield=True):
                    await self._wait_gone(guard)
                raise
            finally:
                self._control = self._process = None
                self._drain(output)
        if self._left and self._exit is None:
            return Exit(0, left=True)
        ended = self._exit or Exit(-signal.SIGKILL, guard_lost=True)
        return replace(ended, memory=cgroups.deaths(Path(self._where.group))) if self._where.group else ended

    # -- the pieces ------------------------------------------------------------------------------------------------

    def _spawn(self, held: contextlib.ExitStack) -> tuple[int, int]:
        """Start the guard; descriptors of its process and of what its output comes from.  Raises OSError."""
        ours, theirs = socket.socketpair()
        held.callback(ours.close)
        with contextlib.ExitStack() as given_away:
            given_away.callback(theirs.close)
            output, inlet = self._pipe()
            held.callback(os.close, output)
            given_away.callback(os.close, inlet)
            for descriptor in (ours.fileno(), output):
                os.set_blocking(descriptor, False)
            where = str(place.directory(self._where)) if self._patience else ""
            about = [str(theirs.fileno()), self._where.group, where, str(self._patience)]
            # Not in a thread of anyio, though it takes some milliseconds: the kernel tells the guard of our death when
            # the thread ends that started it, and theirs end once they are idle.
            guard = self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *about, *self._launch.argv],
                stdin=subprocess.DEVNULL,
                stdout=inlet,
                stderr=inlet,
                cwd=self._launch.cwd,
                env=environment(self._launch, self._where),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal is for the daemon alone
            )
        self._control = ours
        process = os.pidfd_open(guard.pid)  # a zombie at least: nobody else reaps it
        held.callback(os.close, process)
        self._begin(guard.pid, process, ours)
        return process, output

    def _pipe(self) -> tuple[int, int]:
        """Both ends for the output: with a name in the place where it must be found again."""
        if not self._patience:
            return os.pipe()
        name = place.output(self._where)
        os.mkfifo(name, 0o600)
        output = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            inlet = os.open(name, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            os.close(output)
            raise
        with contextlib.suppress(OSError):  # more than an administrator allows: then engines wait sooner for a reader
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        return output, inlet

    def _take_over(self, found: Leader, held: contextlib.ExitStack) -> tuple[int, int]:
        """The same for one that is there already.  Raises OSError when it is no more."""
        assert found.guard is not None  # noqa: S101 - or it would not have been found
        process = os.pidfd_open(found.guard.pid)
        held.callback(os.close, process)
        if not found.guard.alive:  # looked at while we hold it, so the number cannot pass to another any more
            raise ProcessLookupError(errno.ESRCH, "the guard has ended")
        output = os.open(place.output(self._where), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        held.callback(os.close, output)
        ours = socket.socket(socket.AF_UNIX)
        held.callback(ours.close)
        ours.connect(str(place.door(self._where)))  # at once: it only has to be in the queue
        ours.setblocking(False)  # noqa: FBT003 - the socket module takes it no other way
        self._begin(found.guard.pid, process, ours)
        return process, output

    async def _end_unwatched(self, guard: subprocess.Popen[bytes]) -> None:
        """The guard was started, and there is no descriptor left to watch it by: it ends what it has begun."""
        self.kill()
        await anyio.to_thread.run_sync(guard.wait, abandon_on_cancel=True)
        self._control = None

    async def _lost(self, found: Leader) -> Exit:
        """It cannot be taken over: whoever is still there is ended."""
        await orphans.end(place.directory(self._where), found, self._where.group)
        return Exit(-signal.SIGKILL, guard_lost=True)

    def _begin(self, guard: int, process: int, control: socket.socket) -> None:
        self.guard, self._process = guard, process
        self._control = control
        if self._told:
            self._tell(b"")

    async def _live(self, guard: int, output: int) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._pump, output)
            await self._wait_gone(guard)
            group.cancel_scope.cancel()

    async def _wait_gone(self, guard: int) -> None:
        await self._listen()
        await anyio.wait_readable(guard)  # its stream was closed, so it is at most about to end
        if self._popen is not None:
            self._popen.wait()
        if self._exit is None or (self._where.group and self.members()):  # it cannot have ended the others
            directory = place.directory(self._where)
            await orphans.end(directory, place.read(directory), self._where.group)

    async def _listen(self) -> None:
        """Hear the guard out, until its end of the stream is closed: by its own end, whatever the reason."""
        assert self._control is not None  # noqa: S101 - set by _spawn()
        rest = b""
        while True:
            try:
                data = self._control.recv(CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._control)
                continue
            except ConnectionResetError:
                return
            if not data:
                return
            *messages, rest = (rest + data).split(b"\n")
            for message in messages:
                self._heard(msgspec.json.decode(message, type=_Message))

    def _heard(self, message: _Message) -> None:
        if message.spawn_error is not None:
            self._exit = Exit(0, spawn_error=message.spawn_error)
        elif message.exit is not None:
            self._exit = Exit(message.exit)
        elif message.pid is not None:
            self.identity = Identity(message.pid, message.start)
            with contextlib.suppress(OSError):  # a full disk; the mark in the environment is still there to find them
                place.record(self._where, self.identity, procfs.identity(self.guard))
            self._on_start()

    async def _pump(self, output: int) -> None:
        """Lines to the callback, until the pipe has no writer any more, or all is left to another.

        A flood must be asked: a task whose wait is over each time the loop looks at it is never cancelled.
        """
        while not self._left:
            await anyio.wait_readable(output)
            if not self._read(output):
                return

    def _read(self, output: int) -> bool:
        """One chunk; False when there is none now, or will be none any more."""
        try:
            data = os.read(output, CHUNK)
        except BlockingIOError:
            return False
        for line in self._lines.feed(data):
            self._on_line(line)
        return bool(data)

    def _drain(self, output: int) -> None:
        """What was still in the pipe: often the reason for the end."""
        while not self._left and self._read(output):  # what is left to the next life is, with one that never stops
            pass
        for line in self._lines.close():
            self._on_line(line)

    def _tell(self, what: bytes) -> None:
        self._told_to_end = self._told_to_end or bool(what)
        self._told += what
        if self._control is not None:
            with contextlib.suppress(OSError):  # the guard has ended
                self._control.send(self._told)
            self._told = b""
            self._rouse()

    def _rouse(self) -> None:
        """A guard that somebody has stopped hears nothing: let it go on."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGCONT)


def environment(launch: Launch, where: Place) -> dict[str, str]:
    """What the engine sees: little of ours, its place, and what its launch asks for."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    own = {place.MARK: str(place.directory(where)), "TMPDIR": where.tmp}
    return {"HOME": where.cwd, **kept, **own, **launch.env}
