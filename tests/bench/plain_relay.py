"""The yardstick: the plainest good relay one would write with Quart and aiohttp, to be measured beside ours.

`python -m tests.bench.plain_relay ENGINE_SOCKET PORT`: OpenAI SSE in, Ollama NDJSON out, msgspec both ways, one line
written for each event as it is parsed.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, Response, request


def app_for(engine: str) -> Quart:
    app = Quart(__name__)
    session: list[aiohttp.ClientSession] = []

    @app.post("/api/chat")
    async def chat() -> Response:
        body = msgspec.json.decode(await request.get_data())
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.UnixConnector(engine, limit=0)))

        async def lines() -> AsyncIterator[bytes]:
            ask = {"model": "bench", "messages": body["messages"], "stream": True}
            async with session[0].post("http://engine/v1/chat/completions", json=ask) as reply:
                async for raw in reply.content:
                    if not raw.startswith(b"data: {"):
                        continue
                    choices = msgspec.json.decode(raw[6:])["choices"]
                    if not choices:
                        continue
                    line: dict[str, Any] = {
                        "model": body["model"],
                        "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                        "message": {"role": "assistant", "content": choices[0]["delta"].get("content", "")},
                        "done": choices[0]["finish_reason"] is not None,
                    }
                    yield msgspec.json.encode(line) + b"\n"

        response = Response(lines(), content_type="application/x-ndjson")  # type: ignore[arg-type]
        response.timeout = None
        return response

    return app


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[2]}"]
    config.accesslog = config.errorlog = None
    uvloop.run(serve(app_for(sys.argv[1]), config))  # type: ignore[arg-type]
