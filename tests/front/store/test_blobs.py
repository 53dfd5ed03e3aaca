"""POST and HEAD /api/blobs: uploads, taken no faster than they are stored."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tests.front.conftest import OpenHouse, Store, wait_until
from tests.front.store.asks import NOTHING, digest
from tests.front.store.conftest import Opened


async def test_blobs(open_house: Opened) -> None:
    data = os.urandom(3_000_000)
    path = f"/api/blobs/{digest(data)}"
    async with open_house as h:
        assert (await h.client.ask("HEAD", path)).status == 404
        assert (await h.client.ask("HEAD", "/api/blobs/x")).status == 400
        wrong = await h.client.post(path, raw=data[1:])
        assert wrong.status == 400
        assert wrong.json()["error"].startswith(f'digest mismatch, expected "{digest(data)}", got "sha256:')
        assert (await h.client.ask("HEAD", path)).status == 404
        stored = await h.client.post(path, raw=data)
        assert (stored.status, stored.body, stored.header("content-type")) == (201, b"", None)
        assert (await h.client.post(path, raw=data)).status == 200
        for known in (path, path.replace("sha256:", "sha256-")):
            assert (await h.client.ask("HEAD", known)).status == 200
        refused = await h.client.get(path)
        assert (refused.status, refused.header("allow")) == (405, "HEAD, POST")


async def test_an_upload_may_be_larger_than_any_other_body(
    house: OpenHouse, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperllamad.front.app.LARGEST_BODY", 1000)
    data = os.urandom(100_000)
    async with house(NOTHING, store=store) as h:
        assert (await h.client.post(f"/api/blobs/{digest(data)}", raw=data)).status == 201
        assert (await h.client.post("/api/show", raw=b" " * 1001)).status == 413


async def test_an_upload_is_taken_no_faster_than_it_is_stored(
    open_house: Opened, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody reads, the client has to wait: what it has sent lies in sockets and a few queues."""
    total, gate, taken = 64 << 20, asyncio.Event(), 0

    async def receive(_: str, chunks: Any) -> bool:
        nonlocal taken
        await gate.wait()
        async for chunk in chunks:
            taken += len(chunk)
        return True

    monkeypatch.setattr(store.library, "receive", receive)
    async with open_house as h:
        reader, writer = await asyncio.open_unix_connection(str(h.socket))
        head = f"POST /api/blobs/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {total}\r\n\r\n"
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(head.encode())
        sent, piece = 0, bytes(1 << 20)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):  # as long as it is blocked, nothing else can show that it is
                while sent < total:
                    writer.write(piece)
                    sent += len(piece)
                    await writer.drain()
        assert sent < 8 << 20
        gate.set()
        while sent < total:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        assert taken == total
        writer.close()


async def test_of_an_upload_that_breaks_off_nothing_remains(open_house: Opened, store: Store) -> None:
    data = b"x" * 100_000
    directory = store.library.blobs.directory
    async with open_house as h:
        _, writer = await asyncio.open_unix_connection(str(h.socket))
        head = f"POST /api/blobs/{digest(data)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data[:50_000])
        await wait_until(lambda: directory.is_dir() and any(directory.iterdir()))
        writer.close()
        await wait_until(lambda: not any(directory.iterdir()))
