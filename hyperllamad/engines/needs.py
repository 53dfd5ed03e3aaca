"""How much memory a model takes, as far as its files tell: weights, and a KV cache of so many tokens.

Pure.  What the files do not say is estimated high: an instance that was refused wrongly is a nuisance, one that dies
of memory is a fault.  What a load really took is learned elsewhere and replaces these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperllamad.core.models import Model, Need, Settings
from hyperllamad.engines import bodies

HEAD_WIDTH = 128  # of newer models, whatever their width is; for files that do not say
KV_SHARE_UNKNOWN = 8  # the KV cache of a whole context is taken for 1/8 of the weights where the files say nothing
PAGED_SHARE = 8  # an engine with a paged cache gets room for this part of its parallel requests at full length
PAGED_LEAST = 8  # but for so many: most requests are far shorter than the context
HOST_OVERHEAD = 256 << 20  # an engine's own code and buffers in host memory
GPU_OVERHEAD = 2 << 30  # the driver's context, kernels, graphs


def estimate(model: Model, settings: Settings) -> Need:
    """For any engine: on the CPU room for every sequence at full length, on a GPU for a part of them."""
    sequence = sequence_bytes(model, settings)
    many = settings.parallel
    if settings.device == "cuda":
        many = min(many, max(PAGED_LEAST, many // PAGED_SHARE))
    wanted = settings.kv_cache_bytes or sequence * many
    overhead = GPU_OVERHEAD if settings.device == "cuda" else HOST_OVERHEAD
    return Need(weights=model.size, kv_cache=wanted, overhead=overhead)


def sequence_bytes(model: Model, settings: Settings) -> int:
    """The KV cache of one sequence at full length."""
    return kv_bytes_per_token(model) * bodies.context(model, settings)


def degrees(model: Model) -> tuple[int, ...]:
    """Powers of two that the attention heads can be shared out by; (1,) where the files do not say enough."""
    info = {key.partition(".")[2]: value for key, value in model.info.items()}
    heads, kv_heads = info.get("attention.head_count"), info.get("attention.head_count_kv")
    if not (isinstance(heads, int) and isinstance(kv_heads, int) and heads and kv_heads):
        return (1,)
    return tuple(n for n in (1, 2, 4, 8) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0))


def kv_bytes_per_token(model: Model, width: int = 2) -> int:
    """Keys and values of all layers; `width` is the bytes of one number."""
    info = {key.partition(".")[2]: value for key, value in model.info.items()}
    layers, heads = info.get("block_count"), info.get("attention.head_count_kv") or info.get("attention.head_count")
    if isinstance(heads, Sequence) and heads:
        heads = max(heads)  # one number for each layer
    if not (isinstance(layers, int) and isinstance(heads, int) and layers and heads):
        return model.size // KV_SHARE_UNKNOWN // max(1, model.context_length or 4096)
    keys = _width(info, "attention.key_length", model)
    values = _width(info, "attention.value_length", model)
    return layers * heads * (keys + values) * width


def _width(info: dict[str, object], name: str, model: Model) -> int:
    stated, heads = info.get(name), info.get("attention.head_count")
    if isinstance(stated, int) and stated:
        return stated
    if isinstance(heads, int) and heads and model.embedding_length:
        return model.embedding_length // heads
    return HEAD_WIDTH
