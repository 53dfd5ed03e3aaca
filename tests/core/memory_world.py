"""A world in which memory is counted: GPUs, foreign use, children that sleep, take what they may or more, and give it
back late; clients that take turns.

It knows the truth about every byte, and checks after every event what the fleet can be held to by what it was told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

from hyperllamad.core.actions import Action, Do, Grant, View
from hyperllamad.core.admission import Rules
from hyperllamad.core.errors import HyperLlamaError, NoRoomError
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.instance import HAS_CHILD, Effect, Fact, State
from hyperllamad.core.ledger import Measured
from hyperllamad.core.models import Device, Key, Terms
from hyperllamad.core.question import Question, Soon
from hyperllamad.core.queue import SEEN_FOR, intake, part
from hyperllamad.core.records import Record, replay
from tests.core.script import Ask, Foreign
from tests.core.stage import A, B, C, D
from tests.core.world import Child, World

PAUSE = 0.2  # seconds between measurements
WEIGHTS = {"z": 3.0}  # of clients; 1 = of all others
TEXTS = {str(key): key for key in (A, B, C, D)}


@dataclass
class Memory:
    """Of one child, on each of its devices."""

    reserved: dict[str, int]
    taken: dict[str, int] = field(default_factory=dict)
    asleep: bool = False


@dataclass
class MemoryWorld(World):
    memory: dict[Key, Memory] = field(default_factory=dict)  # of children
    ghosts: list[tuple[Key, dict[str, int]]] = field(default_factory=list)  # memory of the dead that is not back yet
    hosted: dict[Key, int] = field(default_factory=dict)  # host memory that weights of children took, until their end
    foreign: int = 0
    clients: dict[int, str] = field(default_factory=dict)  # lease -> who
    taken_in: dict[int, float] = field(default_factory=dict)  # lease -> how long after its grant
    coming: set[int] = field(default_factory=set)  # granted, and not yet taken in by their engine
    levels: dict[Key, int] = field(default_factory=dict)  # at which each was last told to sleep
    left: dict[Key, State] = field(default_factory=dict)  # the state before the one it is in
    measuring: bool = False
    disturbed: bool = False  # memory was taken that nobody was promised, since the last measurement

    def __post_init__(self) -> None:
        super().__post_init__()
        for foreign in self.script.foreign:
            self.at(self.now + foreign.at, partial(self.take_foreign, foreign))

    def make_fleet(self, **more: object) -> Fleet:
        s = self.script
        return super().make_fleet(rules=Rules(measured=True, spread=s.spread, sleep_memory=s.sleep_memory))

    def terms(self, key: Key) -> Terms:
        return self.script.terms[(A, B, C, D).index(key)]

    @property
    def sizes(self) -> dict[str, int]:
        return {f"gpu{n}": size for n, size in enumerate(self.script.devices)}

    # -- clients ---------------------------------------------------------------------------------------------------

    def want(self, lease: int, ask: Ask) -> list[Action]:
        self.clients[lease], self.taken_in[lease] = ask.client, ask.taken_in
        terms = self.terms(ask.key)
        weight = WEIGHTS.get(ask.client, 1.0)
        return self.fleet.want(
            lease, ask.key, self.now, keep_alive=ask.keep_alive, client=ask.client, weight=weight, terms=terms
        )

    def granted(self, lease: int, key: Key) -> None:
        super().granted(lease, key)
        if self.terms(key).tells_begin:
            self.coming.add(lease)
            self.at(self.now + self.taken_in[lease], lambda: self.begun(lease))

    def begun(self, lease: int) -> None:
        """Where nothing comes of it, the fleet has not looked at the time: nothing else is due, or it is not judged."""
        self.coming.discard(lease)
        actions = self.fleet.begun(lease, self.now)
        self.seen["grants after another was taken in"] += any(isinstance(action, Grant) for action in actions)
        deadline = self.fleet.next_deadline()
        if actions or deadline is None or deadline > self.now:
            self.do("begun", actions)

    def held_up(self, client: str, key: Key) -> bool:
        """The client may have no more for the sake of others who are present: of what is on its way, or of slots."""
        seen = self.fleet._service.queue._lines[key].seen
        others = {who for who, at in seen.items() if who != client and at + SEEN_FOR > self.now}
        mine = [n for n, used in self.open.items() if used == key and self.clients[n] == client]
        parallel = self.terms(key).parallel
        if parallel < 2:
            return False
        modest = others - {self.clients[n] for n, (wanted, _) in self.pending.items() if wanted == key}
        beside_one = self.terms(key).slows and bool(modest) and len(mine) >= part(parallel)
        self.seen["slots kept for one who asks for little"] += beside_one
        return beside_one or (bool(others) and len(self.coming.intersection(mine)) >= intake(parallel))

    def check_turn(self, lease: int, key: Key) -> None:
        """The slot went to a client who has no more running, for his weight, than any other who could have had it."""
        assert not self.held_up(self.clients[lease], key), "more of one client's requests are on their way than may be"
        mine, parallel = self.clients[lease], self.terms(key).parallel
        running = Counter(self.clients[n] for n, used in self.open.items() if used == key)
        assert not parallel or running.total() < parallel, "more run at once than it can answer"

        def share(client: str) -> float:
            return running[client] / WEIGHTS.get(client, 1.0)

        for n, (other, _) in self.pending.items():
            if other == key and self.held_up(self.clients[n], key):
                continue
            if other == key and self.clients[n] != mine:
                self.seen["turns between clients"] += 1
                assert share(mine) <= share(self.clients[n]), "one client got more than another who waits"
            elif other == key:
                assert n > lease, "somebody older of the same client waits for it too"

    def is_full(self, key: Key) -> bool:
        parallel = self.terms(key).parallel
        running = Counter(self.clients[n] for n, used in self.open.items() if used == key)
        waiting = {self.clients[n] for n, (wanted, _) in self.pending.items() if wanted == key}
        last = {client for client in waiting if parallel > 1 and running[client] >= parallel - 1}
        held_up = {client for client in waiting if self.held_up(client, key)}
        full = bool(parallel) and running.total() >= parallel
        self.seen["slots kept for others"] += not full and waiting == last
        self.seen["requests kept until others are taken in"] += not full and bool(held_up - last)
        return full or waiting == last | held_up

    def refused(self, lease: int, error: HyperLlamaError) -> None:
        if not isinstance(error, NoRoomError):
            super().refused(lease, error)
            return
        key, _ = self.pending.pop(lease)
        self.seen["NoRoomError"] += 1
        assert "needs" in error.message
        assert self.never_fits(key) or self.disturbed or self.foreign or self.ghosts, "refused what would fit"

    def never_fits(self, key: Key) -> bool:
        """Beside what is pinned, of which somebody may have just got his promise."""
        need = self.terms(key).need
        slots = [slot for slot in self.fleet._slots.values() if slot.terms.pinned and slot.key != key]
        held: Counter[str] = Counter()
        for slot in slots:
            for share in slot.placement.shares if slot.placement is not None else ():
                taken = self.memory[slot.key].taken.get(share.device, 0) if slot.key in self.memory else 0
                held[share.device] += max(share.bytes, taken)
        left = sorted((size - held[d] for d, size in self.sizes.items()), reverse=True)
        least = replace(need, kv_cache=need.kv_cache if need.kv_least is None else need.kv_least)
        return not any(n <= len(left) and left[n - 1] >= least.share(n) for n in need.gpus)

    # -- children --------------------------------------------------------------------------------------------------

    def spawn(self, key: Key) -> None:
        view = self.fleet.view(key, self.now)
        assert view is not None
        placement = view.placement
        assert placement is not None
        assert placement.shares, "started without a reservation"
        if self.left[key] is State.BACKOFF:
            self.seen["restarts, which nothing holds up"] += 1
        else:
            self.check_room(key, {share.device: share.bytes for share in placement.shares})
        self.memory[key] = Memory({share.device: share.bytes for share in placement.shares})
        starting = [k for k, state in self.states.items() if state in {State.STARTING, State.WAKING} and k != key]
        for other in starting:
            beside = not self.memory[other].reserved.keys().isdisjoint(self.memory[key].reserved)
            alone = self.terms(key).need.exclusive_start or self.terms(other).need.exclusive_start
            restarts = State.BACKOFF in {self.left[key], self.left[other]}
            assert not (beside and alone) or restarts, "two size themselves from the same memory"
        super().spawn(key)

    def signal(self, key: Key, effect: Effect) -> None:
        child = self.children[key]
        if effect is Effect.SLEEP:
            assert child.ready and not child.told, "told to sleep while it arrives or goes"
            child.ready = False
            self.seen["sleeps"] += 1
            if self.levels[key] == 1:
                self.hosted[key] = self.terms(key).need.weights
                assert sum(self.hosted.values()) <= self.script.sleep_memory, "host memory is promised twice"
            self.at(self.now + child.birth.sleeps, lambda: self.slept(key, child))
        elif effect is Effect.WAKE:
            memory = self.memory[key]
            assert memory.asleep
            self.check_room(key, memory.reserved)
            memory.asleep = False
            fact = Fact.READY if child.birth.keeps_well else Fact.SICK
            self.at(self.now + child.birth.wakes, lambda: self.awake(key, child, fact))
        elif effect is Effect.TERM and self.memory[key].asleep:
            self.end_soon(key, child)
        else:
            super().signal(key, effect)

    def end_soon(self, key: Key, child: Child) -> None:
        """TERM to one that sleeps: it has arrived once, and may be sent away."""
        self.seen["evictions of those asleep"] += self.event not in {"unload", "cut", "close", "tick"}
        child.told = True
        self.at(self.now + child.birth.obeys, lambda: self.tell(key, child, Fact.EXITED))

    def slept(self, key: Key, child: Child) -> None:
        if self.children.get(key) is child and not child.told:
            memory = self.memory[key]
            memory.asleep = True
            if child.birth.lags:
                self.at(self.now + child.birth.lags, lambda: self.shrink(key, memory))
            else:
                self.shrink(key, memory)
            self.tell_state(key, child, Fact.SLEPT)

    def shrink(self, key: Key, memory: Memory) -> None:
        if memory.asleep:
            memory.taken = {device: min(count, self.terms(key).need.asleep) for device, count in memory.taken.items()}

    def awake(self, key: Key, child: Child, fact: Fact) -> None:
        if self.children.get(key) is child and not child.told:
            if fact is Fact.READY:
                child.ready = True
                self.grow(key, child)
                self.seen["wakes"] += 1
            else:
                self.seen["bad wakes"] += 1
            self.tell_state(key, child, fact)

    def tell_state(self, key: Key, child: Child, fact: Fact) -> None:
        if fact is Fact.SICK:
            self.tell(key, child, fact)
        else:
            self.do(fact.name, self.fleet.report(key, fact, self.now))

    def tell(self, key: Key, child: Child, fact: Fact) -> None:
        if self.children.get(key) is not child:
            return
        if fact is Fact.READY:
            if child.ready or self.memory[key].asleep or self.states[key] is not State.STARTING:
                return
            self.grow(key, child)
        if fact in {Fact.EXITED, Fact.BROKEN}:
            memory = self.memory.pop(key)
            self.hosted.pop(key, None)
            ghost = (key, memory.taken)
            self.ghosts.append(ghost)
            self.at(self.now + child.birth.frees, lambda: self.ghosts.remove(ghost))
            self.seen["memory that comes back late"] += child.birth.frees > 0 and any(memory.taken.values())
        super().tell(key, child, fact)

    def grow(self, key: Key, child: Child) -> None:
        memory = self.memory[key]
        for device, reserved in memory.reserved.items():
            wanted = int(reserved * child.birth.takes)
            memory.taken[device] = max(0, min(wanted, memory.taken.get(device, 0) + self.free(device)))
        if child.birth.takes > 1:
            self.disturbed = True
            self.seen["liars"] += 1

    def changed(self, key: Key, state: State) -> None:
        self.left[key] = self.states.get(key, State.GONE)
        super().changed(key, state)

    # -- memory ----------------------------------------------------------------------------------------------------

    def free(self, device: str) -> int:
        """The truth."""
        used = sum(memory.taken.get(device, 0) for memory in self.memory.values())
        used += sum(ghost.get(device, 0) for _, ghost in self.ghosts)
        return max(0, self.sizes[device] - self.foreign - used)

    def take_foreign(self, foreign: Foreign) -> None:
        free = min(self.free(device) for device in self.sizes) + self.foreign
        self.disturbed = self.disturbed or foreign.bytes > self.foreign
        self.foreign = min(foreign.bytes, free)
        self.seen["foreign use"] += 1

    def check_room(self, key: Key, wanted: dict[str, int]) -> None:
        """Nobody is started or woken into memory that others hold or may still take."""
        if self.disturbed:
            self.seen["starts in the dark"] += 1
            return
        for device, count in wanted.items():
            promised = self.foreign + sum(ghost.get(device, 0) for _, ghost in self.ghosts)
            for other, memory in self.memory.items():
                if other != key:
                    bound = self.terms(other).need.asleep if memory.asleep else memory.reserved.get(device, 0)
                    bound = min(bound, memory.reserved.get(device, 0))
                    promised += max(memory.taken.get(device, 0), bound)
            assert promised + count <= self.sizes[device], f"{device} is promised twice"
        self.seen["starts into measured room"] += 1

    def do(self, event: str, actions: list[Action]) -> None:
        self.levels |= {action.key: action.level for action in actions if isinstance(action, Do) and action.level}
        super().do(event, actions)
        self.check_ledger()
        for record in self.fleet.records():
            self.check_record(record)
        if self.fleet.needs_measure and not self.measuring:
            self.measuring = True
            self.at(self.now + max(self.script.meter, PAUSE), self.measure)

    def measure(self) -> None:
        self.measuring = False
        began = self.now
        taken = {key: dict(memory.taken) for key, memory in self.memory.items()}
        devices = tuple(
            Device(device, n, size, self.free(device), "L4") for n, (device, size) in enumerate(self.sizes.items())
        )
        self.disturbed = False
        self.seen["measurements"] += 1
        self.do("measure", self.fleet.measure(Measured(began, devices, taken), self.now))

    # -- promises --------------------------------------------------------------------------------------------------

    def check_record(self, record: Record) -> None:
        self.seen[f"recorded: {record.what}"] += 1
        if record.what in {"evicted", "slept"} and isinstance(record.inputs, Question):
            itself = record.inputs.newcomer == record.key  # it cannot wake where it lies
            assert itself or not self.terms(TEXTS[record.key]).pinned, "a pinned one was sent away"
        if record.what == "evicted" and isinstance(record.outcome, Soon):
            self.seen["sleepers stopped for others"] += 1
            assert self.oldest(TEXTS[record.key]) is None, "somebody waits for the sleeper that was stopped"
        elif isinstance(record.outcome, Soon) and not record.outcome.stops:
            self.seen["host memory that was waited for"] += 1
        if record.inputs is not None:
            self.seen["decisions made again"] += 1
            assert replay(record.inputs) == record.outcome, record

    def check_ledger(self) -> None:
        ledger = self.fleet._admission.ledger
        slots = [slot for slot in self.fleet._slots.values() if slot.reservation is not None]
        assert [one.key for one in ledger.live] == [
            slot.reservation.key for slot in sorted(slots, key=lambda s: ledger.live.index(s.reservation))
        ]  # type: ignore[arg-type, union-attr]
        assert len(ledger.live) == len(slots), "the ledger is not the sum of its reservations"
        for slot in self.fleet._slots.values():
            holds = slot.state in HAS_CHILD or slot.state is State.BACKOFF
            assert holds == (slot.reservation is not None), f"{slot.state} with the wrong reservation"
        asleep = [slot for slot in self.fleet._slots.values() if slot.state is State.ASLEEP and slot.level == 1]
        hosted = sum(slot.terms.need.weights for slot in asleep)
        assert hosted <= self.script.sleep_memory, "more weights asleep than there is host memory for"

    def check_evictions(self, actions: list[Action]) -> None:
        """The order of steps tells nothing here; the records do, see do()."""

    def loaded(self) -> int:
        return sum(not memory.asleep for memory in self.memory.values())

    def check_places(self) -> None:
        ended_asleep = {key for key, memory in self.memory.items() if memory.asleep}  # ends without having a place
        taken = sum(slot.takes_place and slot.key not in ended_asleep for slot in self.fleet._slots.values())
        assert taken <= self.script.max_models

    @staticmethod
    def rests(view: View) -> bool:
        return view.state in {State.READY, State.ASLEEP} and not view.leases and not view.waiting
