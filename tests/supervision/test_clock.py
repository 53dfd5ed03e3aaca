"""The wall clock may jump: nothing is decided by it, and what people see follows it."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from hyperllamad.core.instance import State
from tests.supervision import fake
from tests.supervision.processes import wait_for

DAY = 86_400.0


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY])
async def test_a_jump_loads_and_unloads_nothing(runtime: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    fake.install(monkeypatch)
    real = time.time
    async with fake.supervised(runtime, keep_alive="1h", load_timeout="10s") as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--slow", "0.2"))
        await wait_for(lambda: (row := fake.row(supervisor, "m")) is not None and row.pid)
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        await lease.granted()
        lease.release()
        before = fake.row(supervisor, "m")
        assert before is not None
        assert before.until is not None
        assert before.until - time.time() == pytest.approx(3600, abs=5), "shown by the clock as it is now"
        monkeypatch.setattr(time, "time", real)
        for _ in range(3):
            await supervisor.pulse()
        after = fake.row(supervisor, "m")
        assert after is not None
        assert (after.pid, after.state, after.restarts) == (before.pid, State.READY, 0)
        assert after.until is not None
        assert after.until - real() == pytest.approx(3600, abs=5)


async def test_a_keep_alive_runs_out_in_spite_of_a_clock_that_went_back(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.install(monkeypatch)
    real = time.time
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0.2)
        await lease.granted()
        lease.release()
        monkeypatch.setattr(time, "time", lambda: real() - DAY)
        with anyio.fail_after(10):
            await fake.wait_unloaded(supervisor)
