"""Find and end what is left of an engine whose guard is gone, and at start what an earlier life of the daemon left.

Never a stranger: a process belongs to a place when it is in the place's control group, when its environment carries
the place's mark (a random name, so proof by itself), or when it is of the recorded session and its working directory
lies in the place.  Numbers are used again by the kernel; start time, boot and a pidfd held while checking guard against
that.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Collection, Iterable
from pathlib import Path

import anyio

from hyperllamad.supervision import cgroups, place, procfs
from hyperllamad.supervision.cgroups import Delegation
from hyperllamad.supervision.guard import TIDY, is_tracker
from hyperllamad.supervision.place import Leader
from hyperllamad.supervision.procfs import Identity, Process

log = logging.getLogger("hyperllamad.supervision")

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SWEEP_PATIENCE = 10.0  # seconds; what does not die of SIGKILL in that time sits in a driver
SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.5  # seconds between two looks at what was killed


def become_subreaper() -> None:
    """Adopt those whose guard died, so that they can be reaped here; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


async def sweep(runtime: Path, delegation: Delegation | None = None, *, spared: Collection[Path] = ()) -> int:
    """End what an earlier life left in `runtime` and remove its places, but for the `spared`; how many were killed."""
    killed = 0
    groups = {name: str(path) for name, path in delegation.groups()} if delegation is not None else {}
    for directory in _places(runtime, groups):
        if directory in spared:
            continue
        leader = place.read(directory)
        if leader is not None and leader.daemon.alive and leader.daemon != procfs.myself():
            continue  # another daemon's, and it is at work
        group = groups.get(directory.name, "")
        with anyio.move_on_after(SWEEP_PATIENCE) as patience:
            killed += await end(directory, leader, group)
        if patience.cancelled_caught:
            log.warning("processes of %s do not end; it is left as it is", directory)
            continue
        try:
            await anyio.to_thread.run_sync(place.remove, directory, group)
        except OSError as failure:
            log.warning("%s cannot be removed: %s", failure.filename or directory, failure.strerror)
    return killed


def _places(runtime: Path, groups: Iterable[str]) -> list[Path]:
    """Every place that has a directory or a group; systemd may have removed the directories."""
    root = place.root(runtime)
    try:
        found = set(root.iterdir())
    except FileNotFoundError:
        found = set()
    return sorted(found | {root / name for name in groups})


async def end(directory: Path, leader: Leader | None, group: str = "") -> int:
    """Kill everybody who belongs to `directory` or `group`, and wait until all are gone; how many there were.

    Python's resource trackers last: see guard.py.
    """
    session = _session(leader)
    # Once seen is enough: one that is ending has no environment any more, but may hold a GPU's memory a while longer.
    seen: set[Identity] = set()
    pause, until = SHORTEST_PAUSE, anyio.current_time() + TIDY
    while (alive := _left(directory, session, group, seen)) or not _reaped(seen, session):
        may_tidy = anyio.current_time() < until
        trackers = {pid for pid in alive if may_tidy and is_tracker(pid)}
        if group and not trackers:
            cgroups.kill(Path(group))
        for pid in alive:
            _signal(pid, signal.SIGCONT if pid in trackers else signal.SIGKILL, directory, session)
        seen |= {found for pid in alive if (found := procfs.identity(pid))}
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return len(seen)


def _left(directory: Path, session: int, group: str, seen: Collection[Identity]) -> set[int]:
    """Who is still alive."""
    found = {one.pid for one in procfs.processes() if _belongs(one, directory, session)}
    found |= {one.pid for one in seen if one.alive}
    return found | set(cgroups.members(Path(group))) if group else found


def _session(leader: Leader | None) -> int:
    """The recorded session's number; 0 when there is none, or when the number has passed to somebody else."""
    if leader is None or leader.engine is None or leader.boot != procfs.boot_id():
        return 0
    now = procfs.process(leader.engine.pid)
    return leader.engine.pid if now is None or now.identity == leader.engine else 0


def _belongs(one: Process, directory: Path, session: int) -> bool:
    if one.zombie or one.pid == os.getpid() or not procfs.is_ours(one.pid):
        return False
    if f"{place.MARK}={directory}".encode() in procfs.environment(one.pid):
        return True
    if not session or one.session != session:  # in a container, strangers can have session 0
        return False
    cwd = procfs.working_directory(one.pid)
    return cwd is not None and cwd.is_relative_to(directory)


def _signal(pid: int, number: signal.Signals, directory: Path, session: int) -> None:
    """Check again with a hold on the process, so that its number cannot pass to another in between."""
    with contextlib.suppress(ProcessLookupError):
        held = os.pidfd_open(pid)
        try:
            now = procfs.process(pid)
            if now is not None and _belongs(now, directory, session):
                signal.pidfd_send_signal(held, number)
        finally:
            os.close(held)


def _reaped(seen: Collection[Identity], session: int) -> bool:
    """Whether none of those that we adopted is left as a zombie; nobody else waits for their numbers.

    One whose main thread has ended is a zombie already, and can only be reaped once its other threads have ended, too.
    """
    me, all_of_them = os.getpid(), True
    for one in list(procfs.processes()):
        if one.parent == me and one.zombie and (one.identity in seen or (session and one.session == session)):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(one.pid, os.WNOHANG)[0] != one.pid:
                    os.kill(one.pid, signal.SIGKILL)  # the number is still its own
                    all_of_them = False
    return all_of_them
