"""Who holds how much memory of which device: what was measured, and what was reserved and is not taken yet.

Owns the reservations; decides nothing.  Memory of one that has ended or fell asleep is credited only when it was
measured free: a driver may need seconds for that, and a process stuck in it keeps its memory for ever.
Bytes; times are monotonic seconds, given as arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hyperllamad.core.models import HOST, Device, Key, Placement
from hyperllamad.core.question import Room

FRESH = 2.0  # seconds a measurement is good enough to place somebody by
COMES_BACK = 10.0  # seconds an ended instance's memory is expected to come back; then it is somebody else's
LAGS = 5.0  # seconds the driver may need to have the memory of one that fell asleep (seen with 62 GiB on an H100)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the devices said.  Sampled processes first, then the devices: what grows in between is counted twice."""

    began: float  # monotonic seconds
    devices: tuple[Device, ...] = ()  # () = they do not answer: what was known before holds on
    taken: Mapping[Key, Mapping[str, int]] = field(default_factory=dict)  # by instance and device: missing from `free`


@dataclass(slots=True, eq=False)
class Reservation:
    """One life's memory."""

    key: Key
    placement: Placement
    left: int | None = None  # on each device, while it sleeps; None = all of it
    ended_at: float | None = None
    slept_at: float | None = None
    taken: dict[str, int] = field(default_factory=dict)  # as last measured

    def bytes(self, device: str) -> int:
        """What it may take of the device."""
        return next((self._of(share.bytes) for share in self.placement.shares if share.device == device), 0)

    def holds(self, device: str) -> int:
        """The same, or what it has taken if that is more."""
        return max(self.bytes(device), self.taken.get(device, 0))

    def growth(self, device: str) -> int:
        """What it may still take that was free when it was measured."""
        return max(0, self.bytes(device) - self.taken.get(device, 0))

    def _of(self, reserved: int) -> int:
        return reserved if self.left is None else min(self.left, reserved)


@dataclass(frozen=True, slots=True)
class Missing:
    """Memory of a GPU that an ended instance had, and that was not free again within COMES_BACK.

    A process stuck in the driver has it, or somebody else was quick to take it: the GPU does not say which.
    """

    key: Key
    device: str
    index: int  # the driver's number of it
    bytes: int
    ended_at: float
    back_at: int  # it has come back once all that is not ours is no more than this; bytes


class Ledger:
    """Mutable; only the fleet holds one."""

    def __init__(self, *, gpu_overhead: int = 0) -> None:
        """`gpu_overhead`: bytes of every GPU that are left alone."""
        self.retune(gpu_overhead=gpu_overhead)
        self._began: float | None = None  # of the last measurement
        self._moved = False  # nobody has measured since then
        self._moved_at = 0.0  # when memory was last given up, so that what was measured before is not true any more
        self._others: dict[str, int] = {}  # bytes by device that were not ours when nobody's memory was missing
        self.devices: dict[str, Device] = {}
        self.live: list[Reservation] = []  # of instances with a child, or that will have one again unasked
        self.ended: list[Reservation] = []  # not credited yet
        self.missing: list[Missing] = []  # what nobody waits for any more

    # -- events ----------------------------------------------------------------------------------------------------

    def retune(self, *, gpu_overhead: int) -> None:
        """Another overhead from now on."""
        self._gpu_overhead = gpu_overhead

    def reserve(self, key: Key, placement: Placement) -> Reservation:
        """From now on it may take that much at any moment."""
        made = Reservation(key, placement)
        self.live.append(made)
        return made

    def end(self, reservation: Reservation, now: float) -> None:
        """Nobody of the instance is left; its memory is credited once it is measured free."""
        reservation.ended_at = self._moved_at = now
        self._moved = True
        self.live.remove(reservation)
        if not reservation.taken:  # it was never measured: it may have taken all of it
            reservation.taken = {
                share.device: reservation.bytes(share.device) for share in reservation.placement.shares
            }
        if reservation.placement.bytes:
            self.ended.append(reservation)

    def sleep(self, reservation: Reservation, left: int, now: float) -> None:
        """It has given up all but `left` of each device, until wake()."""
        reservation.left = left
        reservation.slept_at = self._moved_at = now
        self._moved = True

    def wake(self, reservation: Reservation) -> None:
        """It may take everything again."""
        reservation.left = reservation.slept_at = None

    def measure(self, measured: Measured, now: float) -> None:
        """Take over what was measured, unless something newer is known: of two at a time the first may end last."""
        if self._began is not None and measured.began < self._began:
            return
        self._began = measured.began
        self._moved = self._moved and measured.began < self._moved_at
        if measured.devices:
            self.devices = {device.id: device for device in measured.devices}
            for one in self.live:
                one.taken = dict(measured.taken.get(one.key, {}))
        self.missing = [one for one in self.missing if not self._is_back(one)]
        for one in self.ended:
            if self._heard(one) and one.ended_at is not None and now - one.ended_at > COMES_BACK:
                self.missing += self._owes(one, one.ended_at)
        self.ended = [one for one in self.ended if self._still_missing(one, now)]
        if not self.ended:
            self._others = {device.id: self._foreign(device) for device in self.devices.values()}

    def lose(self, device: str, problem: str) -> None:
        """Nothing may be placed on it any more, until a measurement shows it without a problem."""
        if known := self.devices.get(device):
            self.devices[device] = replace(known, problem=problem)

    # -- questions -------------------------------------------------------------------------------------------------

    def fresh(self, now: float) -> bool:
        """Whether somebody may be placed by what is known."""
        return self._began is not None and not self._moved and now - self._began <= FRESH

    def measured_since(self, at: float) -> bool:
        return self._began is not None and self._began >= at

    def awaits(self, devices: Collection[str], now: float) -> bool:
        """Whether memory of those devices is still to come back."""
        asleep = (one for one in self.live if one.slept_at is not None and now - one.slept_at < LAGS)
        gives = {share.device for one in asleep for share in one.placement.shares}
        return any(device in gives or any(one.holds(device) for one in self.ended) for device in devices)

    @property
    def owed(self) -> bool:
        """Whether memory of a GPU is to come back from somebody who has ended."""
        return any(device != HOST for one in self.ended for device in one.taken)

    @property
    def debtors(self) -> frozenset[Key]:
        """Instances that have ended, and whose memory has not come back."""
        return frozenset((*(one.key for one in self.ended), *(one.key for one in self.missing)))

    def free(self, device: str) -> int:
        """What somebody who starts now may take."""
        known = self.devices.get(device)
        if known is None or known.problem:
            return 0  # it was there, and well, when it was promised
        unheard = (one for one in self.ended if not self._heard(one))
        return known.free - self._overhead(device) - sum(one.growth(device) for one in (*self.live, *unheard))

    def rooms(self, *, gpu: bool) -> tuple[Room, ...]:
        """The devices as placement sees them: what others hold is taken off, what comes back is counted in."""
        return tuple(
            Room(device.id, device.index, device.total, self._capacity(device), device.problem)
            for device in self.devices.values()
            if (device.id != HOST) is gpu
        )

    def _capacity(self, device: Device) -> int:
        if device.problem:
            return 0
        ours = sum(one.taken.get(device.id, 0) for one in (*self.live, *self.ended))
        return min(device.total, device.free + ours) - self._overhead(device.id)

    def _overhead(self, device: str) -> int:
        return 0 if device == HOST else self._gpu_overhead

    def _foreign(self, device: Device) -> int:
        return device.total - device.free - sum(one.taken.get(device.id, 0) for one in self.live)

    def _heard(self, one: Reservation) -> bool:
        """Whether the last measurement knows that it has ended."""
        return self._began is not None and one.ended_at is not None and self._began >= one.ended_at

    def _still_missing(self, one: Reservation, now: float) -> bool:
        """Whether an ended one's memory has not come back yet, and still may.

        Host memory is free when the process is; a GPU's is known by what others seem to hold more than before.
        """
        if not self._heard(one):
            return True
        assert one.ended_at is not None  # noqa: S101 - _heard() says so
        return now - one.ended_at <= COMES_BACK and any(self._owes(one, one.ended_at))

    def _owes(self, one: Reservation, ended_at: float) -> Iterator[Missing]:
        for device, count in one.taken.items():
            known = self.devices.get(device)
            if count and device != HOST and known is not None:
                back_at = self._others.get(device, 0) + count // 2
                found = Missing(one.key, device, known.index, count, ended_at, back_at)
                if not self._is_back(found):
                    yield found

    def _is_back(self, one: Missing) -> bool:
        known = self.devices.get(one.device)
        return known is None or self._foreign(known) <= one.back_at
