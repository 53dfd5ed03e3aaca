"""Two clients of one model on real engines: what a heavy one has while a light one is present.

vLLM's streams begin before they have a token (Probe.begins_early), by which it is known what it has taken in; on
llama.cpp answers slow each other (Engine.slows), so that a client has a part of the slots.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from tests.daemon import Daemon, daemon
from tests.real.conftest import MODEL, demo_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

COUNT = "1, 2, 3, 4, 5, 6, 7,"
HEAVY = 4  # requests
LIGHT, OTHER = "127.0.0.1", "127.0.0.2"  # addresses, which is what tells clients without a key


async def test_vllm_tells_what_it_has_taken_in_before_there_is_a_token() -> None:
    one_at_a_time = {"parallel": 8, "args": ["--max-num-seqs", "1"]}
    with daemon({MODEL: {**demo_model("vllm"), **one_at_a_time}}) as running:
        await _asked(running, LIGHT, 1)
        row = await anyio.to_thread.run_sync(running.row, MODEL)
        await _heads_without_tokens(str(Path(f"/proc/{row['pid']}/cwd").readlink().parent / "e.sock"), row["id"])
        # Long enough to be looked at, and over before nobody else counts as present.
        async with _heavy(running, 200) as answers:
            # One is on its way at a time, and none ends meanwhile: each was told of at its head.
            await _until(running, lambda row: (row["running"], row["waiting"]) == (HEAVY, 0), answers)


async def test_on_llama_cpp_a_client_has_one_slot_of_four_beside_another() -> None:
    with daemon({MODEL: {**demo_model("llama_cpp"), "parallel": 4}}) as running:
        await _asked(running, LIGHT, 1)
        async with _heavy(running, 2000) as answers:
            await _until(running, lambda row: row["running"] + row["waiting"] == HEAVY, answers)
            row = await anyio.to_thread.run_sync(running.row, MODEL)
            assert (row["running"], row["waiting"]) == (1, HEAVY - 1)
            await _asked(running, LIGHT, 1)
            assert not any(answer.done() for answer in answers), "the light client did not wait for an answer's end"


async def _asked(running: Daemon, address: str, tokens: int) -> None:
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    options = {"num_predict": tokens, "temperature": 0}
    body = {"model": MODEL, "prompt": COUNT, "raw": True, "stream": False, "options": options}
    async with (
        aiohttp.ClientSession(running.url, connector=connector) as session,
        session.post("/api/generate", json=body) as reply,
    ):
        assert reply.status == 200, await reply.text()
        await reply.read()


@asynccontextmanager
async def _heavy(running: Daemon, tokens: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    """A client in the middle of long answers."""
    answers = [asyncio.create_task(_asked(running, OTHER, tokens)) for _ in range(HEAVY)]
    try:
        yield answers
    finally:
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)


async def _until(running: Daemon, what: Callable[[dict[str, Any]], bool], answers: list[asyncio.Task[None]]) -> None:
    """Until it is so of the model's row; fails when an answer ends before."""
    while not what(await anyio.to_thread.run_sync(running.row, MODEL)):
        assert not any(answer.done() for answer in answers)


async def _heads_without_tokens(path: str, model: str) -> None:
    """A second request's head comes while the first answer goes on, and its first token only after that has ended."""
    body = {"model": model, "prompt": COUNT, "stream": True, "max_tokens": 200, "temperature": 0, "ignore_eos": True}
    async with aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(path)) as session:
        async with session.post("/v1/completions", json=body) as first:
            assert await first.content.readline()
            second = await session.post("/v1/completions", json=body | {"max_tokens": 1})
            assert second.status == 200
            assert not second.content.total_bytes
            assert b'"text"' in (await first.content.readuntil(b"\n\n")), "the first answer goes on"
            rest = await first.read()
        assert b"[DONE]" in rest
        assert b'"text"' in await second.read()
