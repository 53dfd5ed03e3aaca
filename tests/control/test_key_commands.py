"""key new, list and remove: over a real file, and a ring that is asked what it knows."""

from __future__ import annotations

import logging

import pytest

from hyperllamactl.protocol.base import Done, Failed
from hyperllamactl.protocol.keys import KeyList, KeyMade, KeyNew, KeyRemove
from tests.control.conftest import Door


async def test_a_key_is_made_listed_and_removed(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        made = (await door.call(KeyNew(name="alice", tokens_per_minute=100))).last
    assert isinstance(made, KeyMade)
    assert not made.required
    assert made.key not in "".join(f"{r.getMessage()} {getattr(r, 'fields', '')}" for r in caplog.records)
    found = door.rooms.keys.find([made.key])
    assert found is not None and found.name == "alice"
    reply = (await door.call(KeyList())).last
    assert [(row.name, row.concurrent, row.tokens_per_minute, row.fixed) for row in reply.keys] == [
        ("alice", 0, 100, False)
    ]
    assert reply.keys[0].created_at > 1e9
    assert (reply.required, reply.file) == (False, str(door.rooms.config.keys_file))
    assert (await door.call(KeyRemove(name="alice"))).last == Done(message="the key alice is refused from now on")
    assert (await door.call(KeyList())).last.keys == []
    assert door.rooms.keys.find([made.key]) is None


async def test_what_cannot_be_done_says_why(door: Door) -> None:
    await door.call(KeyNew(name="a"))
    for command, code in (
        (KeyNew(name="a"), "in_use"),
        (KeyNew(name="a b"), "bad_request"),
        (KeyNew(name="c", concurrent=-1), "bad_request"),
        (KeyRemove(name="b"), "no_such_key"),
    ):
        last = (await door.call(command)).last
        assert isinstance(last, Failed)
        assert last.code == code
    door.rooms.keys.file.chmod(0o644)
    for spoilt in (KeyList(), KeyNew(name="d"), KeyRemove(name="a")):
        last = (await door.call(spoilt)).last
        assert isinstance(last, Failed)
        assert (last.code, "chmod 600" in last.hint) == ("config", True)
