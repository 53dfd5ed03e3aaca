"""Hearing of sleep on a real bus, from a logind that is played: locks, signals, and everything that may be missing."""

from __future__ import annotations

import builtins
import importlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from hyperllamad import logind
from hyperllamad.logind import NoLogindError
from tests import stand_in_logind
from tests.supervision.processes import wait_for

pytestmark = pytest.mark.skipif(stand_in_logind.DAEMON is None, reason="needs dbus-daemon")


@pytest.fixture
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stand_in_logind.system_bus(tmp_path_factory.mktemp("b")) as address:
        yield address


async def test_a_lock_is_taken_and_given_back(bus: str) -> None:
    with stand_in_logind.logind(bus, delay=7.5) as manager:
        async with logind.connected(bus) as found:
            assert await found.delay() == 7.5
            await found.hold()
            assert manager.asked == [("sleep", "hyperllamad", logind.WHY, "delay")]
            assert (found.holds, manager.held()) == (True, 1)
            found.let_go()
            assert not found.holds
            await wait_for(lambda: manager.held() == 0)
            await found.hold()
        await wait_for(lambda: manager.held() == 0)  # nor is one left behind


async def test_a_lock_that_is_given_when_nobody_waits_any_more_is_given_back(bus: str) -> None:
    """Who asked is cancelled after the answer has come and before it is told of."""
    with stand_in_logind.logind(bus) as manager:
        come, go = threading.Event(), threading.Event()
        async with anyio.create_task_group() as tasks, logind.connected(bus) as found:
            answer = found._answer

            def late(call: Any) -> tuple[Any, ...]:
                body = answer(call)
                come.set()
                assert go.wait(30)
                return body

            found._answer = late  # type: ignore[method-assign]
            tasks.start_soon(found.hold)
            await wait_for(come.is_set)
            tasks.cancel_scope.cancel()
        assert manager.held() == 1
        go.set()
        await wait_for(lambda: manager.held() == 0)


async def test_sleep_and_waking_are_heard_in_order(bus: str) -> None:
    with stand_in_logind.logind(bus) as manager:
        async with logind.connected(bus) as found:
            for about_to in (True, False, True):
                manager.sleeps(is_about_to=about_to)
            with anyio.fail_after(10):
                assert [await found.next() for _ in range(3)] == [True, False, True]


async def test_what_comes_while_something_is_asked_is_not_lost(bus: str) -> None:
    with stand_in_logind.logind(bus) as manager:
        async with logind.connected(bus) as found:
            manager.sleeps(is_about_to=True)
            await found.delay()
            with anyio.fail_after(10):
                assert await found.next()


async def test_others_may_send_signals_of_that_name(bus: str) -> None:
    with (
        stand_in_logind.logind(bus) as manager,
        stand_in_logind.logind(bus, name="org.example.Joker") as joker,
    ):
        async with logind.connected(bus) as found:
            joker.sleeps(is_about_to=True)
            manager.sleeps(is_about_to=False)
            with anyio.fail_after(10):
                assert not await found.next()


async def test_a_lock_that_is_refused(bus: str) -> None:
    with stand_in_logind.logind(bus, refuses=True):
        async with logind.connected(bus) as found:
            with pytest.raises(NoLogindError, match="Access denied"):
                await found.hold()
            assert not found.holds


async def test_a_bus_without_logind(bus: str) -> None:
    async with logind.connected(bus) as found:
        assert await found.delay() == logind.DEFAULT_DELAY
        with pytest.raises(NoLogindError) as caught:
            await found.hold()
        assert caught.value.lasting


async def test_a_bus_that_ends(tmp_path_factory: pytest.TempPathFactory) -> None:
    ended: list[str] = []

    async def hear(found: logind.Logind) -> None:
        try:
            await found.next()
        except NoLogindError as failure:
            ended.append(str(failure))

    with stand_in_logind.system_bus(tmp_path_factory.mktemp("b")) as address:
        connection = logind.connected(address)
        found = await connection.__aenter__()
    await hear(found)
    assert len(ended) == 1
    await connection.__aexit__(None, None, None)


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "tcp:host=localhost,port=1"])
async def test_no_bus(address: str) -> None:
    with pytest.raises(NoLogindError):
        async with logind.connected(address):
            pytest.fail("connected")


async def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str | None = None) -> Any:
        if name.startswith("jeepney"):
            raise ModuleNotFoundError(name)
        return builtins.__import__(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(NoLogindError, match="jeepney is not installed") as caught:
        async with logind.connected():
            pytest.fail("connected")
    assert caught.value.lasting


async def test_waiting_can_be_cancelled(bus: str) -> None:
    async with logind.connected(bus) as found, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(found.next))
        await wait_for(lambda: True)
        tasks.cancel_scope.cancel()
