"""What the supervisor knows about memory: the devices, what instances are thought to need, what they really took.

Owns the meter and what is learned; decides nothing.  Without a meter nobody counts memory, only places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import anyio.to_thread

from hyperllamad.core.instance import State
from hyperllamad.core.ledger import Measured
from hyperllamad.core.models import HOST, Device, Key, Placement, Terms
from hyperllamad.supervision.learned import Learned
from hyperllamad.supervision.meter import Held, Meter, Reading
from hyperllamad.supervision.plan import Plan

NOWHERE = Device(HOST, -1, 0, 0)


@dataclass(slots=True)
class _Account:
    """One instance, as far as there is something to learn of it."""

    state: State
    since: float  # of the state
    placement: Placement | None
    learned: bool = False  # what it takes while it sleeps


class Accounts:
    """terms() before a decision, changed() after every step, read() when the fleet needs a measurement."""

    def __init__(self, meter: Meter | None, learned: Learned) -> None:
        self._meter = meter
        self._learned = learned
        self._saving = anyio.Lock()
        self._devices: tuple[Device, ...] = ()
        self._terms: dict[Key, Terms] = {}  # worked out once: every request asks
        self._accounts: dict[Key, _Account] = {}
        self._found: set[Key] = set()  # that were loaded, or half loaded, when we came
        self.sizes: Mapping[Key, Mapping[str, int]] = {}  # by instance and device, as last measured

    @property
    def counted(self) -> bool:
        """Whether anybody measures memory."""
        return self._meter is not None

    def terms(self, plan: Plan) -> Terms:
        """What the fleet must know of an instance: the engine's estimate, or what was learned."""
        found = self._terms.get(plan.key)
        if found is None or found.pinned is not plan.pinned:
            device = self._device(gpu=plan.settings.device == "cuda")
            found = self._learned.about(plan.key, device.kind).applied(plan.terms(device))
            self._terms[plan.key] = found
        return found

    def adopted(self, key: Key) -> None:
        """It was started by an earlier life of the daemon: that it is ready soon tells nothing of a load."""
        self._found.add(key)

    def changed(self, key: Key, state: State, placement: Placement | None, now: float) -> None:
        """An instance is in another state: perhaps it took a time that is worth keeping."""
        before = self._accounts.get(key)
        if state in {State.GONE, State.FAILED}:
            self._accounts.pop(key, None)
            self._found.discard(key)
            return
        self._accounts[key] = _Account(state, now, placement)
        if state is State.READY and before is not None and placement is not None:
            took = now - before.since
            kind = self._kind(placement)
            if before.state is State.STARTING and key not in self._found:
                self._learned.seconds(key, kind, load=took)
            elif before.state is State.WAKING:
                self._learned.seconds(key, kind, wake=took)
        if state is State.READY:
            self._found.discard(key)

    @property
    def curious(self) -> bool:
        """Somebody sleeps whose memory was not measured yet."""
        asleep = (one for one in self._accounts.values() if one.state is State.ASLEEP and one.placement is not None)
        return self.counted and any(not one.learned for one in asleep)

    async def read(self, guards: Mapping[Key, int], now: float, loaded: Key | None = None) -> Measured:
        """Measure everything now, and learn of it; `loaded` has just come to where it takes all that it takes."""
        assert self._meter is not None  # noqa: S101 - nobody asks where nobody counts
        held = {
            key: Held(guard, self._accounts[key].placement if key in self._accounts else None)
            for key, guard in guards.items()
        }
        reading = await self._meter.read(held, now)
        self._devices = reading.measured.devices or self._devices
        self.sizes = reading.sizes
        self._learn(reading, now, loaded)
        async with self._saving:  # or what was known before could be written over what is known now
            if self._learned.changed:
                await anyio.to_thread.run_sync(self._learned.save)
        return reading.measured

    def _learn(self, reading: Reading, began: float, loaded: Key | None) -> None:
        for key, one in self._accounts.items():
            rested = one.state is State.ASLEEP and not one.learned and one.since <= began
            sizes = dict(reading.sizes.get(key, {}))
            one.learned = one.learned or rested
            if one.placement is None or not sizes:
                continue
            if key == loaded:
                self._learned.memory(key, self._kind(one.placement), one.placement, sizes)
            elif rested:
                self._learned.asleep(key, self._kind(one.placement), one.placement, sizes)
        self._terms.clear()

    def _kind(self, placement: Placement) -> str:
        ids = {share.device for share in placement.shares}
        return next((device.kind for device in self._devices if device.id in ids), "")

    def _device(self, *, gpu: bool) -> Device:
        """One like those it will lie on."""
        return next((device for device in self._devices if (device.id != HOST) is gpu), NOWHERE)
