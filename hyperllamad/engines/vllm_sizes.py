"""How much memory vLLM takes, and the arguments that hold it to that; also how far it quantises weights on its way.

Pure.  Stated sizes let several models share a device on purpose; must not know what else stands on the command line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from hyperllamad.core.models import Model, Need, Placement, Settings
from hyperllamad.engines import bodies, needs
from hyperllamad.engines.base import Place

KV_LEAST, KV_MOST = 256 << 20, 4 << 30  # bytes of KV cache on a CPU when nobody states them
KV_UNKNOWN = 1 << 30  # where the model's files do not say how much a token takes
PROCESSES = 2_800_000_000  # bytes its three processes take on a CPU besides weights and cache
ON_GPU = 3 << 30  # bytes of a GPU besides weights and cache: context, graphs, and what computing takes
GRAPHS_MOST = 256  # requests in one step; beyond, computing takes longer than telling the GPU what to compute
ASLEEP = 2 << 30  # bytes of a GPU that one at sleep keeps: 1.85 GiB for 8 billion parameters

# Arguments of a user beside which ours would be one too many or, where several tokens of a request are guessed at
# once, too few.
_STATES_GRAPHS = ("cudagraph_capture_size", "enforce_eager", "speculative")


def need(model: Model, settings: Settings) -> Need:
    """See base.Engine."""
    found = needs.estimate(model, settings)
    if settings.device == "cpu":  # where it computes in float32, unless the processor knows better
        kv_cache = settings.kv_cache_bytes or _kv_bytes(model, settings, width=4)
        return replace(found, weights=2 * model.size, kv_cache=kv_cache, overhead=PROCESSES)
    least = min(found.kv_cache, needs.sequence_bytes(model, settings) * 9 // 8)  # blocks are handed out whole
    weights = round(model.size * _quantised((*quantization(settings), *settings.args)))
    degrees = needs.degrees(model)
    return replace(found, weights=weights, overhead=ON_GPU, kv_least=least, asleep=ASLEEP, gpus=degrees)


def quantization(settings: Settings) -> list[str]:
    """Arguments for weights that are quantised while they are read."""
    return ["--quantization", settings.quantize] if settings.quantize else []


def on_cpu(model: Model, settings: Settings, place: Place) -> list[str]:
    """Arguments for numbers it computes in and a KV cache of a stated size."""
    argv = ["--enforce-eager"]  # a compile cache cannot be read back on a CPU: compiling would cost a minute a start
    width = 2 if _bfloat16(model, place) else 4
    argv += ["--dtype", "bfloat16" if width == 2 else "float32"]
    argv += ["--kv-cache-memory-bytes", str(settings.kv_cache_bytes or _kv_bytes(model, settings, width=width))]
    return argv


def on_gpu(settings: Settings, room: Placement | None) -> list[str]:
    """Stated sizes, so that it takes what was reserved for it and does not measure what it finds free."""
    if room is None:
        return ["--kv-cache-memory-bytes", str(settings.kv_cache_bytes)] if settings.kv_cache_bytes else []
    # It starts only where this part of the GPU is free, so the part must be the reservation; rounded down.
    part = min(share.bytes / share.total for share in room.shares)
    argv = ["--gpu-memory-utilization", f"{math.floor(part * 10_000) / 10_000:.4f}"]
    argv += ["--kv-cache-memory-bytes", str(min(share.kv_cache for share in room.shares))]
    if len(room.shares) > 1:
        argv += ["--tensor-parallel-size", str(len(room.shares))]
    return argv


def _bfloat16(model: Model, place: Place) -> bool:
    """Not for encoders: they are small, and their vectors are compared with those of other engines."""
    return place.host.bfloat16 and not bodies.embeds(model)


def graphs(settings: Settings) -> list[str]:
    """Arguments for the batch sizes that get a CUDA graph: up to as many requests as there may be at once.

    vLLM by itself takes sizes up to twice that, in steps half as wide: it starts a second or two later for them, and
    gives no more tokens.  Nothing where the user's arguments are about that: vLLM refuses to be told twice.
    """
    if any(word in argument.replace("-", "_") for argument in settings.args for word in _STATES_GRAPHS):
        return []
    most = min(settings.parallel, GRAPHS_MOST)
    sizes = {size for size in (1, 2, 4, *range(8, 64, 8), *range(64, GRAPHS_MOST, 16)) if size < most}
    return ["--cudagraph-capture-sizes", *map(str, sorted(sizes | {most}))]


def _quantised(arguments: Sequence[str]) -> float:
    """The part of their size on disk that weights take: about half when all but the embeddings are quantised."""
    words = " ".join(arguments).replace("=", " ").split()
    return 0.55 if any(pair == ("--quantization", "fp8") for pair in itertools.pairwise(words)) else 1.0


def _kv_bytes(model: Model, settings: Settings, *, width: int) -> int:
    """Enough for every sequence at full length within bounds, but always for one: without that it does not start.

    `width` is the bytes of one number.
    """
    info = {key.partition(".")[2]: value for key, value in model.info.items()}
    layers, heads = info.get("block_count", 0), info.get("attention.head_count_kv", 0)
    # Where the files do not say, 128: newer models have it whatever their width is.
    head = info.get("attention.key_length") or 128
    if not (isinstance(layers, int) and isinstance(heads, int) and layers and heads):
        return KV_UNKNOWN
    sequence = 2 * layers * heads * head * width * bodies.context(model, settings)
    wanted = min(max(sequence * settings.parallel, KV_LEAST), KV_MOST)
    return max(wanted, sequence * 9 // 8)  # blocks are handed out whole
