"""Rules of the fleet for what befalls the machine: a GPU that is lost, and a pause while the machine sleeps."""

from __future__ import annotations

from dataclasses import replace

from hyperllamad.core.admission import Rules
from hyperllamad.core.instance import Fact
from hyperllamad.core.ledger import Measured
from hyperllamad.core.models import Device, Key, Need, Terms
from tests.core.stage import A, B, C, Stage

GIB = 1 << 30
ONE, TWO = Device("one", 0, 10 * GIB, 10 * GIB), Device("two", 1, 10 * GIB, 10 * GIB)
TERMS = Terms(need=Need(6 * GIB), gpu=True, sleep_levels=(1,))


class Gpus(Stage):
    """Two GPUs of 10 GiB, for models of 6."""

    def __init__(self) -> None:
        super().__init__(max_models=4, rules=Rules(measured=True, sleep_memory=100 * GIB))
        self.devices = [ONE, TWO]
        self.measure()

    def measure(self) -> list[str]:
        """Everybody takes what it may."""
        taken: dict[Key, dict[str, int]] = {}
        free = {device.id: device.free for device in self.devices}
        for view in self.fleet.views(self.now):
            if view.placement is not None and view.state in {"starting", "ready"}:
                for share in view.placement.shares:
                    taken[view.key] = {share.device: share.bytes}
                    free[share.device] -= share.bytes
        devices = tuple(replace(device, free=free[device.id]) for device in self.devices)
        return self._read(self.fleet.measure(Measured(self.now, devices, taken), self.now))

    def load_on_gpu(self, lease: int, key: Key) -> list[str]:
        out = self._read(self.fleet.want(lease, key, self.now, keep_alive=None, terms=TERMS))
        return out + self.measure()

    def where(self, key: Key) -> str:
        placement = self.view(key).placement
        assert placement is not None
        return placement.shares[0].device


def test_who_lies_on_a_lost_gpu_leaves_at_once_and_is_wanted_elsewhere() -> None:
    stage = Gpus()
    stage.load_on_gpu(1, A)
    stage.report(A, Fact.READY)
    lost = stage.where(A)
    assert stage.lose(lost, "it has fallen off the bus") == ["a stopping", "cut a", "term a"]
    stage.devices = [replace(device, problem="lost" if device.id == lost else "") for device in stage.devices]
    assert stage.report(A, Fact.EXITED) == ["a gone"]
    stage.load_on_gpu(2, A)
    assert stage.where(A) != lost
    assert stage.state(A) == "starting"
    told = [record.why for record in stage.fleet.records() if record.what == "unloaded"]
    assert told == ["it has fallen off the bus"]


def test_who_was_promised_a_place_there_gets_another_before_anything_is_measured() -> None:
    stage = Gpus()
    stage.load_on_gpu(1, A)
    first = stage.where(A)
    assert stage.state(A) == "starting"
    stage.load_on_gpu(2, B)
    assert stage.where(B) != first
    stage.lose(stage.where(B), "lost")
    stage.report(B, Fact.EXITED)
    assert stage.state(B) in {"gone", "waiting"}, "nothing is placed by what is not true any more"


def test_where_no_other_gpu_is_the_reason_is_told() -> None:
    stage = Gpus()
    stage.devices = [ONE]
    stage.measure()
    stage.lose("one", "Xid 48: a memory error")
    stage.devices = [replace(ONE, problem="Xid 48: a memory error")]
    stage.later(1)
    assert stage.load_on_gpu(1, A) == ["1 refused: no_room"]
    assert "GPU 0 cannot be used (Xid 48: a memory error)" in stage.errors[1].message
    stage.devices = [ONE]
    stage.later(3)
    assert stage.load_on_gpu(2, A) == ["a waiting", "a starting", "spawn a"]


def test_who_sleeps_or_loads_on_it_goes_too() -> None:
    stage = Gpus()
    stage.load_on_gpu(1, A)
    stage.report(A, Fact.READY)
    stage.release(1)
    stage.put_to_sleep(A)
    stage.report(A, Fact.SLEPT)
    stage.measure()
    assert stage.lose(stage.where(A), "lost") == ["a stopping", "term a"]


def test_in_a_pause_nobody_is_granted_placed_or_woken_and_afterwards_all_are() -> None:
    stage = Stage()
    stage.load(A)
    assert stage.pause() == []
    assert stage.want(1, A) == stage.want(2, B) == []
    assert stage.later(20) == [], "and the clock does not go mad over it"
    assert stage.resume() == ["1 gets a", "b waiting", "b starting", "spawn b"]


def test_what_is_under_way_goes_on_in_a_pause() -> None:
    stage = Stage()
    stage.want(1, A)
    stage.pause()
    assert stage.report(A, Fact.READY) == ["a ready"]
    assert stage.resume() == ["1 gets a"]
    stage.pause()
    assert stage.release(1) == []
    assert stage.later(301) == ["a stopping", "cut a", "term a"], "whose time is over goes"


def test_requests_that_wait_too_long_are_told_so_in_a_pause_too() -> None:
    stage = Stage()
    stage.pause()
    stage.want(1, A)
    assert stage.later(1000) == ["1 refused: load_timeout"]


def test_one_is_put_to_sleep_after_its_requests_and_stays_asleep_in_the_pause() -> None:
    stage = Stage()
    stage.load(A)
    stage.want(1, A)
    stage.pause()
    assert stage.put_to_sleep(A) == ["a settling"]
    assert stage.want(2, A) == []
    assert stage.release(1) == ["a sleeping", "sleep a"]
    assert stage.report(A, Fact.SLEPT) == ["a asleep"]
    assert stage.later(10) == []
    assert stage.resume() == ["a waking", "wake a"]
    assert stage.report(A, Fact.READY) == ["a ready", "2 gets a"]


def test_only_who_is_ready_can_be_put_to_sleep() -> None:
    stage = Stage()
    stage.want(1, A)
    assert stage.put_to_sleep(A) == stage.put_to_sleep(C) == []
