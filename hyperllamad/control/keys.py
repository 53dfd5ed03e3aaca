"""The commands about API keys: a new one, which there are, one less."""

from __future__ import annotations

import logging

from hyperllamactl import protocol
from hyperllamad.control.answer import Teller
from hyperllamad.control.rooms import Rooms
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.control")


def list_keys(rooms: Rooms, _: protocol.KeyList) -> protocol.Keys:
    rooms.keys.load()  # raises: who looks here wants to know what is wrong with the file
    rows = [
        protocol.KeyRow(
            name=key.name,
            concurrent=key.limits.concurrent,
            tokens_per_minute=key.limits.tokens_per_minute,
            created_at=key.created,
            fixed=key.fixed,
        )
        for key in rooms.keys.all()
    ]
    return protocol.Keys(keys=rows, required=rooms.keys.required, file=str(rooms.keys.file))


async def new(rooms: Rooms, command: protocol.KeyNew, _: Teller) -> protocol.KeyMade:
    text = await rooms.keys.add(
        command.name, concurrent=command.concurrent, tokens_per_minute=command.tokens_per_minute
    )
    log.info("an API key was made", extra=fields(name=command.name))
    return protocol.KeyMade(name=command.name, key=text, required=rooms.keys.required)


async def remove(rooms: Rooms, command: protocol.KeyRemove, _: Teller) -> protocol.Done:
    await rooms.keys.remove(command.name)
    log.info("an API key was removed", extra=fields(name=command.name))
    return protocol.Done(message=f"the key {command.name} is refused from now on")
