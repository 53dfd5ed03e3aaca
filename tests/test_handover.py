"""A restart is told from a stop by asking systemd, and whatever it does not say is a stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperllamad import handover

SYSTEM = "4:memory:/x\n0::/system.slice/hyperllamad.service/supervisor\n"
USER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/hyperllamad.service\n"
Systemctl = Callable[..., Path]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    """A systemctl that prints `jobs` or `mode` and writes down how it was called; the proc directory to be read."""

    def make(jobs: str = "", *, mode: str = "process", code: int = 0, cgroup: str = SYSTEM) -> Path:
        program = tmp_path / "bin" / "systemctl"
        program.parent.mkdir()
        told = f"open({str(tmp_path / 'asked')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
        says = f"print({jobs!r} if 'list-jobs' in sys.argv else {mode!r})"
        program.write_text(f"#!{sys.executable}\nimport sys\n{told}\n{says}\nsys.exit({code})\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        (tmp_path / "cgroup").write_text(cgroup)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        (SYSTEM, ("hyperllamad.service",)),
        (USER, ("--user", "hyperllamad.service")),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ()),
        ("0::/\n", ()),
        ("4:memory:/system.slice/x.service\n", ()),
    ],
)
def test_the_unit_we_are_in(cgroup: str, expected: tuple[str, ...]) -> None:
    assert handover.unit(cgroup) == expected


@pytest.mark.parametrize(
    ("jobs", "restarts"),
    [
        ("2715 hyperllamad.service restart running", True),
        ("2715 hyperllamad.service try-restart running", True),
        ("2715 hyperllamad.service stop running", False),
        ("", False),
        ("No jobs running.", False),
        ("nonsense", False),
    ],
)
async def test_the_job_tells(systemctl: Systemctl, jobs: str, restarts: bool) -> None:
    proc = systemctl(jobs)
    assert await handover.is_restart(proc) is restarts
    assert (proc / "asked").read_text().startswith("list-jobs --no-legend --plain hyperllamad.service\n")


async def test_a_restart_that_kills_the_engines_anyway_is_a_stop_for_them(systemctl: Systemctl) -> None:
    """They are ended in order then, instead of being killed by systemd."""
    assert not await handover.is_restart(systemctl("1 hyperllamad.service restart running", mode="mixed"))


async def test_a_users_own_manager_is_asked_for_his_services(systemctl: Systemctl) -> None:
    proc = systemctl("1 hyperllamad.service restart running", cgroup=USER)
    assert await handover.is_restart(proc)
    assert (proc / "asked").read_text().startswith("--user list-jobs")


async def test_without_an_answer_it_is_a_stop(systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch) -> None:
    proc = systemctl("1 hyperllamad.service restart running", code=1)
    assert not await handover.is_restart(proc)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not await handover.is_restart(proc)
    (proc / "cgroup").write_text("0::/\n")
    assert not await handover.is_restart(proc)


@pytest.mark.parametrize(
    ("mode", "warned"), [("mixed", True), ("control-group", True), ("process", False), ("", False)]
)
async def test_a_unit_that_would_kill_the_engines_is_told_of(
    systemctl: Systemctl, caplog: pytest.LogCaptureFixture, mode: str, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, "hyperllamad"):
        await handover.warn_of_kills(systemctl(mode=mode))
    assert ("KillMode=process" in caplog.text) is warned
