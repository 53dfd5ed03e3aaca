"""Which kind suits which machine, and what is said about it."""

from __future__ import annotations

from itertools import product

import pytest

from hyperllamad.core import fitting
from hyperllamad.core.fitting import GPU, Offer, Weights
from hyperllamad.core.machine import Capability, Gpu, Gpus, Machine

GB = 1_000_000_000
GIB = 1 << 30
ALL = ("bf16", "fp8", "awq", "gptq", "mxfp4", "gguf")


def gpu(capability: tuple[int, int], gib: int, *, free: int | None = None, bandwidth: int = 0, ours: int = 0) -> Gpu:
    total = gib * GIB
    free = total if free is None else free * GIB
    return Gpu(0, "GPU-0", "a GPU", Capability(*capability), total, free, total - free, bandwidth=bandwidth, ours=ours)


def machine(*gpus: Gpu, memory: int = 16, cores: int = 8) -> Machine:
    return Machine(Gpus(gpus), cores=cores, memory=memory * GIB, available=memory * GIB)


def kinds(weights: Weights, on: Machine, **engines: object) -> list[str]:
    return [offer.kind for offer in fitting.offers(weights, on, **engines) if not offer.refusal]  # type: ignore[arg-type]


EIGHT = Weights(8 * GB, kinds=ALL)


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (machine(), ["gguf"]),  # bf16 would take 33 GB
        (machine(memory=64), ["gguf", "bf16"]),
        (machine(gpu((8, 9), 24)), ["fp8", "mxfp4", "bf16", "awq", "gptq", "gguf"]),
        (machine(gpu((9, 0), 80)), ["fp8", "mxfp4", "bf16", "awq", "gptq", "gguf"]),
        (machine(gpu((8, 0), 24)), ["awq", "gptq", "mxfp4", "fp8", "bf16", "gguf"]),
        (machine(gpu((7, 5), 24)), ["awq", "gptq", "gguf"]),
        (machine(gpu((7, 0), 24)), ["gptq", "gguf"]),
        (machine(gpu((8, 9), 11)), ["mxfp4", "awq", "gptq", "gguf"]),  # fp8 does not fit, bf16 even less
        (machine(gpu((8, 9), 24, free=10)), ["awq", "gptq", "mxfp4", "gguf"]),
        (machine(gpu((8, 9), 4)), ["gguf"]),
        (machine(gpu((8, 9), 24, free=4), gpu((8, 9), 24)), ["fp8", "mxfp4", "bf16", "awq", "gptq", "gguf"]),
        (machine(gpu((8, 9), 24, free=4, ours=20 * GIB)), ["fp8", "mxfp4", "bf16", "awq", "gptq", "gguf"]),
    ],
)
def test_the_order(on: Machine, expected: list[str]) -> None:
    found = kinds(EIGHT, on)
    assert sorted(found) == sorted(expected)
    assert found[0] == expected[0] or (found[0], expected[0]) == ("mxfp4", "awq")  # of equal merit below


def test_every_order_is_sound() -> None:
    """Whatever the machine: first what can run, on the GPU before the processor, and refusals have a reason."""
    reached = 0
    for capability, gib, memory, size in product(
        [None, (7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (12, 0)], (4, 16, 24, 80), (4, 16, 512), (1, 8, 70, 405)
    ):
        on = machine(*([gpu(capability, gib)] if capability else []), memory=memory)
        found = fitting.offers(Weights(size * GB, kinds=ALL), on)
        assert {offer.kind for offer in found} == set(ALL)
        assert [bool(offer.refusal) for offer in found] == sorted(bool(offer.refusal) for offer in found)
        able = [offer for offer in found if not offer.refusal]
        assert [offer.device == "cpu" for offer in able] == sorted(offer.device == "cpu" for offer in able)
        assert all(offer.need <= offer.room for offer in able)
        assert all(offer.reason for offer in found)
        if capability and capability >= (8, 9) and any(offer.kind == "fp8" for offer in able):
            assert able[0].kind == "fp8"
            reached += 1
        if capability and capability < (8, 9) and any(offer.kind == "awq" for offer in able):
            assert able[0].kind == "awq"
            reached += 1
        if capability is None and able:
            assert able[0].kind == "gguf"
            reached += 1
    assert reached > 80


def test_engines_that_are_not_installed() -> None:
    on = machine(gpu((9, 0), 80), memory=64)
    assert kinds(EIGHT, on, engines=frozenset({("llama_cpp", "cpu")})) == ["gguf"]
    assert kinds(EIGHT, on, engines=frozenset({("vllm", "cuda")}))[-1] == "gptq"
    assert kinds(EIGHT, on, engines=frozenset()) == []
    (offer, *_) = fitting.offers(Weights(8 * GB, kinds=("fp8",)), on, frozenset())
    assert "engine install vllm --variant cuda" in offer.refusal


def test_needs_are_near_the_sizes_of_real_files() -> None:
    """Published sizes: Llama 3.1 8B Q4_K_M 4.9 GB and Q8-like fp8 9.1 GB, bf16 16.1 GB; 70B in 4 bits about 40 GB."""
    for parameters, kind, size in (
        (8.03e9, "gguf", 4.9e9),
        (8.03e9, "fp8", 9.1e9),
        (8.03e9, "bf16", 16.1e9),
        (8.03e9, "awq", 5.7e9),
        (70.6e9, "awq", 39.8e9),
    ):
        assert fitting.size(int(parameters), kind) == pytest.approx(size, rel=0.06), kind


def test_speeds_are_those_that_were_measured() -> None:
    """An H100 with an 8B model: 159, 245 and 5,849 tokens a second; here the vocabulary is larger, so a little less."""
    offers = {offer.kind: offer for offer in fitting.offers(EIGHT, machine(gpu((9, 0), 80, bandwidth=3352 * GB)))}
    assert offers["bf16"].single == pytest.approx(150, rel=0.1)
    assert offers["fp8"].single == pytest.approx(220, rel=0.15)
    assert offers["bf16"].together == pytest.approx(5500, rel=0.15)
    assert offers["gguf"].together == 0.0  # nobody has measured that


def test_experts_are_read_in_part_but_held_whole() -> None:
    on = machine(gpu((9, 0), 80, bandwidth=3352 * GB))
    (dense,) = fitting.offers(Weights(30 * GB, kinds=("fp8",)), on)
    (mixture,) = fitting.offers(Weights(30 * GB, 3 * GB, ("fp8",)), on)
    assert mixture.need == dense.need
    assert mixture.single > 5 * dense.single


def test_what_is_not_known_is_not_held_against_it() -> None:
    (offer,) = fitting.offers(Weights(0, kinds=("gguf",)), Machine())
    assert offer.refusal == ""
    assert offer.single == 0.0
    (offer,) = fitting.offers(Weights(8 * GB, kinds=("fp8",)), machine(gpu((9, 0), 80)))
    assert offer.single == 0.0  # the bandwidth is not known
    assert fitting.shortage(5, 0) == ""


def test_online_fp8() -> None:
    def bf16(capability: tuple[int, int]) -> Offer:
        return next(o for o in fitting.offers(EIGHT, machine(gpu(capability, 80))) if o.kind == "bf16")

    assert 'quantize = "fp8"' in bf16((8, 9)).reason
    assert "quantize" not in bf16((8, 0)).reason
    assert bf16((8, 0)).device == GPU


def test_what_embeds_has_no_speed_and_keeps_no_context() -> None:
    writer, encoder = Weights(GB, kinds=("bf16",)), Weights(GB, kinds=("bf16",), writes=False)
    for on in (machine(), machine(gpu((9, 0), 80, bandwidth=3_352 * GB))):
        ((one,), (other,)) = fitting.offers(writer, on), fitting.offers(encoder, on)
        assert (one.single > 0, other.single) == (True, 0.0)
        assert other.need < one.need
        assert "quantize" not in other.reason
    assert fitting.offers(encoder, machine())[0].reason == "there is no GGUF of it"
