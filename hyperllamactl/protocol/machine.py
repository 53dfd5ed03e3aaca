"""The machine on the wire: what is here to run models with, and which models suit it."""

from __future__ import annotations

import msgspec

from hyperllamactl.protocol.base import Command, Reply
from hyperllamactl.protocol.engines import EngineRow


class GpuRow(msgspec.Struct, kw_only=True):
    """One GPU.  Memory in bytes."""

    index: int  # the driver's number
    uuid: str
    name: str
    capability: str  # compute capability: 8.9
    total: int
    free: int
    ours: int = 0  # held by engines of ours
    bandwidth: int = 0  # bytes a second; 0 = not known
    processes: int = 0  # that hold memory on it


class MachineReport(Reply, tag="machine_report"):
    """`info`: what models can be run with here.  Memory in bytes."""

    gpus: list[GpuRow] = []
    driver: str = ""  # version of NVIDIA's
    cuda: str = ""  # the newest version of CUDA it serves
    gpu_problem: str = ""  # why there is no GPU, or not all of them
    processor: str = ""
    cores: int = 0  # that may be used
    features: list[str] = []  # of the processor, those that engines make use of
    memory: int = 0  # that may be used
    available: int = 0
    ours: int = 0  # held by engines of ours
    engines: list[EngineRow] = []


class Info(Command):
    """Show what models can be run with here: GPUs, memory, driver, processor, engines."""

    reply = MachineReport


class OfferRow(msgspec.Struct, kw_only=True):
    """One kind of a model of the catalogue on this machine.  Memory in bytes; needs and speeds are estimates."""

    name: str  # what to pull: qwen3:8b-fp8
    model: str  # qwen3:8b; pulled by this name, the first kind is taken
    repository: str
    kind: str  # bf16, fp8, awq, gptq, mxfp4, gguf
    engine: str
    device: str  # cuda, cpu
    need: int
    room: int  # what there is for it
    fits: bool
    single: float = 0.0  # tokens a second of one stream; 0 = not known
    together: float = 0.0  # of 64 streams
    why: str = ""
    parameters: int = 0
    context: int = 0  # tokens; 0 = not known
    license: str = ""
    gated: bool = False  # its publisher's terms must be accepted before it can be pulled
    embedding: bool = False


class Recommendations(Reply, tag="recommendations"):
    """`recommend`: the best kind first, for one model or for each."""

    offers: list[OfferRow]


class Recommend(Command):
    """Say which models suit this machine, how fast to expect them and why; with a model, in which of its kinds."""

    reply = Recommendations

    model: str = ""  # a short name: qwen3:8b; "" = the best of each family
    every: bool = False  # also what does not fit
