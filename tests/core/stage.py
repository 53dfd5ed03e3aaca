"""A fleet with a clock, whose actions read as a script: what every example of the fleet's rules is played on."""

from __future__ import annotations

import math
from typing import Any

from hyperllamad.core.actions import Action, Changed, Do, Grant, Refuse, View
from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.fleet import Fleet
from hyperllamad.core.instance import Fact
from hyperllamad.core.models import Key

A, B, C, D = (Key(letter * 12, "fff000") for letter in "abcd")


def read(action: Action) -> str:
    """`1 gets a`, `1 refused: busy`, `spawn a`, `a starting`."""
    match action:
        case Grant(lease, key):
            return f"{lease} gets {key.digest[0]}"
        case Refuse(lease, error):
            return f"{lease} refused: {error.code}"
        case Do(key, effect):
            return f"{effect.name.lower()} {key.digest[0]}"
        case Changed(key, state):
            return f"{key.digest[0]} {state}"


class Stage:
    """The fleet's events without the time; each answers with what was ordered, in words."""

    def __init__(self, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "max_models": 2,
            "keep_alive": 300.0,
            "max_queue": 8,
            "load_timeout": 100.0,
            "stop_timeout": 10.0,
            "drain_timeout": 60.0,
            "restart_budget": 2,
        }
        self._settings = settings | changes
        self.fleet = Fleet(**self._settings)
        self.now = 1000.0
        self.errors: dict[int, HyperLlamaError] = {}  # what each refused request was told

    def _read(self, actions: list[Action]) -> list[str]:
        self.errors |= {action.lease: action.error for action in actions if isinstance(action, Refuse)}
        return [read(action) for action in actions]

    def want(self, lease: int, key: Key, keep_alive: float | None = None) -> list[str]:
        return self._read(self.fleet.want(lease, key, self.now, keep_alive=keep_alive))

    def release(self, lease: int) -> list[str]:
        return self._read(self.fleet.release(lease, self.now))

    def report(self, key: Key, fact: Fact, error: HyperLlamaError | None = None) -> list[str]:
        return self._read(self.fleet.report(key, fact, self.now, error=error))

    def keep(self, key: Key, keep_alive: float) -> list[str]:
        return self._read(self.fleet.keep(key, keep_alive, self.now))

    def unload(self, key: Key, *, cut: bool = False) -> list[str]:
        return self._read(self.fleet.unload(key, self.now, cut=cut))

    def retry(self, key: Key) -> list[str]:
        return self._read(self.fleet.retry(key, self.now))

    def close(self, *, drain: bool = True) -> list[str]:
        return self._read(self.fleet.close(self.now, drain=drain))

    def adopt(self, key: Key, keep_alive: float = 300.0) -> list[str]:
        return self._read(self.fleet.adopt(key, self.now, keep_alive=keep_alive))

    def leave(self, key: Key) -> list[str]:
        return self._read(self.fleet.leave(key, self.now))

    def retune(self, **changes: Any) -> list[str]:
        self._settings |= changes
        return self._read(self.fleet.retune(self.now, **self._settings))

    def lose(self, device: str, why: str) -> list[str]:
        return self._read(self.fleet.lose(device, why, self.now))

    def pause(self) -> list[str]:
        return self._read(self.fleet.pause(self.now))

    def resume(self) -> list[str]:
        return self._read(self.fleet.resume(self.now))

    def put_to_sleep(self, key: Key, why: str = "night") -> list[str]:
        return self._read(self.fleet.put_to_sleep(key, 1, why, self.now))

    def later(self, seconds: float) -> list[str]:
        """Let time pass, with a tick at every deadline on the way, as the supervisor's clock does."""
        end, out = self.now + seconds, list[str]()
        while (at := self.fleet.next_deadline()) is not None and at <= end:
            assert at > self.now, "the timer does not move on"
            self.now = at
            out += self._read(self.fleet.tick(at))
        self.now = end
        return out

    def load(self, *keys: Key) -> None:
        """Bring models up and leave them idle, the first one used longest ago."""
        for n, key in enumerate(keys):
            lease = -1 - n
            self.want(lease, key)
            self.report(key, Fact.READY)
            self.release(lease)
            assert self.state(key) == "ready"
            self.later(1)

    def view(self, key: Key) -> View:
        (view,) = (view for view in self.fleet.views(self.now) if view.key == key)
        return view

    def state(self, key: Key) -> str:
        """`gone` when there is no instance."""
        return next((str(view.state) for view in self.fleet.views(self.now) if view.key == key), "gone")

    def expires_in(self, key: Key) -> float | None:
        """Seconds until `ps` says it goes; negative when it is going."""
        at = self.view(key).expires_at
        return at if at is None or at == math.inf else at - self.now
