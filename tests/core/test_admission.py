"""Rules of the fleet about memory, by example: pinned models, lone starts, measurements when they matter."""

from __future__ import annotations

import pytest

from hyperllamad.core.actions import Do, Grant, Refuse
from hyperllamad.core.admission import Rules
from hyperllamad.core.errors import NoRoomError
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.instance import Effect, Fact, State
from hyperllamad.core.ledger import COMES_BACK, FRESH, Measured
from hyperllamad.core.models import Device, Key, Need, Terms
from tests.core.stage import A, B, C


class Machine:
    """A fleet over one GPU of 100 bytes, whose children take at once what they were given."""

    def __init__(self, **rules: int) -> None:
        self.fleet = Fleet(
            max_models=4,
            keep_alive=1e9,
            max_queue=9,
            load_timeout=900,
            stop_timeout=10,
            drain_timeout=900,
            restart_budget=2,
            rules=Rules(measured=True, **rules),  # type: ignore[arg-type]
        )
        self.now = 100.0
        self.lease = 0
        self.taken: dict[Key, int] = {}
        self.held_by_others = 0
        self.errors: list[str] = []

    def do(self, actions: list[object]) -> str:
        """What was started, told to go or sleep, granted and refused, one letter of a key each."""
        words = []
        for action in actions:
            match action:
                case Do(key, Effect.SPAWN):
                    view = self.fleet.view(key, self.now)
                    assert view is not None
                    assert view.placement is not None
                    self.taken[key] = view.placement.bytes
                    words.append(f"spawn {key.digest[0]}")
                case Do(key, effect) if effect is not Effect.CUT:
                    words.append(f"{effect.name.lower()} {key.digest[0]}")
                case Grant(_, key):
                    words.append(f"grant {key.digest[0]}")
                case Refuse(_, error):
                    assert isinstance(error, NoRoomError)
                    self.errors.append(error.message)
                    words.append("refuse")
        return ", ".join(words)

    def measure(self) -> str:
        free = 100 - self.held_by_others - sum(self.taken.values())
        taken = {key: {"gpu": count} for key, count in self.taken.items()}
        return self.do(self.fleet.measure(Measured(self.now, (Device("gpu", 0, 100, free),), taken), self.now))

    def want(self, key: Key, size: int, **terms: object) -> str:
        self.lease += 1
        need = Need(size, exclusive_start=bool(terms.pop("alone", False)), asleep=2)
        known = Terms(need, gpu=True, **terms)  # type: ignore[arg-type]
        told = self.do(self.fleet.want(self.lease, key, self.now, keep_alive=None, terms=known))
        return ", ".join(filter(None, (told, self.measure() if self.fleet.needs_measure else "")))

    def load(self, key: Key, size: int, **terms: object) -> None:
        assert self.want(key, size, **terms) == f"spawn {key.digest[0]}"
        assert self.report(key, Fact.READY) == f"grant {key.digest[0]}"
        self.do(self.fleet.release(self.lease, self.now))
        self.now += 1

    def report(self, key: Key, fact: Fact) -> str:
        if fact is Fact.EXITED:
            del self.taken[key]
        return self.do(self.fleet.report(key, fact, self.now))

    def state(self, key: Key) -> State | None:
        return next((view.state for view in self.fleet.views(self.now) if view.key == key), None)


def test_a_pinned_model_is_never_sent_away() -> None:
    machine = Machine()
    machine.load(A, 60, pinned=True)
    machine.load(B, 30)
    assert machine.want(C, 35) == "term b"
    assert machine.state(A) is State.READY
    assert machine.report(B, Fact.EXITED) == ""
    assert machine.measure() == "spawn c"
    assert machine.want(B, 50) == "refuse"
    assert machine.errors == ["the model needs 0 MiB, GPU 0 can free 0 MiB (1 pinned)"]


def test_who_sizes_itself_by_what_is_free_starts_alone() -> None:
    machine = Machine()
    assert machine.want(A, 30, alone=True) == "spawn a"
    assert machine.want(B, 30) == ""
    assert machine.report(A, Fact.READY) == "grant a, spawn b"
    assert machine.want(C, 30) == "spawn c", "those who are told their size start beside each other"


def test_a_measurement_that_ends_late_says_nothing_more() -> None:
    """Two may be under way at once, and the one that began first end last."""
    machine = Machine()
    machine.load(A, 30)
    late = Measured(machine.now, (Device("gpu", 0, 100, 70),), {A: {"gpu": 30}})
    machine.now += FRESH / 4
    machine.held_by_others = 60
    machine.measure()
    machine.fleet.measure(late, machine.now)
    assert machine.want(B, 60) == "refuse"
    assert machine.errors == ["the model needs 0 MiB, GPU 0 can free 0 MiB"]


def test_nobody_is_placed_by_an_old_measurement() -> None:
    machine = Machine()
    machine.load(A, 30)
    machine.now += FRESH + 1
    machine.held_by_others = 60
    machine.lease += 1
    terms = Terms(Need(50), gpu=True)
    assert machine.fleet.want(machine.lease, B, machine.now, keep_alive=None, terms=terms) == []
    assert machine.fleet.needs_measure
    assert machine.measure() == "refuse"


def test_nobody_is_refused_by_a_measurement_that_is_older_than_his_request() -> None:
    machine = Machine()
    machine.held_by_others = 60
    machine.load(A, 30)
    machine.held_by_others = 0
    assert machine.want(B, 50) == "spawn b", "it is fresh enough to be placed by, but not to be refused by"


def test_memory_is_credited_when_it_is_measured_free() -> None:
    machine = Machine()
    machine.load(A, 60)
    assert machine.want(B, 60) == "term a"
    assert machine.report(A, Fact.EXITED) == ""
    machine.held_by_others = 60  # the driver has not noticed yet
    assert machine.measure() == ""
    machine.now += 1
    machine.held_by_others = 0
    assert machine.measure() == "spawn b"


def test_memory_that_never_comes_back_is_somebody_elses() -> None:
    machine = Machine()
    machine.load(A, 60)
    machine.want(B, 60)
    machine.report(A, Fact.EXITED)
    machine.held_by_others = 60  # a process that is stuck in the driver
    assert machine.measure() == ""
    machine.now += COMES_BACK + 1
    assert machine.measure() == "refuse"


@pytest.mark.parametrize(("memory", "told"), [(60, "sleep a"), (59, "term a")])
def test_eviction_prefers_sleep_while_host_memory_lasts(memory: int, told: str) -> None:
    machine = Machine(sleep_memory=memory)
    machine.load(A, 60, sleep_levels=(1,))
    assert machine.want(B, 60) == told


def full_of_sleep() -> Machine:
    """The budget is enough for one: A sleeps, B is ready, and C is waited for."""
    machine = Machine(sleep_memory=60)
    machine.load(A, 60, sleep_levels=(1,))
    assert machine.want(B, 60, sleep_levels=(1,)) == "sleep a"
    machine.taken[A] = 2
    machine.report(A, Fact.SLEPT)
    assert machine.measure() == "spawn b"
    assert machine.report(B, Fact.READY) == "grant b"
    machine.do(machine.fleet.release(machine.lease, machine.now))
    machine.now += 1
    return machine


def test_with_a_full_budget_who_slept_longest_is_stopped_and_the_other_sleeps_once_it_is_gone() -> None:
    machine = full_of_sleep()
    assert machine.want(C, 60) == "term a"
    assert machine.state(B) is State.READY, "it serves until there is memory for it to sleep in"
    assert machine.report(A, Fact.EXITED) == ""
    assert machine.measure() == "sleep b"
    machine.taken[B] = 2
    machine.report(B, Fact.SLEPT)
    assert machine.measure() == "spawn c"


def test_a_sleeper_that_does_not_end_in_time_is_not_waited_for() -> None:
    machine = full_of_sleep()
    assert machine.want(C, 60) == "term a"
    machine.now += 10.0
    told = machine.do(machine.fleet.tick(machine.now))
    assert told == "kill a"
    assert machine.measure() == "term b", "stopped after all"


def test_who_is_put_to_sleep_with_a_full_budget_leaves() -> None:
    machine = full_of_sleep()
    assert machine.do(machine.fleet.put_to_sleep(B, 1, "the machine goes to sleep", machine.now)) == "term b"
    assert machine.state(A) is State.ASLEEP


def test_whoever_is_asked_for_goes_on_sleeping() -> None:
    machine = full_of_sleep()
    assert machine.want(A, 60, sleep_levels=(1,)) == "term b"
    machine.report(B, Fact.EXITED)
    assert machine.measure() == "wake a"


def test_whoever_is_waited_for_is_not_stopped_for_his_host_memory_by_an_older_request_either() -> None:
    machine = full_of_sleep()
    machine.now += FRESH + 1
    for key, terms in ((C, Terms(Need(60), gpu=True)), (A, Terms(Need(60, asleep=2), gpu=True, sleep_levels=(1,)))):
        machine.lease += 1
        assert machine.fleet.want(machine.lease, key, machine.now, keep_alive=None, terms=terms) == []
    assert machine.measure() == "term b"
    assert machine.state(A) is State.ASLEEP


def test_a_smaller_budget_stops_who_slept_longest() -> None:
    machine = full_of_sleep()
    told = machine.do(
        machine.fleet.retune(
            machine.now,
            max_models=4,
            keep_alive=1e9,
            max_queue=9,
            load_timeout=900,
            stop_timeout=10,
            drain_timeout=900,
            restart_budget=2,
            rules=Rules(measured=True, sleep_memory=59),
        )
    )
    assert told == "term a"
    assert machine.state(B) is State.READY


def test_what_is_left_alone_of_a_gpu_is_not_given() -> None:
    machine = Machine(gpu_overhead=30)
    assert machine.want(A, 71) == "refuse"
    assert machine.want(B, 70) == "spawn b"


def test_memory_that_does_not_come_back_is_named_until_it_does() -> None:
    machine = Machine()
    ledger = machine.fleet._admission.ledger
    machine.load(A, 60)
    machine.want(B, 60)
    machine.report(A, Fact.EXITED)
    assert ledger.owed
    machine.held_by_others = 60
    machine.measure()
    assert ledger.missing == [], "it may still come back"
    machine.now += COMES_BACK + 1
    machine.measure()
    (missing,) = ledger.missing
    assert (missing.key, missing.device, missing.bytes) == (A, "gpu", 60)
    assert not ledger.owed, "nobody waits for it any more"
    machine.now += 100
    machine.held_by_others = 45  # some of it has
    machine.measure()
    assert ledger.missing == [missing]
    machine.held_by_others = 0
    machine.measure()
    assert ledger.missing == []


def test_memory_that_comes_back_is_never_named() -> None:
    machine = Machine()
    ledger = machine.fleet._admission.ledger
    machine.held_by_others = 20
    machine.load(A, 60)
    machine.want(B, 60)
    machine.report(A, Fact.EXITED)
    machine.now += COMES_BACK + 1  # nobody has looked in all that time
    machine.measure()
    assert (ledger.missing, ledger.ended) == ([], [])
