"""Whether a model will find the memory it needs, told before it is loaded: a load that fails takes minutes."""

from __future__ import annotations

from hyperllamad.control.rooms import Rooms
from hyperllamad.core import fitting
from hyperllamad.core.errors import NoEngineError
from hyperllamad.core.machine import Machine
from hyperllamad.core.models import HOST, Device, Model, Need, Settings
from hyperllamad.engines import base


async def caution(rooms: Rooms, model: Model) -> str:
    """A sentence when it will probably not load; "" when it should, or when nothing can be said."""
    try:
        settings = rooms.supervisor.settings(model)
    except NoEngineError:
        return ""  # the load itself says so
    home = next((home for home in rooms.homes.all() if home.id == settings.home), None)
    if home is None:
        return ""
    machine = await rooms.machine()
    device, room = _place(machine, settings)
    need = base.load(settings.engine).need(model, settings, home, device)
    shortage = fitting.shortage(_least(need), room)
    others = " once every other model has left" if shortage else ""
    return f"{model.name} will probably not load: {shortage}{others} ({device.name})" if shortage else ""


def _least(need: Need) -> int:
    """What it cannot start without, on as many GPUs as it could be spread over at least."""
    return need.weights + need.overhead + (need.kv_cache if need.kv_least is None else need.kv_least)


def _place(machine: Machine, settings: Settings) -> tuple[Device, int]:
    """Where it would lie, and how much it could have there: on the emptiest GPU, or in the machine's memory."""
    gpu = fitting.best_gpu(machine)
    if settings.device == fitting.GPU and gpu is not None:
        return Device(gpu.uuid, gpu.index, gpu.total, gpu.free, gpu.name), gpu.room
    return Device(HOST, -1, machine.memory, machine.available), machine.room
