"""What we add to vLLM's GPU workers (`--worker-extension-cls vllm_worker.Sleeper`): host memory for their sleep.

The first sleep of a process takes many seconds, nearly all of them spent on pinning as much host memory as the weights
take; later ones find it in PyTorch's cache of pinned blocks.  So it is pinned beforehand, in a thread, while the engine
serves.  Imported inside an engine home: only the standard library, PyTorch and vLLM may be imported here.
"""

import sys
import threading
import time
from typing import Any


class Sleeper:
    """Its methods become those of vLLM's worker and are called by name over /collective_rpc."""

    def hyperllama_pin(self) -> dict[str, Any]:
        """Begin; the bytes that will be pinned.  Raises where this vLLM keeps its memory in another way."""
        from vllm.device_allocator.cumem import CuMemAllocator  # noqa: PLC0415  # only the engine home has it

        blocks = CuMemAllocator.get_instance().pointer_to_data.values()
        sizes = [block.handle[1] for block in blocks if block.tag == "weights"]
        self.hyperllama_pinning = threading.Thread(target=_pin, args=(sizes,), daemon=True)
        self.hyperllama_pinning.start()
        return {"bytes": sum(sizes)}

    def hyperllama_pinned(self) -> dict[str, Any]:
        """Whether it is done."""
        return {"done": not self.hyperllama_pinning.is_alive()}


def _pin(sizes: list[int]) -> None:
    import torch  # noqa: PLC0415  # as above

    began = time.monotonic()
    blocks = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for size in sizes]
    del blocks  # back into PyTorch's cache, where sleep() looks first
    sys.stdout.write(f"hyperllama: pinned {sum(sizes)} bytes of host memory in {time.monotonic() - began:.1f} s\n")
    sys.stdout.flush()
