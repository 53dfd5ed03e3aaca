"""The supervisor with memory that is counted: who fits, who makes room, who is refused, what is told and learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hyperllamad.core.errors import NoRoomError
from hyperllamad.core.instance import State
from hyperllamad.core.ledger import Measured
from hyperllamad.core.models import HOST, Device, Key
from hyperllamad.core.question import Placed
from hyperllamad.core.records import replay
from hyperllamad.supervision.meter import Held, Meter, Reading
from tests.supervision import fake

MIB = 1 << 20
WANTED = 400 * MIB


@pytest.fixture(autouse=True)
def _fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)


class FakeMeter(Meter):
    """A machine with a gigabyte, where every instance takes what it was given, less a tenth."""

    def __init__(self, total: int = 1000 * MIB) -> None:
        self.total = total
        self.foreign = 0
        self.reads = 0

    async def read(self, lives: Mapping[Key, Held], now: float) -> Reading:
        self.reads += 1
        taken = {key: {HOST: held.placement.bytes * 9 // 10} for key, held in lives.items() if held.placement}
        free = self.total - self.foreign - sum(sizes[HOST] for sizes in taken.values())
        device = Device(HOST, -1, self.total, max(0, free), "host memory")
        return Reading(Measured(now, (device,), taken), taken)


async def test_two_fit_and_a_third_sends_the_idle_one_away(runtime: Path) -> None:
    async with fake.supervised(runtime, meter=FakeMeter()) as supervisor:
        for name in "ab":
            lease = supervisor.lease(fake.model(runtime, name, size=WANTED))
            await lease.granted()
            lease.release()
        assert [row.reserved for row in supervisor.rows()] == [WANTED, WANTED]
        await supervisor.lease(fake.model(runtime, "c", size=WANTED)).granted()
        assert {row.name: row.state for row in supervisor.rows()} == {
            "b:latest": State.READY,
            "c:latest": State.READY,
        }
        told = [(event.record.what, event.name) for event in supervisor.events.last(100)]
        assert told == [
            ("placed", "a:latest"),
            ("placed", "b:latest"),
            ("placed", "c:latest"),
            ("evicted", "a:latest"),
        ]
        assert supervisor.events.last(1)[0].why == "c:latest needs its room"
        for event in supervisor.events.last(100):
            assert event.record.inputs is not None
            assert replay(event.record.inputs) == event.record.outcome


async def test_what_never_fits_is_refused_with_numbers(runtime: Path) -> None:
    async with fake.supervised(runtime, meter=FakeMeter()) as supervisor:
        lease = supervisor.lease(fake.model(runtime, "big", size=1100 * MIB))
        with pytest.raises(NoRoomError, match=r"needs 1\.1 GiB, memory can free 1\.0 GiB"):
            await lease.granted()
        (event,) = supervisor.events.last(100)
        assert (event.record.what, event.name) == ("refused", "big:latest")


async def test_who_waits_for_what_others_hold_starts_once_they_let_go(runtime: Path) -> None:
    meter = FakeMeter()
    meter.foreign = 300 * MIB
    async with fake.supervised(runtime, meter=meter, pinned=("a",)) as supervisor:
        a = supervisor.lease(fake.model(runtime, "a", size=WANTED))
        await a.granted()
        with pytest.raises(NoRoomError, match="1 pinned"):
            await supervisor.lease(fake.model(runtime, "b", size=WANTED)).granted()
        meter.foreign = 0
        await supervisor.measure()
        await supervisor.lease(fake.model(runtime, "b", size=WANTED)).granted()


async def test_what_was_taken_is_learned_and_used_next_time(runtime: Path) -> None:
    async with fake.supervised(runtime, meter=FakeMeter()) as supervisor:
        model = fake.model(runtime, "a", size=WANTED)
        lease = supervisor.lease(model, keep_alive=0)
        await lease.granted()
        await supervisor.measure()
        lease.release()
        await fake.wait_unloaded(supervisor)
    async with fake.supervised(runtime, meter=FakeMeter()) as supervisor:
        _, answer, terms = supervisor.plan_load(model)
        assert isinstance(answer, Placed)
        assert terms.need.total == WANTED * 9 // 10
        assert 0 < terms.load_seconds < 30
        assert supervisor.rows() == (), "a plan is only a plan"


async def test_memory_is_not_measured_while_nobody_needs_to_know(runtime: Path) -> None:
    meter = FakeMeter()
    async with fake.supervised(runtime, meter=meter) as supervisor:
        assert meter.reads == 1, "at start"
        model = fake.model(runtime, "a", size=WANTED)
        await supervisor.lease(model).granted()
        await supervisor.measure()
        reads = meter.reads
        for _ in range(3):
            await supervisor.lease(replace(model, name=model.name)).granted()
        assert meter.reads == reads
