"""Clients that leave, or stop reading: nothing stays held, the engine is told, nobody else suffers."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from hyperllamad.config.load import load_config
from hyperllamad.config.tables import Server
from hyperllamad.doors import Current
from hyperllamad.front.app import create_app
from hyperllamad.front.ports import Services
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from hyperllamad.telemetry import Metrics
from tests.front import fake_supervisor as fakes
from tests.front import scripted_engine
from tests.front.conftest import House, OpenHouse, wait_until
from tests.front.http_client import Client
from tests.front.scripted_engine import Asked, Stream, by_path, chat_event, short_chat

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
BODY = msgspec.json.encode(ASK)
REQUEST = b"POST /api/chat HTTP/1.1\r\nHost: x.local\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def endless(_: Asked) -> Stream:
    """More than any client here takes, in small steps."""
    return Stream(itertools.repeat(chat_event("word " * 40)))


async def test_the_engine_is_told_that_the_client_left(house: OpenHouse) -> None:
    gate = asyncio.Event()
    async with house(by_path({CHAT: Stream([chat_event("a"), gate])})) as h:
        for stream in (True, False):
            async with h.client.exchange("POST", "/api/chat", ASK | {"stream": stream}) as exchange:
                if stream:
                    await exchange.event()
                    await exchange.data()
                await wait_until(lambda: h.supervisor.open == 1 and bool(h.engine.asked))
            await wait_until(lambda: h.supervisor.open == 0 and h.engine.asked[-1].aborted)
        metrics = (await h.client.get("/metrics")).text
        assert 'hyperllama_requests_total{route="/api/chat",status="499"} 2.0' in metrics


async def rude_client(path: Path, rng: random.Random, seen: Counter[str]) -> None:
    """Sends all or a part of a request, takes some bytes or none, leaves politely or with bytes unread (a reset)."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1000)
    size = len(REQUEST) if rng.random() < 0.8 else rng.randrange(len(REQUEST))
    writer.write(REQUEST[:size])
    if size == len(REQUEST):
        taken = 0
        for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
            taken += len(await reader.read(rng.randrange(1, 3000)))
        seen["left in the body" if taken else "left before a byte"] += 1
    else:
        seen["half a request"] += 1
    for _ in range(rng.randrange(4)):
        await anyio.lowlevel.checkpoint()
    writer.transport.abort() if rng.random() < 0.5 else writer.close()


@pytest.mark.parametrize("wire", [True, False])
async def test_500_rude_clients(house: OpenHouse, wire: bool) -> None:
    rng = random.Random(5)
    seen: Counter[str] = Counter()
    async with house(endless, wire=wire) as h:
        for _ in range(20):
            async with anyio.create_task_group() as clients:
                for _ in range(25):
                    clients.start_soon(rude_client, h.socket, rng, seen)
        await _all_is_well(h)
    assert sum(seen.values()) == 500
    assert all(seen[kind] > 10 for kind in ("left before a byte", "left in the body", "half a request")), seen


async def _all_is_well(h: House) -> None:
    """No lease is open, and every answer the engine began was broken off."""
    await wait_until(lambda: h.supervisor.open == 0, 20)
    await wait_until(lambda: all(asked.aborted for asked in h.engine.asked), 20)
    assert len(h.engine.asked) > 50
    assert h.supervisor.taken >= len(h.engine.asked)
    with anyio.fail_after(20):
        await h.supervisor.upstream.connector.wait_cut()  # no connection to the engine is open
    await wait_until(lambda: not tasks("_handle"))
    # Hypercorn keeps a connection that was reset between two requests until its idle timeout; others must not stay.
    await wait_until(lambda: len(tasks("TCPServer._idle_timeout")) < 25)


def tasks(name: str) -> list[Any]:
    """The running tasks of that name."""
    return [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == name]  # type: ignore[union-attr]


async def test_rude_clients_under_hypercorns_own_server(tmp_path: Path) -> None:
    """Without our listener: no wire, other ways to end."""
    rng, seen, config = random.Random(6), Counter[str](), load_config(tmp_path, environ={"HOME": str(tmp_path)})
    server = Config()
    server.bind = [f"unix:{tmp_path / 'front'}"]
    server.accesslog = server.errorlog = None
    model, stop = fakes.model("m"), anyio.Event()
    async with AsyncExitStack() as held:
        engine = await held.enter_async_context(scripted_engine.running(endless, tmp_path / "engine"))
        supervisor = fakes.FakeSupervisor(fakes.FakeUpstream(tmp_path / "engine", model, fakes.FakeEngine()))
        library = Library(config, ShortNames(()))
        services = Services(fakes.FakeCatalog(model), supervisor, library, config, Metrics(), "1")
        app = Current(create_app(services))
        serving = asyncio.create_task(serve(app, server, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
        held.push_async_callback(asyncio.wait, {serving})
        held.callback(stop.set)
        await wait_until((tmp_path / "front").exists)
        h = House(Client(tmp_path / "front"), engine, supervisor, services.metrics, tmp_path / "front", services, app)
        for _ in range(8):
            async with anyio.create_task_group() as clients:
                for _ in range(25):
                    clients.start_soon(rude_client, h.socket, rng, seen)
        await _all_is_well(h)


@pytest.mark.parametrize("wire", [True, False])
async def test_a_client_that_stops_reading_slows_only_itself(house: OpenHouse, wire: bool) -> None:
    def script(asked: Asked) -> Stream:
        return endless(asked) if asked.body["messages"][0]["content"] == "slow" else Stream(short_chat(*"abc"))

    slow = {"model": "m", "messages": [{"role": "user", "content": "slow"}]}
    async with house(script, wire=wire) as h, h.client.exchange("POST", "/api/chat", slow) as exchange:
        exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: bool(h.engine.asked))
        for _ in range(20):
            assert (await h.client.post("/api/chat", ASK)).lines()[-1]["done"]
        # What lies between here and the engine is bounded by socket and stream buffers: the engine is held back.
        assert not h.engine.asked[0].finished
        await wait_until(lambda: h.supervisor.open == 1)
    await h.wait_idle()


@pytest.mark.parametrize("route", ["/api/chat", "/v1/chat/completions"])
async def test_a_client_that_reads_nothing_lets_go_of_what_others_wait_for(
    house: OpenHouse, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "unread_wanted", 0.2)
    ask = ASK | {"stream": True}
    async with house(endless) as h, h.client.exchange("POST", route, ask) as exchange:
        exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: bool(h.engine.asked))
        # Held back for longer than that, it keeps its engine as long as nobody else wants it.
        pieces = 0
        while (now := h.supervisor.upstream.works[0].pieces) > pieces:
            pieces = now
            await anyio.sleep(0.3)  # a stretch longer than that in which nothing must happen
        assert (h.supervisor.open, h.engine.asked[0].aborted) == (1, False)
        h.supervisor.wanted = True
        await h.wait_idle()
        await wait_until(lambda: h.engine.asked[0].aborted)
        assert h.supervisor.upstream.suspicions == 0
        exchange.writer.transport.resume_reading()  # type: ignore[attr-defined]
        body = (await exchange.reply()).body
        assert b"nothing of it was read for" in body[-400:], "what was written is still there, and why it ended"
        assert len(body) > 100_000


@pytest.mark.parametrize("route", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_whole_answer_holds_no_engine_while_it_is_read(house: OpenHouse, route: str) -> None:
    """There is nothing more to come from the engine, whether anybody waits for it or not."""
    pieces = 64
    ask = ASK | {"stream": False, "max_tokens": 10}
    async with (
        house(lambda _: Stream(short_chat(*["word " * 10_000] * pieces))) as h,
        h.client.exchange("POST", route, ask) as exchange,
    ):
        exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: bool(h.engine.asked))
        await h.wait_idle()
        assert all(work.over for work in h.supervisor.upstream.works)
        assert f'hyperllama_requests_total{{route="{route}"' not in (await h.client.get("/metrics")).text
        exchange.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await exchange.reply()).body.count(b"word ") == 10_000 * pieces


async def test_a_client_that_reads_slowly_is_waited_for(house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "unread_wanted", 1.0)  # ten times its pace, for machines that are slow themselves
    async with house(endless) as h, h.client.exchange("POST", "/api/chat", ASK) as exchange:
        h.supervisor.wanted = True
        for _ in range(20):  # twice as long as it may take nothing
            await exchange.reader.read(1 << 20)
            await anyio.sleep(0.1)  # its pace
        assert h.supervisor.open == 1
