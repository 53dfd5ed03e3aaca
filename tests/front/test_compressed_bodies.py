"""Bodies of the OpenAI and Anthropic routes may come as zstd."""

from __future__ import annotations

import json
from typing import Any

import zstandard

from tests.front.conftest import House, OpenHouse
from tests.front.openai_asks import ASK, CHAT, USER, says


async def send_compressed(h: House, data: bytes, encoding: str = "zstd") -> Any:
    return await h.client.post(CHAT, raw=data, headers={"Content-Encoding": encoding})


async def test_zstd(house: OpenHouse) -> None:
    plain = json.dumps(ASK).encode()
    async with house(says("a")) as h:
        assert (await send_compressed(h, zstandard.compress(plain))).status == 200
        streamed = zstandard.ZstdCompressor().compressobj()  # a frame that does not say how long it is
        assert (await send_compressed(h, streamed.compress(plain) + streamed.flush())).status == 200
        assert h.engine.asked[1].body["messages"] == [USER]


async def test_zstd_that_is_not_sound(house: OpenHouse) -> None:
    whole = zstandard.compress(json.dumps(ASK).encode())
    async with house(says("a")) as h:
        for data in (b"garbage", whole[:-4], b""):
            reply = await send_compressed(h, data)
            assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")
        bomb = await send_compressed(h, zstandard.compress(bytes(65 * 1024 * 1024)))
        assert bomb.status == 413
        other = await send_compressed(h, b"x", "br")
        assert (other.status, other.json()["error"]["message"]) == (
            415,
            "request bodies in the encoding 'br' are not understood (send the body as it is, or as zstd)",
        )
