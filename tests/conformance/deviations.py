"""The list of deliberate deviations, and what a run of the recorded cases is held to: that list and nothing else."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tests.conformance.facts import Difference

ENGINES = ("llama_cpp", "vllm", "max", "scripted")


class Deviation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of deviations.toml, which says what the keys mean."""

    case: str
    at: tuple[str, ...]
    reason: str
    on: tuple[str, ...] = ENGINES
    varies: bool = False

    def covers(self, found: Difference) -> bool:
        return any(found.at == path or found.at.startswith(f"{path}.") for path in self.at)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    deviation: tuple[Deviation, ...]


def listed() -> tuple[Deviation, ...]:
    text = Path(__file__).with_name("deviations.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File).deviation


def unexpected(
    engine: str, found: Mapping[str, Sequence[Difference]], allowed: Iterable[Deviation] | None = None
) -> list[str]:
    """A line for every difference that is not listed, and for every listed one that was not found.

    `found`: case id -> its differences, for every case that was run.
    """
    here = [item for item in (listed() if allowed is None else allowed) if engine in item.on and item.case in found]
    return [*_not_listed(found, here), *_not_found(found, here)]


def _not_listed(found: Mapping[str, Sequence[Difference]], here: Sequence[Deviation]) -> Iterator[str]:
    for case, differences in found.items():
        for one in differences:
            if not any(item.case == case and item.covers(one) for item in here):
                yield f"{case}: {one.at}: {one.how}"


def _not_found(found: Mapping[str, Sequence[Difference]], here: Sequence[Deviation]) -> Iterator[str]:
    for item in here:
        if not item.varies and not any(item.covers(one) for one in found[item.case]):
            yield f"{item.case}: equal to the recording at {', '.join(item.at)}: take it off the list"
