"""Who gets through the admin door, in which order it is decided, and what a refusal looks like."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
from typing import Any

import pytest

from hyperllamactl import __version__
from hyperllamactl.protocol.base import Failed, Role
from hyperllamactl.protocol.daemon import Status
from hyperllamactl.protocol.instances import Load, Ps, Unload
from hyperllamactl.protocol.store import List, Show
from hyperllamactl.protocol.table import COMMANDS
from hyperllamad.control import app as door_app
from hyperllamad.control import handlers, roles
from hyperllamad.listen import Peer
from tests.control.conftest import Door, outsider

ADMIN_COMMANDS = sorted(name for name, kind in COMMANDS.items() if kind.role is Role.ADMIN)


def test_every_command_has_one_handler_of_its_kind() -> None:
    assert set(handlers.AT_ONCE) == {kind for kind in COMMANDS.values() if not kind.streams}
    assert set(handlers.STREAMS) == {kind for kind in COMMANDS.values() if kind.streams}


# -- roles -------------------------------------------------------------------------------------------------------------

GROUP = grp.getgrall()[-1]


@pytest.mark.parametrize(
    ("peer", "role"),
    [
        (outsider(uid=0), Role.ADMIN),
        (outsider(uid=os.getuid()), Role.ADMIN),
        (outsider(gid=GROUP.gr_gid), Role.ADMIN),
        (outsider(groups=frozenset({1, GROUP.gr_gid})), Role.ADMIN),
        (outsider(groups=frozenset({GROUP.gr_gid + 1})), Role.READER),
        (outsider(), Role.READER),
        (None, Role.READER),
    ],
)
def test_role_of(peer: Peer | None, role: Role) -> None:
    assert roles.Roles(GROUP.gr_name).of(peer) is role


def test_a_group_that_does_not_exist_admits_nobody() -> None:
    assert roles.Roles("no-such-group").of(outsider(groups=frozenset(range(1, 3000)))) is Role.READER


@pytest.mark.parametrize("name", ADMIN_COMMANDS)
@pytest.mark.parametrize("peer", [outsider(), None])
async def test_a_reader_may_not_change_anything_and_is_told_before_the_body_is_read(
    name: str, peer: Peer | None, door: Door
) -> None:
    door.peer = peer
    answer = await door.post(f"/v1/{name}", b"{not even json")
    assert answer.status == 403
    assert answer.last == Failed(
        code="not_permitted",
        message=f"'{name}' is for administrators",
        hint="become a member of the group hyperllama (sudo usermod -aG hyperllama $USER), or use sudo",
    )


async def test_a_reader_may_read(door: Door) -> None:
    door.peer = outsider()
    for command in (Status(), Ps(), List(), Show(model="smollm2:135m")):
        assert (await door.call(command)).status == 200


async def test_the_kernel_says_who_is_there(door: Door) -> None:
    """No peer is injected: this very process is the daemon's own user."""
    assert (await door.call(Unload(model="smollm2:135m"))).last.code == "not_loaded"


async def test_the_log_says_who_asked_for_what(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hyperllamad")
    door.peer = outsider(uid=0, pid=4711)
    await door.call(Unload(model="smollm2:135m"))
    await door.call(Ps())
    door.peer = outsider()
    await door.call(Unload(model="smollm2:135m"))
    told: list[tuple[str, Any]] = [(record.message, record.__dict__["fields"]) for record in caplog.records]
    assert told == [
        ("asked to unload", {"model": "smollm2:135m", "now": False, "uid": 0, "pid": 4711}),
        ("refused /v1/unload", {"uid": 65534, "pid": 99}),
    ]


# -- the shape of a request --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": "localhost"}]
)
async def test_what_a_browser_sends_is_refused(headers: dict[str, str], door: Door) -> None:
    answer = await door.post("/v1/ps", **headers)
    assert (answer.status, answer.last.code) == (403, "not_permitted")


async def test_an_unknown_command_gets_the_nearest_names(door: Door) -> None:
    answer = await door.post("/v1/unlaod")
    assert answer.status == 404
    assert answer.last == Failed(
        code="unknown_command", message="unknown command 'unlaod'", hint="did you mean: unload, load, plan-load"
    )
    assert (await door.post("/v1/xyzzy")).last.hint == f"there are: {', '.join(sorted(COMMANDS))}"


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("show", b"{}", "show: the field `model` is missing"),
        ("show", b"", "show: the field `model` is missing"),
        ("show", b'{"model": 5}', "show: the field `model`: expected `str`, got `int`"),
        ("logs", b'{"model": "m", "lines": "all"}', "logs: the field `lines`: expected `int`, got `str`"),
        ("ps", b"[]", "ps: expected `object`, got `array`"),
        ("ps", b"{oops", "ps: the body is not JSON: JSON is malformed"),
    ],
)
async def test_a_body_that_cannot_be_decoded_is_refused_with_the_field(
    name: str, body: bytes, sentence: str, door: Door
) -> None:
    answer = await door.post(f"/v1/{name}", body)
    assert (answer.status, answer.last.code) == (400, "bad_request")
    assert answer.last.message.startswith(sentence)


async def test_fields_of_a_newer_client_are_ignored_and_those_of_an_older_one_have_defaults(door: Door) -> None:
    answer = await door.post("/v1/show", b'{"model": "smollm2:135m", "colour": {"deep": 1}}')
    assert answer.status == 200
    assert (await door.post("/v1/ps")).status == 200


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/v1/ps/x", 404), ("/v2/ps", 404)])
async def test_other_paths_are_told_the_one_there_is(path: str, status: int, door: Door) -> None:
    answer = await door.post(path)
    assert (answer.status, answer.last.hint) == (status, "the only route is POST /v1/<command>")


async def test_other_methods_are_refused(door: Door) -> None:
    async with door.session.get("http://hyperllamad/v1/ps") as response:
        assert response.status == 405
        assert b'"type":"failed"' in await response.read()


async def test_a_body_without_end_is_refused(door: Door) -> None:
    # By hand: aiohttp 3.10 reports a connection that was closed while it sent, though it has the answer.
    reader, writer = await asyncio.open_unix_connection(door.path)
    writer.write(b"POST /v1/ps HTTP/1.1\r\nHost: hyperllamad\r\nContent-Length: %d\r\n\r\n" % (door_app.MAX_BODY + 1))
    head, _, body = (await reader.readuntil(b"}")).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"a command takes at most 1000000 bytes" in body


async def test_a_body_that_does_not_come_is_not_waited_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_app, "BODY_PATIENCE", 0.01)
    reader, writer = await asyncio.open_unix_connection(door.path)
    writer.write(b"POST /v1/ps HTTP/1.1\r\nHost: hyperllamad\r\nContent-Length: 9\r\n\r\n{")
    head, _, body = (await reader.readuntil(b"}")).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"POST /v1/ps: Request Timeout" in body
    assert b"a command must be here whole within 30 seconds" in body


async def test_every_answer_names_the_version(door: Door) -> None:
    for path in ("/v1/ps", "/v1/nope", "/v1/logs", "/"):
        assert (await door.post(path)).headers.getall("Server") == [f"hyperllamad/{__version__}"]
    assert (await door.call(Unload(model="smollm2:135m"))).headers["Server"] == f"hyperllamad/{__version__}"


# -- our own errors ----------------------------------------------------------------------------------------------------


async def test_our_own_error_is_a_sentence_for_the_client_and_a_trace_for_the_log(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fall() -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(door.supervisor, "rows", fall)
    monkeypatch.setattr(door.supervisor, "lease", lambda *_, **__: fall())
    at_once = await door.call(Ps())
    assert (at_once.status, at_once.last.code) == (500, "internal")
    stream = await door.call(Load(model="smollm2:135m"))
    assert (stream.status, stream.last.code) == (200, "internal")
    for answer, name in ((at_once, "/v1/ps"), (stream, "load")):
        assert answer.last.message == f"'{name}' failed inside hyperllamad: ZeroDivisionError: oops"
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR", "ERROR"]
