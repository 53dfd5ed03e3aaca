"""why, plan load and events over the real wire, about decisions of a real fleet over real children."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperllamactl.protocol.decisions import Events, NeedRow, PlanLoad, Why
from hyperllamad.control import decisions
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.records import Inputs, Outcome, replay
from hyperllamad.supervision.supervisor import Supervisor
from tests.control.fakes import FakeCatalog
from tests.supervision import fake
from tests.supervision.conftest import runtime as runtime  # noqa: PLC0414  # a fixture
from tests.supervision.test_memory_of_fleet import MIB, WANTED, FakeMeter


class Lines:
    """A Teller that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def tell(self, line: Any) -> None:
        self.told.append(line)


@pytest.fixture
async def supervisor(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    """`a` and `b` are loaded, `c` took the room of `a`, and `big` was refused."""
    fake.install(monkeypatch)
    async with fake.supervised(runtime, meter=FakeMeter()) as running:
        for model in models(runtime)[:3]:
            lease = running.lease(model)
            await lease.granted()
            lease.release()
        yield running


def models(root: Path) -> list[Any]:
    return [fake.model(root, name, size=WANTED) for name in "abc"] + [fake.model(root, "big", size=2000 * MIB)]


def rooms(supervisor: Supervisor, root: Path) -> Any:
    return msgspec.structs.replace(ROOMS, supervisor=supervisor, catalog=FakeCatalog(*models(root)))


class Some(msgspec.Struct):
    supervisor: Any = None
    catalog: Any = None


ROOMS: Any = Some()


async def test_why_tells_what_became_of_a_model(supervisor: Supervisor, runtime: Path) -> None:
    report = decisions.why(rooms(supervisor, runtime), Why(model="a"))
    assert report.instances == []
    assert [(line.what, line.why) for line in report.decisions] == [
        ("placed", "fits into memory"),
        ("evicted", "c:latest needs its room"),
    ]
    report = decisions.why(rooms(supervisor, runtime), Why(model="c"))
    assert [row.state for row in report.instances] == ["ready"]
    assert [line.why for line in report.decisions] == ["fits into memory, once another has left"]


async def test_plan_load_says_what_would_happen_and_does_nothing(supervisor: Supervisor, runtime: Path) -> None:
    before = supervisor.rows()
    lines = Lines()
    all_rooms: Rooms = rooms(supervisor, runtime)
    plan = await decisions.plan_load(all_rooms, PlanLoad(model="a"), lines)
    assert (plan.outcome, plan.why) == ("fits", "after others have left")
    assert [(row.model, row.how, row.requests) for row in plan.leaving] == [("b:latest", "unloads", 0)]
    assert plan.need == NeedRow(weights=WANTED * 9 // 10, kv_cache=0, overhead=0), "learned"
    never = await decisions.plan_load(all_rooms, PlanLoad(model="big"), lines)
    assert (never.outcome, never.why) == ("never", "needs 2.0 GiB, memory can free 1.0 GiB")
    loaded = await decisions.plan_load(all_rooms, PlanLoad(model="b"), lines)
    assert loaded.outcome == "loaded"
    assert [row.name for row in supervisor.rows()] == [row.name for row in before]


async def test_decisions_on_the_wire_can_be_made_again(supervisor: Supervisor, runtime: Path) -> None:
    lines = Lines()
    await decisions.events(rooms(supervisor, runtime), Events(), lines)
    assert [line.what for line in lines.told] == ["placed", "placed", "placed", "evicted"]
    for line in lines.told:
        sent = msgspec.json.decode(msgspec.json.encode(line))
        inputs = msgspec.convert(sent["inputs"], Inputs)
        assert replay(inputs) == msgspec.convert(sent["outcome"], Outcome)
