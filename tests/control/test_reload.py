"""`reload` at the admin door: what is waited for, what was done, and why it was not."""

from __future__ import annotations

from typing import cast

from hyperllamactl.protocol.base import Done
from hyperllamactl.protocol.daemon import Reload, Status
from hyperllamad.core.errors import ConfigError
from tests.control.conftest import Door
from tests.control.fakes import FakeReloader


def reloader(door: Door) -> FakeReloader:
    return cast("FakeReloader", door.rooms.reloader)


async def test_it_tells_what_it_waits_for_and_then_what_was_done(door: Door) -> None:
    async with door.stream(Reload()) as next_line:
        line = await next_line()
        while not line.detail:
            line = await next_line()
        assert (line.phase, line.detail) == ("reloading", "requests of 1 model to end")
        reloader(door).may_end.set()
        while not isinstance(line, Done):
            line = await next_line()
    assert line.message == "the configuration is in force"


async def test_a_wrong_configuration_fails_with_its_sentence_and_stays_in_status(door: Door) -> None:
    reloader(door).failure = ConfigError("hyperllamad.toml: `fleet.max_queue` is 'many'")
    reloader(door).error = "hyperllamad.toml: `fleet.max_queue` is 'many'"
    reloader(door).may_end.set()
    last = (await door.call(Reload())).last
    assert (last.code, last.message) == ("config", "hyperllamad.toml: `fleet.max_queue` is 'many'")
    status = (await door.call(Status())).last
    assert status.config_error == "hyperllamad.toml: `fleet.max_queue` is 'many'"
