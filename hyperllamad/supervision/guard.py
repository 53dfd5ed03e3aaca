# pathlib and json would make the guard a quarter larger and slower to start:
# ruff: noqa: PTH123, PTH208
"""The process between the daemon and one engine: it sees to it that nobody the engine started outlives the engine.

Run as `python -I -S guard.py FD GROUP PLACE PATIENCE argv...`: standard library only, nothing of ours imported, blocked
in one poll() while nothing happens.  FD is its end of a socket pair with the daemon; GROUP the control group the engine
is put into, "" where there is none.  With a PLACE the engine may outlive the daemon, whose next life connects to `door`
there within PATIENCE seconds and is the daemon from then on.  `out` there is the pipe that the engine's output goes
into; held open here, so that writing to it never fails while nobody reads.

    from the daemon    T = SIGTERM to the engine's main process; K = kill everything
                       the end of the stream = the daemon is gone: after T or without a PLACE, the same as K
    to the daemon      {"pid": N, "start": ticks}      the engine runs; `start` as in /proc/N/stat
                       {"spawn_error": errno}          it could not be started; nothing follows
                       {"exit": code}                  it ended and nobody is left; negative = killed by that signal

The guard is a child subreaper: whoever loses his parent below it becomes its own child, whatever session he moved to.
So "no child left" means that nobody is left, and only its own children are ever signalled by number: those numbers
cannot pass to a stranger, because nobody else can reap them.  In a control group the kernel ends all of them at once.

Shared memory and semaphores that have a name stay when whoever made them is killed.  Python's programs have a process
that removes them once everybody else has ended, its resource tracker: so that one is killed last, if at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as typing has it, which would have to be imported
if TYPE_CHECKING:
    import socket

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
UNHEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # for the daemon to act on; it tells us
FIXED = {signal.SIGKILL, signal.SIGSTOP}  # cannot be ignored, nor set
TRACKER = b"multiprocessing.resource_tracker"  # on its command line
TIDY = 5.0  # seconds it has, which it needs on a very busy machine only


def main(arguments: list[str]) -> int:
    control = int(arguments[0])
    group, place, patience = arguments[1], arguments[2], float(arguments[3])
    command = arguments[4:]
    os.set_inheritable(control, False)  # noqa: FBT003 - positional only
    for number in UNHEARD:
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        report(control, spawn_error=ctypes.get_errno())
        return 1
    # Should somebody have stopped us, we are to go on when the daemon dies: else we would not hear of it.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
    wakeup = wake_on_child_exit()
    try:
        door = open_door(place) if place else None
        pid = start(command, group, libc)
    except OSError as failure:
        report(control, spawn_error=failure.errno or errno.EIO)
        return 1
    daemon = Daemon(control, door, patience)
    daemon.greet(pid)
    wait_for_end(daemon, wakeup, pid)
    report(daemon.control, exit=end_everybody(pid, group, wakeup))
    return 0


def report(control: int, **message: int) -> None:
    fields = ", ".join(f'"{name}": {number}' for name, number in message.items())
    with contextlib.suppress(OSError):  # the daemon is gone; -1, or the next read says so too
        os.write(control, f"{{{fields}}}\n".encode())


def wake_on_child_exit() -> int:
    """A descriptor that becomes readable when a child has ended."""
    readable, writable = os.pipe()
    for descriptor in (readable, writable):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # a Python handler is what writes to the descriptor
    return readable


def start(command: list[str], group: str, libc: ctypes.CDLL) -> int:
    """Fork and execute `command` as the leader of a new session; raises OSError when it cannot be executed."""
    readable, writable = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            become_engine(guard, group, libc)
            os.execvp(command[0], command)  # noqa: S606 - no shell is the point
        except OSError as failure:
            os.write(writable, str(failure.errno).encode())
        finally:
            os._exit(127)
    os.close(writable)
    refusal = os.read(readable, 16)  # the end of the stream comes with a successful exec
    os.close(readable)
    if refusal:
        os.waitpid(pid, 0)
        raise OSError(int(refusal), os.strerror(int(refusal)))
    return pid


def become_engine(guard: int, group: str, libc: ctypes.CDLL) -> None:
    os.setsid()
    if group:
        write(f"{group}/cgroup.procs", b"0")  # whoever writes
    for number in signal.valid_signals() - FIXED:
        signal.signal(number, signal.SIG_DFL)  # ignored ones would stay so: ours, Python's, a background shell's
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:  # it died before the line above
        os._exit(127)


def start_time(pid: int) -> int:
    """Clock ticks after boot at which a child that is not reaped was started: field 22 of proc(5)'s stat."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


class Daemon:
    """The daemon as the guard sees it: the one that started it, its next life, or none for a while."""

    def __init__(self, control: int, door: socket.socket | None, patience: float) -> None:
        self.control = control  # -1 = it is gone
        self.door = door
        self.patience = patience  # seconds
        self.ending = False  # the engine was told to end: nobody is waited for then
        self._gone_at = 0.0

    def greet(self, pid: int) -> None:
        report(self.control, pid=pid, start=start_time(pid))

    def wait(self, wakeup: int) -> set[int]:
        """Descriptors that have something to say; empty when the patience has run out."""
        poll = select.poll()
        sources = [wakeup, self.control, *([self.door.fileno()] if self.door is not None else [])]
        for descriptor in sources:
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        left = None if self.control >= 0 else max(0.0, self._gone_at + self.patience - time.monotonic()) * 1000
        return {descriptor for descriptor, _ in poll.poll(left)}

    def heard(self, pid: int) -> bool:
        """Do as it says; False when everything is to end."""
        try:
            asked = os.read(self.control, 64)
        except ConnectionResetError:
            asked = b""
        if b"K" in asked:
            return False
        if asked:
            self.ending = True
            os.kill(pid, signal.SIGTERM)  # not yet reaped, so the number is still its own
            return True
        if self.door is None or self.ending:
            return False
        os.close(self.control)
        self.control, self._gone_at = -1, time.monotonic()
        return True

    def let_in(self, pid: int) -> None:
        """Its next life: one holds the lock of the runtime directory, so whoever was before is no more."""
        assert self.door is not None  # noqa: S101 - it is what was heard
        connection, _ = self.door.accept()
        if self.control >= 0:
            os.close(self.control)
        self.control = connection.detach()
        self.greet(pid)


def open_door(place: str) -> socket.socket:
    """Listen in a directory that only our user can enter; raises OSError."""
    import socket  # noqa: PLC0415 - half a megabyte that only those pay who may outlive the daemon

    os.open(f"{place}/out", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # held until we end
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{place}/door")
    door.listen(1)
    return door


def wait_for_end(daemon: Daemon, wakeup: int, pid: int) -> None:
    """Until the engine's main process has ended, the daemon says kill, or is gone and no other comes."""
    while not main_has_ended(pid):
        ready = daemon.wait(wakeup)
        if not ready:
            return
        if wakeup in ready:
            os.read(wakeup, 4096)
        if daemon.control in ready and not daemon.heard(pid):
            return
        if daemon.door is not None and daemon.door.fileno() in ready:
            daemon.let_in(pid)


def main_has_ended(pid: int) -> bool:
    """Reap the others; leave the main process unreaped, so that its number stays taken until everybody is gone."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if ended.si_pid == pid:
            return True
        os.waitpid(ended.si_pid, 0)
    return False


def end_everybody(pid: int, group: str, wakeup: int) -> int:
    """Kill until no child is left; the exit code of the main process."""
    codes: dict[int, int] = {}
    until = time.monotonic() + TIDY
    while (mine := children()) and (left := until - time.monotonic()) > 0:
        for child in mine:  # whose own children are ours next
            send(child, signal.SIGCONT if is_tracker(child) else signal.SIGKILL)
        if not reap(codes):
            wait_for_exit(wakeup, left)
    if mine or group:  # where somebody may be who came in from outside
        end_at_once(pid, group, codes)
    return codes.get(pid, 0)


def end_at_once(pid: int, group: str, codes: dict[int, int]) -> None:
    """Whoever is left, trackers included; for as long as it takes."""
    if group:
        with contextlib.suppress(OSError):  # the loop below ends them too, one after the other
            write(f"{group}/cgroup.kill", b"1")
    if pid not in codes:  # or its number may be a stranger's
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # most of them at once
    while True:
        for child in children():
            send(child, signal.SIGKILL)
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        codes[ended] = os.waitstatus_to_exitcode(status)


def send(child: int, number: signal.Signals) -> None:
    """One that has become another user's cannot be signalled: its control group ends it, or it is waited for."""
    with contextlib.suppress(PermissionError):
        os.kill(child, number)


def reap(codes: dict[int, int]) -> bool:
    """Note how those ended who have by now; False when nobody has."""
    before = len(codes)
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    return len(codes) > before


def wait_for_exit(wakeup: int, seconds: float) -> None:
    """Until a child has ended, since when does not matter, or the time is over."""
    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    if poll.poll(seconds * 1000):
        os.read(wakeup, 4096)


def is_tracker(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return TRACKER in file.read()
    except OSError:
        return False


def write(file: str, content: bytes) -> None:
    """One write to a file of the kernel; raises OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def children() -> list[int]:
    """Our own children, dead ones included.  A scan, because /proc/*/task/*/children is a kernel option."""
    me, found = str(os.getpid()).encode(), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = file.read().rpartition(b")")[2].split()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == me:
                found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
