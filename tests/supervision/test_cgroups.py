"""Delegation is seen by what was written and may be written; a group holds everybody, and ends everybody at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Limits
from hyperllamad.engines.base import Host, Launch, Place
from hyperllamad.supervision import cgroups, orphans, place, procfs
from hyperllamad.supervision.cgroups import Deaths, Delegation
from hyperllamad.supervision.child import Child, Exit
from tests.supervision import fake
from tests.supervision.groups import delegated
from tests.supervision.processes import alive, wait_for

FAKE = str(Path(__file__).parent.parent / "fake_engine.py")
VICES = ("--ignore-term", "--fork", "--worker")


@pytest.fixture
def delegation(runtime: Path) -> Iterator[Delegation]:
    with delegated(runtime) as found:
        yield found


# -- what was delegated ------------------------------------------------------------------------------------------------


class Tree:
    """The files of a cgroup v2 hierarchy as a process sees them, made up."""

    def __init__(self, root: Path, *, own: str = "/s.service/supervisor", mounted: str = "/") -> None:
        self.mount = root / "fs"
        self.proc = root / "proc"
        self.own = self.mount / own.removeprefix(mounted).lstrip("/")
        self.given = self.own.parent
        self.own.mkdir(parents=True)
        self.proc.mkdir()
        (self.proc / "cgroup").write_text(f"4:memory:/else\n0::{own}\n")
        other = "20 1 0:5 / /proc rw - proc proc rw\n"
        mount = f"30 1 0:26 {mounted} {self.mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        (self.proc / "mountinfo").write_text(other + mount)
        (self.own / "cgroup.kill").touch()
        for name, text in (("procs", ""), ("controllers", "cpu io memory pids"), ("subtree_control", "")):
            (self.given / f"cgroup.{name}").write_text(text)

    def look(self) -> Delegation | None:
        return cgroups.delegation(Path("/run/x"), self.proc)


def mark(path: Path, name: str = "user.delegate", value: bytes = b"1") -> None:
    os.setxattr(path, name, value)


@pytest.mark.parametrize("mounted", ["/", "/s.service"])
def test_what_systemd_marked_is_ours(tmp_path: Path, mounted: str) -> None:
    tree = Tree(tmp_path, mounted=mounted)
    mark(tree.given)
    assert tree.look() == Delegation(tree.given, frozenset({"memory", "pids", "cpu"}), "/run/x")


def test_an_owned_group_needs_no_mark_but_the_superusers_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert tree.look() is None
    os.chown(tree.given, os.getuid() or 1234, -1)
    monkeypatch.setattr(os, "geteuid", lambda: tree.given.stat().st_uid)
    assert tree.look() is not None


def test_what_may_not_be_written_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ProtectControlGroups= makes the whole tree read-only."""
    tree = Tree(tmp_path)
    mark(tree.given)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert tree.look() is None


@pytest.mark.parametrize("own", ["/", "/../elsewhere/x"])
def test_a_group_that_is_not_to_be_seen_is_not_ours(tmp_path: Path, own: str) -> None:
    tree = Tree(tmp_path)
    mark(tree.given)
    (tree.proc / "cgroup").write_text(f"0::{own}\n")
    assert tree.look() is None


def test_without_the_unified_hierarchy_or_its_kill_there_is_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    mark(tree.given)
    (tree.own / "cgroup.kill").unlink()
    assert tree.look() is None
    (tree.proc / "cgroup").write_text("4:memory:/s.service\n")
    assert tree.look() is None
    assert cgroups.delegation(Path("/run/x"), tmp_path / "nowhere") is None


def test_no_controllers_are_no_hindrance(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    mark(tree.given)
    (tree.given / "cgroup.controllers").write_text("hugetlb\n")
    found = tree.look()
    assert found is not None
    assert found.controllers == frozenset()
    assert cgroups.unenforced(Limits(memory=1, cpu_weight=5), found) == ["memory", "cpu"]
    assert cgroups.unenforced(Limits(tasks=9), None) == ["pids"]
    assert cgroups.unenforced(Limits(), None) == []


def test_limits_are_written_where_a_controller_heeds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.swap.max").touch()
    monkeypatch.setattr(os, "setxattr", lambda *_: None)
    group = Delegation(tmp_path, frozenset({"memory", "cpu"}), "/run/x").make("a", Limits(1 << 30, 64, 20))
    written = {file.name: file.read_text() for file in group.iterdir()}
    assert written == {
        "memory.oom.group": "1", "memory.max": str(1 << 30), "memory.swap.max": "0", "cpu.weight": "20"
    }  # fmt: skip
    group = Delegation(tmp_path, frozenset({"memory", "pids"}), "/run/x").make("b", Limits(tasks=64))
    assert {file.name: file.read_text() for file in group.iterdir()} == {"memory.oom.group": "1", "pids.max": "64"}


def test_a_limit_of_the_group_is_told_from_the_machines(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    assert cgroups.deaths(tmp_path) == Deaths()
    events.write_text("low 0\nhigh 0\nmax 120\noom 2\noom_kill 2\noom_group_kill 1\n")
    assert (cgroups.deaths(tmp_path).by_limit, cgroups.deaths(tmp_path).killed > 0) == (True, True)
    events.write_text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\noom_group_kill 0\n")
    assert (cgroups.deaths(tmp_path).by_limit, cgroups.deaths(tmp_path).killed > 0) == (False, True)
    events.write_text("low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\noom_group_kill 0\n")
    assert (cgroups.deaths(tmp_path).by_limit, cgroups.deaths(tmp_path).killed > 0) == (False, False)


async def test_an_engine_at_its_limit_says_so_and_is_restarted(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    model = fake.model(runtime, "m", limits=Limits(memory=3 << 29))
    with delegated(runtime) as delegation:
        monkeypatch.setattr(cgroups, "delegation", lambda _: delegation)
        async with fake.supervised(runtime) as supervisor:
            await supervisor.lease(model).granted()
            row = fake.row(supervisor, "m")
            assert row is not None
            (group,) = (path for _, path in delegation.groups())
            assert row.pid in cgroups.members(group)
            # What the kernel would do: no controller here makes it.
            monkeypatch.setattr(
                cgroups, "deaths", lambda path: Deaths(limit=1, killed=2) if path == group else Deaths()
            )
            with supervisor.watch() as changes:
                cgroups.kill(group)
                crash = await anext(change async for change in changes if change.state is State.BACKOFF)
            assert "reached its host memory limit of 1.5 GiB and was ended by the kernel" in crash.detail
            await fake.wait_change(supervisor, "m", State.READY)
        assert list(delegation.groups()) == []


async def test_a_limit_reached_while_loading_is_not_tried_again(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    monkeypatch.setattr(cgroups, "deaths", lambda _: Deaths(limit=1, killed=1))
    with delegated(runtime) as delegation:
        monkeypatch.setattr(cgroups, "delegation", lambda _: delegation)
        async with fake.supervised(runtime) as supervisor:
            with pytest.raises(LoadFailedError, match="host memory limit"):
                await supervisor.lease(fake.model(runtime, "m", "--exit", "1")).granted()
            row = fake.row(supervisor, "m")
            assert row is not None
            assert (row.state, row.restarts) == (State.FAILED, 0)


# -- real groups -------------------------------------------------------------------------------------------------------


def spawn(where: Place, lines: list[str], *vices: str) -> Child:
    argv = (sys.executable, "-I", "-S", FAKE, "--socket", where.socket, *vices)
    return Child(Launch(argv, {}, where.cwd), where, on_line=lines.append)


@pytest.mark.parametrize("how", ["kill", "crash", "guard killed", "cancelled"])
async def test_nobody_is_left_in_the_group(runtime: Path, delegation: Delegation, how: str) -> None:
    orphans.become_subreaper()
    where = place.make(runtime, runtime / "cache", Host(), delegation=delegation)
    group, lines, ended = Path(where.group), list[str](), list[Exit]()
    child = spawn(where, lines, *VICES)

    async def run() -> None:
        ended.append(await child.run())

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await wait_for(lambda: "ready" in lines)
            everybody = cgroups.members(group)
            assert child.identity is not None
            assert set(everybody) == set(procfs.descendants(child.guard, procfs.processes())) == set(child.members())
            assert child.guard not in everybody
            assert len(everybody) == 3
            match how:
                case "kill":
                    child.kill()
                case "crash":
                    os.kill(child.identity.pid, signal.SIGSEGV)
                case "guard killed":
                    os.kill(child.guard, signal.SIGKILL)
                case _:
                    tasks.cancel_scope.cancel()
    assert not any(alive(pid) for pid in everybody)
    assert cgroups.members(group) == []
    expected = {"kill": [Exit(-9)], "crash": [Exit(-11)], "guard killed": [Exit(-9, guard_lost=True)], "cancelled": []}
    assert ended == expected[how]
    place.remove(place.directory(where), where.group)
    assert not group.exists()


async def test_the_guard_kills_through_the_group(runtime: Path, delegation: Delegation) -> None:
    """Shown by one whom the guard would not find: of another parent, moved in from outside."""
    where = place.make(runtime, runtime / "cache", Host(), delegation=delegation)
    group, lines = Path(where.group), list[str]()
    child = spawn(where, lines)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.run)
            await wait_for(lambda: "ready" in lines)
            (group / "cgroup.procs").write_text(str(stranger.pid))
            child.kill()
        assert stranger.wait() == -signal.SIGKILL
    place.remove(place.directory(where), where.group)


async def test_a_group_that_cannot_be_entered_is_a_start_that_failed(runtime: Path, delegation: Delegation) -> None:
    where = place.make(runtime, runtime / "cache", Host(), delegation=delegation)
    cgroups.remove(Path(where.group))
    assert await spawn(where, []).run() == Exit(0, spawn_error=2)


async def test_the_next_life_ends_what_is_in_our_groups_and_no_others(runtime: Path, delegation: Delegation) -> None:
    """Their directories are gone (systemd removes a RuntimeDirectory=), their environment says nothing."""
    ours, theirs = (
        delegation.make("1", Limits()),
        Delegation(delegation.root, frozenset(), "/other").make("2", Limits()),
    )
    unmarked = delegation.root / "engine-3"
    unmarked.mkdir()
    processes = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(3)]
    try:
        for process, group in zip(processes, (ours, theirs, unmarked), strict=True):
            (group / "cgroup.procs").write_text(str(process.pid))
        assert await orphans.sweep(runtime, delegation) == 1
        assert [alive(process.pid) for process in processes] == [False, True, True]
        assert [group.exists() for group in (ours, theirs, unmarked)] == [False, True, True]
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_a_group_that_is_in_use_by_another_daemon_is_left(runtime: Path, delegation: Delegation) -> None:
    where = place.make(runtime, runtime / "cache", Host(), delegation=delegation)
    with subprocess.Popen(["sleep", "600"]) as other:
        found = procfs.process(other.pid)
        assert found is not None
        place._write(place.directory(where), place.Leader(procfs.boot_id(), found.identity))
        with subprocess.Popen(["sleep", "600"]) as engine:
            (Path(where.group) / "cgroup.procs").write_text(str(engine.pid))
            assert await orphans.sweep(runtime, delegation) == 0
            assert alive(engine.pid)
            engine.kill()
        other.kill()
