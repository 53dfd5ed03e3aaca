"""What loads really took, learned and kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import anyio
import pytest

from hyperllamad.core.instance import State
from hyperllamad.core.ledger import Measured
from hyperllamad.core.models import Key, Need, Placement, Share, Terms
from hyperllamad.store import disk
from hyperllamad.supervision.accounts import Accounts
from hyperllamad.supervision.learned import Learned
from hyperllamad.supervision.meter import Meter, Reading
from tests.supervision.processes import wait_for

KEY, KIND = Key("a" * 12, "f" * 12), "NVIDIA L4"
TERMS = Terms(Need(weights=1000, kv_cache=200, overhead=300))


def placement(*devices: str, kv_cache: int = 200) -> Placement:
    return Placement(tuple(Share(device, 0, 10_000, 1500, kv_cache) for device in devices))


def test_what_is_not_known_stays_as_it_was_estimated(tmp_path: Path) -> None:
    assert Learned(tmp_path / "l.json").about(KEY, KIND).applied(TERMS) == TERMS


@pytest.mark.parametrize("size", [1450, 900, 2500])
def test_the_second_load_needs_what_the_first_one_took(tmp_path: Path, size: int) -> None:
    learned = Learned(tmp_path / "l.json")
    learned.memory(KEY, KIND, placement("gpu"), {"gpu": size})
    learned.seconds(KEY, KIND, load=12.5)
    learned.seconds(KEY, KIND, wake=0.5)
    learned.asleep(KEY, KIND, placement("gpu"), {"gpu": 77})
    assert learned.changed
    learned.save()
    assert not learned.changed
    terms = Learned(tmp_path / "l.json").about(KEY, KIND).applied(TERMS)
    assert terms.need.total == size
    assert (terms.need.kv_cache, terms.need.asleep) == (200, 77)
    assert (terms.load_seconds, terms.wake_seconds) == (12.5, 0.5)


def test_it_holds_for_every_number_of_devices(tmp_path: Path) -> None:
    learned = Learned(tmp_path / "l.json")
    learned.memory(KEY, KIND, placement("0", "1", kv_cache=100), {"0": 900, "1": 950})
    need = learned.about(KEY, KIND).applied(TERMS).need
    assert need.share(2) == 950
    assert need.share(1) > 1500


def test_another_kind_of_device_or_instance_is_not_known(tmp_path: Path) -> None:
    learned = Learned(tmp_path / "l.json")
    learned.memory(KEY, KIND, placement("gpu"), {"gpu": 1450})
    assert learned.about(KEY, "another").applied(TERMS) == TERMS
    assert learned.about(Key("b" * 12, "f" * 12), KIND).applied(TERMS) == TERMS


def test_a_size_that_cannot_be_is_not_learned(tmp_path: Path) -> None:
    learned = Learned(tmp_path / "l.json")
    learned.memory(KEY, KIND, placement("gpu"), {})
    learned.memory(KEY, KIND, placement("gpu"), {"gpu": 150})
    assert learned.about(KEY, KIND).applied(TERMS) == TERMS


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"x": {"memory": "much"}}', b"\xff\xfe"])
def test_a_damaged_file_is_learned_again(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "l.json"
    path.write_bytes(content)
    learned = Learned(path)
    assert "has to be learned again" in caplog.text
    learned.seconds(KEY, KIND, load=1.0)
    learned.save()
    assert Learned(path).about(KEY, KIND).load_seconds == 1.0


def test_a_file_that_cannot_be_written_costs_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in-the-way").write_bytes(b"")
    learned = Learned(tmp_path / "in-the-way" / "l.json")
    learned.seconds(KEY, KIND, load=1.0)
    learned.save()
    assert "cannot be written" in caplog.text


def test_how_soon_an_adopted_engine_is_ready_is_not_learned(tmp_path: Path) -> None:
    learned = Learned(tmp_path / "l.json")
    learned.seconds(KEY, "", load=40.0)
    accounts = Accounts(None, learned)
    accounts.adopted(KEY)
    for at, state in ((0.0, State.STARTING), (0.1, State.READY)):
        accounts.changed(KEY, state, placement("gpu"), at)
    assert learned.about(KEY, "").load_seconds == 40.0
    for at, state in ((10.0, State.BACKOFF), (11.0, State.STARTING), (41.0, State.READY)):
        accounts.changed(KEY, state, placement("gpu"), at)
    assert learned.about(KEY, "").load_seconds == 30.0, "the next start is a load"


class Instant:
    """A meter that finds nothing, at once."""

    async def read(self, held: object, now: float) -> Reading:
        return Reading(Measured(now), {})


async def test_what_was_known_before_is_not_written_over_what_is_known_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two measurements at once both save what was learned, and the disk takes its time with the first."""
    learned, write = Learned(tmp_path / "l.json"), disk.write
    accounts = Accounts(cast("Meter", Instant()), learned)
    writes: list[bytes] = []
    go = threading.Event()

    def slow(path: Path, content: bytes) -> None:
        writes.append(content)
        if len(writes) == 1:
            assert go.wait(30)
        write(path, content)

    monkeypatch.setattr(disk, "write", slow)
    async with anyio.create_task_group() as tasks:
        learned.seconds(KEY, KIND, load=1.0)
        tasks.start_soon(accounts.read, {}, 1.0)
        await wait_for(lambda: writes)
        learned.seconds(KEY, KIND, load=2.0)
        tasks.start_soon(accounts.read, {}, 2.0)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert len(writes) == 2
    assert Learned(tmp_path / "l.json").about(KEY, KIND).load_seconds == 2.0
