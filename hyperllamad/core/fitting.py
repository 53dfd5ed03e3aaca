"""Which quantisation of a model suits a machine: what fits, how fast to expect it, and why.  Pure; the only place.

A model comes in kinds (bf16, fp8, awq, gptq, mxfp4, gguf).  Each kind that there is becomes an Offer: where it would
run, how much memory that needs and whether there is so much.  Offers are in this order:

1. those that can run before those that cannot;
2. on a GPU before the processor;
3. by what the GPU computes fastest: from compute capability 8.9, which has units for it, fp8 first, then weights that
   vLLM can turn into fp8 while it loads them; below, 4-bit weights, whose kernels need no such units;
4. on the processor GGUF, which llama.cpp reads there, before anything else.

Needs and speeds are estimates from few numbers, and say so: `docs/choosing.md` shows them for three machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hyperllamad.core.machine import Capability, Gpu, Machine

GGUF, PUBLISHED, FP8 = "gguf", "bf16", "fp8"
GPU, CPU = "cuda", "cpu"
VLLM, LLAMA_CPP = "vllm", "llama_cpp"

Engines = AbstractSet[tuple[str, str]]  # (engine, device) of the homes in use

HAS_FP8 = Capability(8, 9)
# The least compute capability vLLM runs a kind on (its documentation's table of quantisations and hardware).
LEAST = {
    PUBLISHED: Capability(8, 0),
    FP8: Capability(8, 0),
    "mxfp4": Capability(8, 0),
    "awq": Capability(7, 5),
    "gptq": Capability(7, 0),
}
_WITH_FP8 = (FP8, "mxfp4", PUBLISHED, "awq", "gptq")  # the fastest first
_WITHOUT_FP8 = ("awq", "gptq", "mxfp4", FP8, PUBLISHED)

# Bits of a weight; of embeddings, which most quantisations leave alone, 16.  gguf: Q4_K_M, which is pulled by default.
_BITS = {PUBLISHED: 16.0, FP8: 8.0, "awq": 4.25, "gptq": 4.25, "mxfp4": 4.25, GGUF: 4.9}
_WHOLE = frozenset({PUBLISHED, GGUF})  # their number of bits counts the embeddings in
# Up to so many parameters, embeddings are about this share of them: 2 x 128256 x 4096 of Llama 3.1 8B are an eighth.
_EMBEDDINGS = ((5_000_000_000, 0.2), (20_000_000_000, 0.12))
_EMBEDDINGS_OF_LARGER = 0.04

# Bytes for 6,000 tokens of context of an 8B model with grouped-query attention. For other models by the square root of
# the size, which is near for 32B (256 KiB a token) and 70B (320 KiB).
_KV, _KV_OF = 800_000_000, 8_000_000_000
_RUNTIME = {GPU: 3 << 29, CPU: 256 << 20}  # what an engine needs besides: CUDA graphs, activations, buffers
_LEFT_ALONE = 0.08  # of a GPU's memory, as vLLM has it

# The share of the memory's bandwidth that one stream reaches: measured with an 8B model on an H100 (bf16 159 tokens a
# second, fp8 245, Q4_K_M 232); 64 streams together were 35 times as fast as one.
_REACHED = {PUBLISHED: 0.7, FP8: 0.55}
_REACHED_WITH_FOUR_BITS = 0.3
_GAIN = 35
# Weights read in a second by each core: measured with llama.cpp on a slow one.  Memory is not counted on for more.
_CORE, _CORES = 4_000_000_000, 8


@dataclass(frozen=True, slots=True)
class Weights:
    """What has to be known of a model to say where it fits."""

    parameters: int
    active: int = 0  # of them, for each token; 0 = all: it is no mixture of experts
    kinds: Sequence[str] = ()  # in the order of the catalogue
    writes: bool = True  # False: it embeds, which has no speed in tokens a second and keeps no context


@dataclass(frozen=True, slots=True)
class Offer:
    """One kind of a model on this machine."""

    kind: str
    engine: str
    device: str  # "cuda" or "cpu"
    need: int  # bytes
    room: int  # bytes there are for it
    refusal: str = ""  # why it cannot run here, a clause; "" when it can
    reason: str = ""  # why it is where it is in the order, a clause
    single: float = 0.0  # tokens a second of one stream; 0 = not known

    @property
    def together(self) -> float:
        """Tokens a second of 64 streams; 0 where nobody has measured how that grows."""
        return self.single * _GAIN if self.device == GPU else 0.0


def offers(weights: Weights, machine: Machine, engines: Engines | None = None) -> tuple[Offer, ...]:
    """Every kind, the one to take first; `engines` are those that are installed, None = never mind."""
    found = [_offer(weights, kind, machine, engines) for kind in weights.kinds]
    return tuple(sorted(found, key=lambda offer: _order(offer, machine)))


def need(weights: Weights, kind: str, device: str) -> int:
    """Bytes to run it: weights, a modest context, and what the engine itself takes."""
    context = _KV * math.sqrt(weights.parameters / _KV_OF) if weights.writes else 0
    return size(weights.parameters, kind, device) + round(context) + _RUNTIME[device]


def size(parameters: int, kind: str, device: str = GPU) -> int:
    """Bytes of the weights in memory: on the processor bf16 is made float32, which most of them compute faster."""
    bits = 32.0 if (kind, device) == (PUBLISHED, CPU) else _BITS[kind]
    if kind not in _WHOLE:
        share = next((share for most, share in _EMBEDDINGS if parameters <= most), _EMBEDDINGS_OF_LARGER)
        bits = bits * (1 - share) + 16 * share
    return round(parameters * bits / 8)


def best_gpu(machine: Machine) -> Gpu | None:
    """The GPU with the most room; models are placed on one."""
    return max(machine.gpus.devices, key=lambda gpu: gpu.room, default=None)


def shortage(needed: int, room: int) -> str:
    """A clause for people when there is too little; "" when there is enough or nobody knows."""
    return f"it needs about {_human(needed)}, and {_human(room)} are free" if room and needed > room else ""


def _offer(weights: Weights, kind: str, machine: Machine, engines: Engines | None) -> Offer:
    gpu = best_gpu(machine)
    on_gpu = gpu is not None and kind != GGUF
    if gpu is None or not on_gpu:
        return _on_processor(weights, kind, machine, engines)
    needed, room = need(weights, kind, GPU), round(gpu.room - _LEFT_ALONE * gpu.total)
    least = LEAST[kind]
    refusal = shortage(needed, room)
    if gpu.capability < least:
        refusal = f"{kind} needs compute capability {least}, and {gpu.name} has {gpu.capability}"
    elif engines is not None and (VLLM, GPU) not in engines:
        refusal = "vLLM for GPUs is not installed: `hyperllamactl engine install vllm --variant cuda`"
    read = size(weights.active or weights.parameters, kind)
    reached = _REACHED.get(kind, _REACHED_WITH_FOUR_BITS)
    return Offer(
        kind=kind,
        engine=VLLM,
        device=GPU,
        need=needed,
        room=room,
        refusal=refusal,
        reason=_reason(weights, kind, gpu),
        single=gpu.bandwidth * reached / read if read and weights.writes else 0.0,
    )


def _on_processor(weights: Weights, kind: str, machine: Machine, engines: Engines | None) -> Offer:
    engine = LLAMA_CPP if kind == GGUF else VLLM
    needed, room = need(weights, kind, CPU), machine.room
    refusal = shortage(needed, room)
    if kind not in {GGUF, PUBLISHED}:
        refusal = f"{kind} needs a GPU"
    elif engines is not None and (engine, CPU) not in engines:
        refusal = f"{engine} is not installed: `hyperllamactl engine install {engine}`"
    read = size(weights.active or weights.parameters, kind, CPU)
    why = "llama.cpp reads GGUF on the processor" if kind == GGUF else "six times the bytes of GGUF for each token"
    if GGUF not in weights.kinds:
        why = "there is no GGUF of it"
    return Offer(
        kind=kind,
        engine=engine,
        device=CPU,
        need=needed,
        room=room,
        refusal=refusal,
        reason=why,
        single=_CORE * min(machine.cores, _CORES) / read if read and weights.writes else 0.0,
    )


def _reason(weights: Weights, kind: str, gpu: Gpu) -> str:
    new = gpu.capability >= HAS_FP8
    if kind == FP8:
        return f"compute capability {gpu.capability} computes in fp8" if new else "half the memory of bf16"
    if kind == PUBLISHED:
        halved = new and weights.writes
        return 'can be run in fp8: `quantize = "fp8"` in its file' if halved else "as it was published, not quantised"
    return f"4-bit weights; {'fp8 is faster for many streams' if new else f'{gpu.capability} has no fp8'}"


def _order(offer: Offer, machine: Machine) -> tuple[bool, bool, int]:
    if offer.refusal:  # the one that would take least comes first
        return True, True, offer.need
    gpu = best_gpu(machine)
    kinds = _WITH_FP8 if gpu is not None and gpu.capability >= HAS_FP8 else _WITHOUT_FP8
    rank = kinds.index(offer.kind) if offer.kind in kinds else -1  # gguf
    return False, offer.device == CPU, rank


def _human(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
