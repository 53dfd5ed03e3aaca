"""What loads really took, kept from one life of the daemon to the next: memory, and seconds.

Owns the file.  A file that cannot be read is worth nothing more than a warning: everything in it is learned again.
Which instance and which kind of device a lesson holds for is in its name; a new version of an engine is a new one.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import msgspec

from hyperllamad.core.models import Key, Placement, Terms
from hyperllamad.store import disk

log = logging.getLogger("hyperllamad.supervision")

MOST = 1000  # lessons kept, the newest


class Lesson(msgspec.Struct, frozen=True):
    """Of one instance on one kind of device.  Bytes on each of its devices, and seconds; 0 = not learned yet."""

    memory: int = 0  # without the KV cache
    degree: int = 1  # devices that the memory was spread over
    asleep: int = 0
    load_seconds: float = 0.0
    wake_seconds: float = 0.0

    def applied(self, terms: Terms) -> Terms:
        """The estimates replaced by what is known."""
        need = terms.need
        if self.memory:
            weights = min(need.weights, self.memory * self.degree)
            need = replace(need, weights=weights, overhead=self.memory - weights // self.degree)
        if self.asleep:
            need = replace(need, asleep=self.asleep)
        return replace(
            terms,
            need=need,
            load_seconds=self.load_seconds or terms.load_seconds,
            wake_seconds=self.wake_seconds or terms.wake_seconds,
        )


class Learned:
    """All lessons."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lessons = _read(path)
        self.changed = False  # since the last save

    def about(self, key: Key, kind: str) -> Lesson:
        """What is known of an instance on devices of that kind."""
        return self._lessons.get(_name(key, kind), Lesson())

    def memory(self, key: Key, kind: str, placement: Placement, sizes: dict[str, int]) -> None:
        """It is ready, and uses that much of each of its devices."""
        used = [sizes.get(share.device, 0) - share.kv_cache for share in placement.shares]
        if used and min(used) > 0:
            self._learn(key, kind, memory=max(used), degree=len(used))

    def asleep(self, key: Key, kind: str, placement: Placement, sizes: dict[str, int]) -> None:
        """It sleeps, and still uses that much."""
        self._learn(key, kind, asleep=max((sizes.get(share.device, 0) for share in placement.shares), default=0))

    def seconds(self, key: Key, kind: str, *, load: float = 0.0, wake: float = 0.0) -> None:
        """It took so long to get ready."""
        known = self.about(key, kind)
        self._learn(key, kind, load_seconds=load or known.load_seconds, wake_seconds=wake or known.wake_seconds)

    def save(self) -> None:
        """Write the file.  A full disk costs the lessons, nothing else."""
        self.changed = False
        newest = dict(list(self._lessons.copy().items())[-MOST:])  # a copy: more may be learned meanwhile
        try:
            disk.write(self._path, msgspec.json.format(msgspec.json.encode(newest)))
        except OSError as failure:
            log.warning("what loads took is not kept: %s cannot be written: %s", self._path, failure.strerror)

    def _learn(self, key: Key, kind: str, **news: float) -> None:
        name = _name(key, kind)
        self._lessons[name] = msgspec.structs.replace(self._lessons.pop(name, Lesson()), **news)
        self.changed = True


def _name(key: Key, kind: str) -> str:
    return f"{key} on {kind}"


def _read(path: Path) -> dict[str, Lesson]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Lesson])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as failure:
        log.warning("what loads took has to be learned again: %s cannot be read: %s", path, failure)
        return {}
