"""How long the fleet waits for what, and what it tells a request that has waited too long.

Owns every duration of the core; must not know the time, nor what is done when it is up.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperllamad.core import durations
from hyperllamad.core.errors import LoadTimeoutError
from hyperllamad.core.instance import Instance, State

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # back-off after a crash: doubles from the first to the longest
SPREAD = 0.25  # of the pause, at most, is added: engines that one cause has ended shall not all start at once
FAILURE_HELD = 5.0  # how long a failure answers for new requests too, before one of them starts it again
CRASHES_FORGOTTEN = 600.0  # of being READY
SWAP_TIMEOUT = 60.0  # to fall asleep or to wake: the first sleep pins host memory, which takes ten seconds
TENURE = 10.0  # at least, that an instance serves requests older than a newcomer's before it must leave
SHORTEST = 0.1  # a deadline of zero would be due the moment it is made, again and again

_STILL_STARTING = (
    "its engine is still starting",
    "raise `fleet.load_timeout` if it only needs longer; `hyperllamactl logs` shows how far it came",
)
_NO_ROOM = (
    "other models have not made room for it",
    "raise `fleet.max_loaded_models`, or try again when they are idle; `hyperllamactl ps` shows them",
)
_NOT_ENDED = (
    "its earlier engine has not ended yet",
    "`hyperllamactl ps` shows it; a process stuck in a driver can outlive SIGKILL",
)
_CRASHING = (
    "its engine keeps crashing",
    "`hyperllamactl logs` shows what it wrote last",
)
_REASONS: dict[State | None, tuple[str, str]] = {
    State.STARTING: _STILL_STARTING,
    State.WAKING: _STILL_STARTING,
    State.BACKOFF: _CRASHING,
    State.DRAINING: _NOT_ENDED,
    State.STOPPING: _NOT_ENDED,
}


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, math.inf = for ever; `restart_budget` is how many crashes are followed by a restart."""

    load_timeout: float
    stop_timeout: float
    drain_timeout: float
    restart_budget: int

    def deadline(self, instance: Instance, now: float) -> float | None:
        """When the state the instance has just entered is LATE; None = it may last."""
        match instance.state:
            case State.STARTING:
                allowed = self.load_timeout
            case State.DRAINING | State.SETTLING:
                allowed = self.drain_timeout
            case State.SLEEPING | State.WAKING:
                allowed = SWAP_TIMEOUT
            case State.STOPPING:
                allowed = self.stop_timeout
            case State.BACKOFF:
                allowed = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(instance.crashes - 1, 10))
                allowed *= 1.0 + SPREAD * (now * 997.0 % 1.0)  # the clock's last digits are dice enough
            case _:
                return None
        return now + max(SHORTEST, allowed)

    def request_deadline(self, now: float) -> float:
        """Until when a request made now may wait.

        Not the load's own deadline: a child stuck in a driver can outlive SIGKILL, and no request may wait for that.
        """
        return now + max(SHORTEST, self.load_timeout)

    def too_late(self, instance: Instance | None) -> LoadTimeoutError:
        """What a request is told whose time is up while its model is served by `instance`, if by any."""
        state = None if instance is None else instance.state
        if instance is not None and instance.fate is State.FAILED:
            state = State.STARTING  # it is being killed because it was too slow
        why, hint = _REASONS.get(state, _NO_ROOM)
        return LoadTimeoutError(f"the model was not ready within {durations.show(self.load_timeout)}: {why}", hint=hint)
