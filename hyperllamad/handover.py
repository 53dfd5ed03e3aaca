"""Is our end a restart?  Then engines may go on for the next life of the daemon; a stop ends them.

systemd sends the same signal in both cases, but it knows the job that it does (systemctl(1), list-jobs).  When it
cannot be asked, or is not there, the end is a stop: whoever restarts us otherwise says so with SIGUSR1.
"""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import anyio

from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad")

PATIENCE = 3.0  # seconds for systemd's answer
SPARES = "process"  # the KillMode= that kills nobody but us
RESTARTS = frozenset({"restart", "try-restart", "reload-or-start"})  # types of a job after which the unit runs again


def unit(cgroup: str) -> tuple[str, ...]:
    """Arguments of systemctl that name the service we run in, by the text of /proc/self/cgroup; () when in none.

    `/user.slice/.../user@1000.service/app.slice/x.service` is one of a user's own manager.
    """
    path = next((line.removeprefix("0::") for line in cgroup.splitlines() if line.startswith("0::")), "")
    services = [part for part in path.split("/") if part.endswith(".service")]
    if not services:
        return ()
    by_user = len(services) > 1 and services[-2].startswith("user@")
    return ("--user", services[-1]) if by_user else (services[-1],)


async def is_restart(proc: Path = Path("/proc/self")) -> bool:
    """Whether systemd is restarting us, and spares our engines; asked while it does."""
    jobs = await _ask("list-jobs", "--no-legend", "--plain", proc=proc)
    # JOB UNIT TYPE STATE
    restarts = any(not RESTARTS.isdisjoint(line.split()[2:3]) for line in jobs.splitlines())
    return restarts and await _kill_mode(proc) == SPARES


async def warn_of_kills(proc: Path = Path("/proc/self")) -> None:
    """Say so when systemd would kill, with us, the engines that are to outlive us."""
    mode = await _kill_mode(proc)
    if mode not in {"", SPARES}:
        log.warning(
            "engines will not outlive a restart, though `fleet.adopt_within` says so: the unit needs KillMode=process",
            extra=fields(kill_mode=mode),
        )


async def _kill_mode(proc: Path) -> str:
    return (await _ask("show", "--property=KillMode", "--value", proc=proc)).strip()


async def _ask(command: str, *options: str, proc: Path) -> str:
    """What systemctl prints about our unit; "" when it cannot say."""
    try:
        where = unit((proc / "cgroup").read_text(encoding="utf-8", errors="replace"))
        if not where:
            return ""
        with anyio.fail_after(PATIENCE):
            done = await anyio.run_process(["systemctl", *where[:-1], command, *options, where[-1]])
    except (OSError, TimeoutError, subprocess.CalledProcessError) as failure:
        log.warning("systemd does not say what it does with us: %s", failure)
        return ""
    return done.stdout.decode(errors="replace")
