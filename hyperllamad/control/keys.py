"""The commands about API keys: a new one, which there are, one less."""

from __future__ import annotations

import logging

from hyperllamactl.protocol.base import Done
from hyperllamactl.protocol.keys import KeyList, KeyMade, KeyNew, KeyRemove, KeyRow, Keys
from hyperllamad.control.answer import Teller
from hyperllamad.control.rooms import Rooms
from hyperllamad.telemetry import fields

log = logging.getLogger("hyperllamad.control")


def list_keys(rooms: Rooms, _: KeyList) -> Keys:
    rooms.keys.load()  # raises: who looks here wants to know what is wrong with the file
    rows = [
        KeyRow(
            name=key.name,
            concurrent=key.limits.concurrent,
            tokens_per_minute=key.limits.tokens_per_minute,
            created_at=key.created,
            fixed=key.fixed,
        )
        for key in rooms.keys.all()
    ]
    return Keys(keys=rows, required=rooms.keys.required, file=str(rooms.keys.file))


async def new(rooms: Rooms, command: KeyNew, _: Teller) -> KeyMade:
    text = await rooms.keys.add(
        command.name, concurrent=command.concurrent, tokens_per_minute=command.tokens_per_minute
    )
    log.info("an API key was made", extra=fields(name=command.name))
    return KeyMade(name=command.name, key=text, required=rooms.keys.required)


async def remove(rooms: Rooms, command: KeyRemove, _: Teller) -> Done:
    await rooms.keys.remove(command.name)
    log.info("an API key was removed", extra=fields(name=command.name))
    return Done(message=f"the key {command.name} is refused from now on")
