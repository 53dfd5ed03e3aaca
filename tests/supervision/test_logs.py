"""Rings of lines, the book of rings, and those who follow."""

from __future__ import annotations

import anyio

from hyperllamad.core.models import Key
from hyperllamad.core.names import ModelName
from hyperllamad.supervision.broadcast import BEHIND, Broadcast
from hyperllamad.supervision.logs import KEPT_AFTER_END, MOST_CHARACTERS, MOST_LINES, LogBook, Ring


def key(number: int) -> Key:
    return Key(f"{number:064x}", "settings")


def test_a_ring_keeps_the_last_lines() -> None:
    ring = Ring()
    for number in range(MOST_LINES + 10):
        ring.append(f"line {number}")
    assert len(ring) == MOST_LINES
    assert ring.last(2) == [f"line {MOST_LINES + 8}", f"line {MOST_LINES + 9}"]
    assert next(iter(ring)).text == "line 10"
    assert ring.last(0) == []


def test_a_ring_of_long_lines_keeps_fewer() -> None:
    ring = Ring()
    for _ in range(MOST_LINES):
        ring.append("x" * 4096)
    assert len(ring) == MOST_CHARACTERS // 4096


def test_a_restart_goes_on_in_the_same_ring() -> None:
    book = LogBook()
    ring = book.open(key(1))
    ring.append("before")
    assert book.open(key(1)) is ring
    assert ring.last(1) == ["before"]


def test_the_last_few_that_ended_are_kept_and_all_that_run() -> None:
    book = LogBook()
    runs = book.open(key(0))
    for number in range(1, KEPT_AFTER_END + 3):
        book.open(key(number))
        book.end(key(number))
    assert book.get(key(0)) is runs
    assert [book.get(key(number)) is None for number in (1, 2, 3)] == [True, True, False]
    book.end(key(999))  # one that never started


def test_a_name_finds_the_ring_opened_last() -> None:
    book = LogBook()
    name = ModelName.parse("m")
    for number in (1, 2):
        book.open(key(number)).names.add(name.key)
    assert book.find(name) is book.get(key(2))
    book.open(key(1))
    assert book.find(name) is book.get(key(1))
    assert book.find(ModelName.parse("other")) is None


async def test_a_follower_gets_what_comes_until_the_end() -> None:
    ring = Ring()
    ring.append("past")
    seen = []

    async def follow() -> None:
        with ring.follow() as lines:
            started.set()
            seen.extend([line.text async for line in lines])

    started = anyio.Event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await started.wait()
            ring.append("one")
            await anyio.wait_all_tasks_blocked()
            ring.append("two")
            ring.append("three")
            ring.end()
        assert seen == ["one", "two", "three"]
        with ring.follow() as lines:  # of one that has ended
            assert [line async for line in lines] == []


async def test_a_slow_watcher_is_dropped_and_the_others_are_not() -> None:
    broadcast: Broadcast[int] = Broadcast()
    slow, quick = broadcast.watch(), broadcast.watch()
    got = []
    for number in range(BEHIND + 5):
        broadcast.send(number)
        got.append(await anext(quick))
    assert got == list(range(BEHIND + 5))
    assert [number async for number in slow] == list(range(BEHIND))  # what it could still have, then the end


async def test_a_watcher_that_left_is_forgotten() -> None:
    broadcast: Broadcast[int] = Broadcast()
    with broadcast.watch():
        assert len(broadcast._watches) == 1
    assert broadcast._watches == []
    broadcast.send(1)
