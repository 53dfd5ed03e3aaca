"""Which kind of a model is pulled when its name leaves that open: what core/fitting.py says of this machine, now.

A model that is here, or half here, stays the kind it is: more free memory than yesterday is no reason to fetch anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hyperllamad.core import fitting
from hyperllamad.core.fitting import CPU, GGUF, GPU, LLAMA_CPP, PUBLISHED, VLLM, Engines, Offer
from hyperllamad.core.machine import Machine
from hyperllamad.store import staging
from hyperllamad.store.fetch_wire import ORIGIN, Origin
from hyperllamad.store.shortnames import Entry

Look = Callable[[], Awaitable[Machine]]
Installed = Callable[[], Engines]


@dataclass(frozen=True, slots=True)
class Pick:
    """The kinds to take, best first, and what to tell people about it: "" when there was nothing to choose."""

    kinds: Sequence[str]
    note: str = ""
    caution: str = ""  # it will not run here as things are


async def unknown_machine() -> Machine:
    """A Look that sees nothing: no GPU, and memory that nobody measured."""
    return Machine()


def llama_cpp_only() -> Engines:
    """An Installed for callers that have no engines: what every machine can run."""
    return frozenset({(LLAMA_CPP, CPU)})


class Picker:
    """Looks at the machine each time it is asked."""

    def __init__(self, machine: Look = unknown_machine, engines: Installed = llama_cpp_only) -> None:
        self._machine, self._engines = machine, engines

    async def pick(self, entry: Entry, target: Path) -> Pick:
        """For a name of the catalogue that is to be pulled into `target`."""
        if kind := _here(entry, target):
            return Pick((kind,))
        found = fitting.offers(entry.facts, await self._machine(), self._engines())
        kinds = tuple(offer.kind for offer in found)
        if found[0].refusal:
            told = "; ".join(f"{_name(entry, offer)}: {offer.refusal}" for offer in found)
            return Pick(kinds, _sentence(entry, found), f"{entry.name} will not run here as things are: {told}")
        return Pick(kinds, _sentence(entry, found) if len(found) > 1 else "")

    async def formats(self) -> Sequence[str]:
        """For a repository of the hub that may hold both: GGUF files, or directories where a GPU can run them."""
        machine = await self._machine()
        on_gpu = bool(machine.gpus.devices) and (VLLM, GPU) in self._engines()
        return (PUBLISHED, GGUF) if on_gpu else (GGUF, PUBLISHED)


def _here(entry: Entry, target: Path) -> str:
    """The kind that lies at `target` or has begun to; "" when there is nothing of the entry's."""
    for directory in (target, staging.partial(target)):
        try:
            origin = msgspec.json.decode((directory / ORIGIN).read_bytes(), type=Origin)
        except (OSError, msgspec.DecodeError):
            continue
        kind = next((kind for kind in entry.kinds if entry.repository(kind) == origin.repository), "")
        if kind:
            return kind
    return ""


def _sentence(entry: Entry, found: Sequence[Offer]) -> str:
    """ "choosing qwen3:8b-fp8 (Qwen/Qwen3-8B-FP8): compute capability 8.9 computes in fp8; ..." """
    best = found[0]
    why = [best.reason]
    why += [f"not {offer.kind}, {offer.refusal}" for offer in found[1:] if offer.refusal and offer.device == GPU]
    others = ", ".join(_name(entry, offer) for offer in found[1:])
    tail = f"; others: {others}" if others else ""
    return f"choosing {_name(entry, best)} ({entry.repository(best.kind)}): {'; '.join(why)}{tail}"


def _name(entry: Entry, offer: Offer) -> str:
    return f"{entry.name}-{offer.kind}"
