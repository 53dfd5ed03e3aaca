"""The commands that look at the machine: what it is, and which models suit it."""

from __future__ import annotations

from collections.abc import Iterable

from hyperllamactl.protocol.engines import EngineList
from hyperllamactl.protocol.machine import GpuRow, Info, MachineReport, OfferRow, Recommend, Recommendations
from hyperllamad.control import engines
from hyperllamad.control.rooms import Rooms
from hyperllamad.core.errors import BadRequestError
from hyperllamad.core.fitting import Offer
from hyperllamad.core.machine import Gpu
from hyperllamad.core.names import ModelName
from hyperllamad.store import recommending, shortnames
from hyperllamad.store.recommending import Recommendation
from hyperllamad.store.shortnames import Entry

# What makes engines faster, of the hundred features a processor has: x86's and Arm's.
FEATURES = frozenset(
    {"avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8"}
    | {"asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"}
)


async def info(rooms: Rooms, _: Info) -> MachineReport:
    machine = await rooms.machine()
    return MachineReport(
        gpus=[_gpu(gpu) for gpu in machine.gpus.devices],
        driver=machine.gpus.driver,
        cuda=machine.gpus.cuda,
        gpu_problem=machine.gpus.problem,
        processor=machine.processor,
        cores=machine.cores,
        features=sorted(machine.features & FEATURES),
        memory=machine.memory,
        available=machine.available,
        ours=machine.ours,
        engines=engines.list_engines(rooms, EngineList()).engines,
    )


async def recommend(rooms: Rooms, command: Recommend) -> Recommendations:
    """Raises InvalidNameError, UnknownShortNameError, BadRequestError for repositories: nothing is known of them."""
    machine, kinds, names = await rooms.machine(), rooms.homes.kinds(), rooms.library.names
    if command.model:
        entry = _entry(rooms, ModelName.parse(command.model))
        (found,) = recommending.every([entry], machine, kinds)
        return Recommendations(offers=[_offer(entry, offer) for offer in found.offers])
    choose = recommending.every if command.every else recommending.best
    return Recommendations(offers=list(_first(choose(names.entries, machine, kinds))))


def _entry(rooms: Rooms, name: ModelName) -> Entry:
    if shortnames.of_hub(name):
        hint = "ask for a short name, such as qwen3:8b; `hyperllamactl recommend` lists those that fit"
        raise BadRequestError(f"nothing is known of {name.short} before it is here", hint=hint)
    return rooms.library.names.find(name)[0]


def _first(found: Iterable[Recommendation]) -> Iterable[OfferRow]:
    return (_offer(one.entry, one.offers[0]) for one in found)


def _gpu(gpu: Gpu) -> GpuRow:
    return GpuRow(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        capability=str(gpu.capability),
        total=gpu.total,
        free=gpu.free,
        ours=gpu.ours,
        bandwidth=gpu.bandwidth,
        processes=len(gpu.processes),
    )


def _offer(entry: Entry, offer: Offer) -> OfferRow:
    return OfferRow(
        name=f"{entry.name}-{offer.kind}",
        model=entry.name,
        repository=entry.repository(offer.kind),
        kind=offer.kind,
        engine=offer.engine,
        device=offer.device,
        need=offer.need,
        room=offer.room,
        fits=not offer.refusal,
        single=round(offer.single, 1),
        together=round(offer.together),
        why=offer.refusal or offer.reason,
        parameters=entry.parameters,
        context=entry.context,
        license=entry.license,
        gated=entry.gated,
        embedding=entry.embedding,
    )
