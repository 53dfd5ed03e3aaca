"""`python -m tests.bench.crowd URL ADDRESS OPEN TOKENS MODEL...`: clients in a process of their own.

In one process with whoever is measured they would share an event loop with him, and what is measured would be that.
Each of the OPEN clients asks one model after the other for so many TOKENS, for as long as it may: `go` on standard
input lets them, `halt` ends them, and each is answered by a line when it is so.  They run at a lower priority: real
ones would compute on machines of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

import aiohttp

YIELDS = 10  # nice


class Crowd:
    """Such a process, as the one that measures sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def go(self) -> None:
        await self._order("go")

    async def halt(self) -> int:
        """Returns how many requests were answered since go()."""
        return int(await self._order("halt"))

    async def _order(self, what: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        line = (await self._process.stdout.readline()).decode().strip()
        assert line, "the crowd has ended"
        return line


@contextlib.asynccontextmanager
async def crowd(url: str, address: str, clients: int, tokens: int, *models: str) -> AsyncIterator[Crowd]:
    """One that waits for go()."""
    arguments = (url, address, str(clients), str(tokens), *models)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.crowd", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Crowd(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def main(url: str, address: str, clients: int, tokens: int, models: list[str]) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    answered = 0

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal answered
        while True:
            for model in models:
                body = {"model": model, "prompt": "1 2", "options": {"num_predict": tokens, "temperature": 0}}
                async with session.post("/api/generate", json=body) as reply:
                    assert reply.status == 200, await reply.text()
                    await reply.read()
                answered += 1

    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        asking: list[asyncio.Task[None]] = []
        while order := (await lines.readline()).strip():
            if order == b"go":
                asking, answered = [asyncio.create_task(ask(session)) for _ in range(clients)], 0
                print("gone", flush=True)
                continue
            for task in asking:
                task.cancel()
            for ended in await asyncio.gather(*asking, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
            print(answered, flush=True)


if __name__ == "__main__":
    os.nice(YIELDS)
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]))
