"""vLLM's streams begin before they have a token (Probe.begins_early), by which it is known what it has taken in."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import anyio
import pytest

from hyperllamad.engines import base
from tests.daemon import daemon
from tests.real.conftest import MODEL, answer, demo_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

COUNT = "1, 2, 3, 4, 5, 6, 7,"


def test_a_head_comes_while_another_answer_has_the_engine_for_itself() -> None:
    one_at_a_time = ["--max-num-seqs", "1"]
    with daemon({MODEL: {**demo_model("vllm"), "args": one_at_a_time}}) as running:
        assert "Paris" in answer(running.url, MODEL)
        row = running.row(MODEL)
        path = Path(f"/proc/{row['pid']}/cwd").readlink().parent / "e.sock"
        anyio.run(_ask, str(path), row["id"])
    assert base.load("vllm").probe.begins_early


async def _ask(path: str, model: str) -> None:
    """A second request's head comes while the first answer goes on, and its first token only after that has ended."""
    body = {"model": model, "prompt": COUNT, "stream": True, "max_tokens": 200, "temperature": 0, "ignore_eos": True}
    connector = aiohttp.UnixConnector(path)
    async with aiohttp.ClientSession("http://engine", connector=connector) as session:
        async with session.post("/v1/completions", json=body) as first:
            assert await first.content.readline()
            second = await session.post("/v1/completions", json=body | {"max_tokens": 1})
            assert second.status == 200
            assert not second.content.total_bytes
            assert b'"text"' in (await first.content.readuntil(b"\n\n")), "the first answer goes on"
            rest = await first.read()
        assert b"[DONE]" in rest
        assert b'"text"' in await second.read()
