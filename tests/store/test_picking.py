"""The kind that is pulled when a name leaves it open, on machines that are described here."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec
import pytest

from hyperllamad.core.machine import Capability, Gpu, Gpus, Machine
from hyperllamad.store import staging
from hyperllamad.store.fetch_wire import ORIGIN, Origin
from hyperllamad.store.picking import Picker
from hyperllamad.store.shortnames import Entry

GIB = 1 << 30
ENTRY = Entry(
    name="m:8b",
    checked=date(2026, 11, 25),
    source="here",
    weights={"bf16": "org/m", "fp8": "org/m-fp8", "awq": "org/m-awq"},
    gguf="org/m-gguf",
    parameters=8_000_000_000,
)
SMALL = Machine(memory=16 * GIB, available=16 * GIB, cores=4)
ADA = Gpu(0, "GPU-0", "NVIDIA L4", Capability(8, 9), 24 * GIB, 23 * GIB, GIB)
WITH_GPU = Machine(Gpus((ADA,)), memory=64 * GIB, available=64 * GIB, cores=16)
EVERY_ENGINE = frozenset({("llama_cpp", "cpu"), ("vllm", "cpu"), ("vllm", "cuda")})


def picker(machine: Machine, engines: frozenset[tuple[str, str]] = EVERY_ENGINE) -> Picker:
    async def look() -> Machine:
        return machine

    return Picker(look, lambda: engines)


async def test_without_a_gpu(tmp_path: Path) -> None:
    pick = await picker(SMALL).pick(ENTRY, tmp_path / "m@8b")
    assert pick.kinds[0] == "gguf"
    assert pick.note.startswith("choosing m:8b-gguf (org/m-gguf): llama.cpp reads GGUF on the processor")
    assert "others: m:8b-" in pick.note
    assert pick.caution == ""


async def test_with_a_gpu(tmp_path: Path) -> None:
    pick = await picker(WITH_GPU).pick(ENTRY, tmp_path / "m@8b")
    assert pick.kinds[0] == "fp8"
    assert "choosing m:8b-fp8 (org/m-fp8): compute capability 8.9 computes in fp8" in pick.note


async def test_a_gpu_without_its_engine(tmp_path: Path) -> None:
    pick = await picker(WITH_GPU, frozenset({("llama_cpp", "cpu")})).pick(ENTRY, tmp_path / "m@8b")
    assert pick.kinds[0] == "gguf"
    assert "not fp8, vLLM for GPUs is not installed" in pick.note


async def test_what_does_not_fit_anywhere(tmp_path: Path) -> None:
    tiny = Machine(memory=2 * GIB, available=2 * GIB)
    pick = await picker(tiny).pick(ENTRY, tmp_path / "m@8b")
    assert pick.kinds[0] == "gguf"  # it takes least
    assert "m:8b will not run here as things are: m:8b-gguf: it needs about" in pick.caution


@pytest.mark.parametrize("partial", [False, True])
async def test_what_is_here_stays_what_it_is(tmp_path: Path, *, partial: bool) -> None:
    target = tmp_path / "m@8b"
    directory = staging.partial(target) if partial else target
    directory.mkdir(parents=True)
    (directory / ORIGIN).write_bytes(msgspec.json.encode(Origin(repository="org/m-awq")))
    pick = await picker(WITH_GPU).pick(ENTRY, target)
    assert (pick.kinds, pick.note) == (("awq",), "")
    (directory / ORIGIN).write_bytes(msgspec.json.encode(Origin(repository="somebody/else")))
    assert (await picker(WITH_GPU).pick(ENTRY, target)).kinds[0] == "fp8"
    (directory / ORIGIN).write_bytes(b"rubbish")
    assert (await picker(WITH_GPU).pick(ENTRY, target)).kinds[0] == "fp8"


async def test_repositories_that_hold_both() -> None:
    assert (await picker(SMALL).formats())[0] == "gguf"
    assert (await picker(WITH_GPU).formats())[0] == "bf16"
    assert (await picker(WITH_GPU, frozenset({("llama_cpp", "cpu")})).formats())[0] == "gguf"
    assert (await Picker().formats())[0] == "gguf"


async def test_nothing_to_choose(tmp_path: Path) -> None:
    only = msgspec.structs.replace(ENTRY, weights={})
    assert (await picker(SMALL).pick(only, tmp_path / "m")).note == ""
