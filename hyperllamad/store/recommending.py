"""Which models of the catalogue suit a machine: of each family the largest one that is pleasant to use.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hyperllamad.core import fitting
from hyperllamad.core.fitting import Engines, Offer
from hyperllamad.core.machine import Machine
from hyperllamad.core.names import ModelName
from hyperllamad.store.shortnames import Entry

PLEASANT = 5.0  # tokens a second: about as fast as people read


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A model of the catalogue and what there is of it, the kind to take first."""

    entry: Entry
    offers: tuple[Offer, ...]

    @property
    def fits(self) -> bool:
        return not self.offers[0].refusal

    @property
    def pleasant(self) -> bool:
        """It fits, and is not known to be slow."""
        return self.fits and (self.offers[0].single == 0.0 or self.offers[0].single >= PLEASANT)


def every(entries: Iterable[Entry], machine: Machine, engines: Engines | None = None) -> tuple[Recommendation, ...]:
    """All of them, large ones first, embedding models last."""
    found = [Recommendation(entry, fitting.offers(entry.facts, machine, engines)) for entry in entries]
    return tuple(sorted(found, key=lambda it: (it.entry.embedding, -it.entry.parameters, it.entry.name)))


def best(entries: Iterable[Entry], machine: Machine, engines: Engines | None = None) -> tuple[Recommendation, ...]:
    """One of each family."""
    found: dict[str, Recommendation] = {}
    for one in every(entries, machine, engines):
        if one.pleasant:
            found.setdefault(ModelName.parse(one.entry.name).model, one)
    return tuple(found.values())
