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
PAGED_SEQUENCES = 8  # whole contexts that an engine with a paged cache is given room for: most requests are far shorter
HOST_OVERHEAD = 256 << 20  # an engine's own code and buffers in host memory
GPU_OVERHEAD = 2 << 30  # the driver's context, kernels, graphs


def estimate(model: Model, settings: Settings) -> Need:
    """For any engine: on the CPU room for every sequence at full length, on a GPU for PAGED_SEQUENCES of them."""
    sequence = kv_bytes_per_token(model) * bodies.context(model, settings)
    many = min(settings.parallel, PAGED_SEQUENCES) if settings.device == "cuda" else settings.parallel
    wanted = settings.kv_cache_bytes or sequence * many
    overhead = GPU_OVERHEAD if settings.device == "cuda" else HOST_OVERHEAD
    return Need(weights=model.size, kv_cache=wanted, overhead=overhead)


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
