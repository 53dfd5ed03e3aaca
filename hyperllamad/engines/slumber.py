"""Which versions of vLLM can be put to sleep and woken.  Data, each with its source, and the question asked of it.

Level 1 keeps the weights in host memory and drops the KV cache.  Level 2 drops the weights too; whoever wakes it must
have them loaded again by a second, undocumented call, and gets other answers than before (vllm-project/vllm#29341), so
that level is never offered: a stopped engine starts cleanly from the same files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

PATHS = ("/sleep?level={level}", "/wake_up")  # there only with VLLM_SERVER_DEV_MODE
WORKER = "vllm_worker.Sleeper"  # launchers/vllm_worker.py
PIN = {"method": "hyperllama_pin"}  # for /collective_rpc


class Broken(NamedTuple):
    """Versions from `since` on, and before `until`, that are not trusted."""

    since: tuple[int, ...]
    until: tuple[int, ...]
    why: str
    source: str  # an issue of vllm-project/vllm


BROKEN = (
    Broken((0,), (0, 9), "answers are garbage after a wake", "#16234, #17103"),
    Broken((0, 14), (0, 17), "the weights stay on the GPU", "#32714, mended by #32947"),
)
# A cache of 8-bit numbers cannot be woken, whatever the version: #49237 (open when this was written).
_CACHE_OPTION = re.compile(r"--kv[-_]cache[-_]dtype(?:=(.+))?")


def distrust(version: str, arguments: Sequence[str]) -> str:
    """Why an engine of this version, started with these arguments besides ours, must not sleep; "" = it may."""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    for broken in BROKEN:
        if broken.since <= number < broken.until:
            return f"{broken.why} ({broken.source})"
    for position, argument in enumerate(arguments):
        if found := _CACHE_OPTION.fullmatch(argument):
            value = found[1] or next(iter(arguments[position + 1 :]), "")
            if value.startswith("fp8"):
                return "an fp8 KV cache cannot be woken (#49237)"
    return ""
