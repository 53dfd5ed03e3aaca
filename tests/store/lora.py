"""LoRA adapters as llama.cpp's converter writes them, with values of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.store.files import Tensor, gguf_bytes

RANK = 4


def lora_gguf(shapes: dict[str, tuple[int, int]] | None = None, *, size: float = 1.0, **metadata: Any) -> bytes:
    """An adapter of random values for these tensors: name -> (inputs, outputs).  Keys as for small_gguf."""
    keys: dict[str, Any] = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(RANK),
    }
    keys |= {key.replace("__", "."): item for key, item in metadata.items()}
    random, tensors = np.random.default_rng(1), []
    for name, (inputs, outputs) in (shapes or {"token_embd.weight": (4, 5)}).items():
        for part, shape in (("lora_a", (RANK, inputs)), ("lora_b", (outputs, RANK))):
            values = (size * random.standard_normal(shape)).astype(np.float32)
            tensors.append(Tensor(f"{name}.{part}", shape[::-1], 0, values.tobytes()))
    return gguf_bytes({key: item for key, item in keys.items() if item is not None}, tensors)
