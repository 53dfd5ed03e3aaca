"""What is seen of instances over real children: rows, changes, logs."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from hyperllamad.core.instance import State
from hyperllamad.core.names import ModelName
from hyperllamad.telemetry import LineFormatter
from tests.supervision import fake
from tests.supervision.processes import alive


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


async def test_rows_say_what_ps_needs(runtime: Path) -> None:
    async with fake.supervised(runtime, keep_alive="90s") as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m", "--worker", context=2048))
        (row,) = supervisor.rows()
        assert (row.state, row.phase, row.waiting, row.pid) == (State.STARTING, "starting", 1, 0)
        await lease.granted()
        (row,) = supervisor.rows()
        assert (row.name, row.digest, row.engine) == ("m:latest", lease.model.digest, "llama_cpp")
        assert (row.state, row.phase, row.elapsed, row.cause) == (State.READY, "", 0.0, "")
        assert (row.context, row.parallel, row.processor) == (2048, 4, "100% CPU")
        assert (row.running, row.waiting, row.restarts) == (1, 0, 0)
        assert alive(row.pid)
        assert 5 << 20 < row.size < 200 << 20
        assert abs(row.since - time.time()) < 5
        assert row.until is not None
        assert abs(row.until - time.time() - 90) < 5
        lease.release()
        (idle,), (again,) = supervisor.rows(), supervisor.rows()
        assert idle.until == again.until, "clients hold two answers side by side"


async def test_watchers_see_every_step_and_phase(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        with supervisor.watch() as changes, supervisor.watch():  # the second one never reads
            lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
            await lease.granted()
            lease.release()
            seen: list[tuple[str, str]] = []
            async for change in changes:
                seen.append((change.state, change.phase))
                if change.state is State.GONE:
                    break
    steps = list(dict.fromkeys(seen))
    assert steps == [
        ("waiting", ""),
        ("starting", ""),
        ("starting", "starting"),
        ("starting", "weights"),
        ("starting", "compiling"),
        ("starting", "warming"),
        ("ready", ""),
        ("stopping", ""),
        ("gone", ""),
    ]


async def test_watchers_end_at_shutdown(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        changes = supervisor.watch()
    with changes:
        assert [change async for change in changes] == []


async def test_logs_outlive_their_engine(runtime: Path) -> None:
    async with fake.supervised(runtime) as supervisor:
        name = ModelName.parse("m")
        assert supervisor.logs(name) is None
        lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
        upstream = await lease.granted()
        ring = supervisor.logs(name)
        assert ring is not None
        with ring.follow() as lines:
            lease.release()
            await upstream.died.wait()
            assert [line.text async for line in lines] == []  # ends with its engine
        assert supervisor.logs(name) is ring
        assert ring.last(2) == ["phase warming", "ready"]


async def test_each_load_and_end_is_logged_once(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hyperllamad.supervision")
    async with fake.supervised(runtime) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "m"), keep_alive=0)
        upstream = await lease.granted()
        lease.release()
        await upstream.died.wait()
        await fake.wait_unloaded(supervisor)
    messages = [record for record in caplog.records if record.name == "hyperllamad.supervision"]
    assert [record.getMessage().split(" ")[:3] for record in messages] == [
        ["Fake", "starts", "as"],
        ["Fake", "is", "ready"],
        ["Fake", "has", "ended"],
    ]
    line = LineFormatter(journal=False).format(messages[0])
    assert f"model=m:latest engine=llama_cpp instance={lease.key}" in line
