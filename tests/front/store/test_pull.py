"""POST /api/pull, which ends with its last client; and push, which is refused."""

from __future__ import annotations

from threading import Semaphore

import pytest

from tests.front.conftest import Store, wait_until
from tests.front.store.asks import NAME, NDJSON, NOT_FOUND, digest, names
from tests.front.store.conftest import Opened
from tests.store.files import small_gguf
from tests.store.hub import Hub


async def test_pull(open_house: Opened, hub: Hub) -> None:
    data = small_gguf()
    hub.put("org/repo", {"x-Q4_0.gguf": data})
    async with open_house as h:
        reply = await h.client.post("/api/pull", {"name": NAME, "insecure": True})
        assert (reply.status, reply.header("content-type")) == (200, NDJSON)
        first, *layers, verifying, writing, last = reply.lines()
        assert [first, verifying, writing, last] == [
            {"status": status}
            for status in ("pulling manifest", "verifying sha256 digest", "writing manifest", "success")
        ]
        done = {"status": f"pulling {digest(data)[7:19]}", "digest": digest(data), "total": len(data)}
        assert layers[-1] == done | {"completed": len(data)}
        assert await names(h) == ["hf.co/org/repo:latest", "m:latest"]
        whole = await h.client.post("/api/pull", {"model": NAME, "stream": False})
        assert (whole.body, whole.header("content-type")) == (b'{"status":"success"}', "application/json")


@pytest.mark.parametrize("name", ["hf.co/org/none", "nosuch", "example.com/org/repo"])
async def test_pull_of_what_is_nowhere(open_house: Opened, name: str) -> None:
    async with open_house as h:
        reply = await h.client.post("/api/pull", {"model": name})
        assert reply.status == 200
        assert reply.lines() == [{"status": "pulling manifest"}, {"error": NOT_FOUND}]
        whole = await h.client.post("/api/pull", {"model": name, "stream": False})
        assert (whole.status, whole.header("content-type")) == (500, "application/json")
        assert whole.json() == {"error": NOT_FOUND}


async def test_a_pull_ends_with_its_last_client(open_house: Opened, hub: Hub, store: Store) -> None:
    data = small_gguf()
    hub.put("org/repo", {"x-Q4_0.gguf": data})
    gate = hub.gates["org/repo/x-Q4_0.gguf"] = hub.gates["x-Q4_0.gguf"] = Semaphore(0)
    flights = store.library._pulls._flights  # whether one flies is not to be seen otherwise
    async with open_house as h:
        async with h.client.exchange("POST", "/api/pull", {"model": NAME}) as one:
            await one.event()
            assert b"pulling manifest" in await one.data()
            async with h.client.exchange("POST", "/api/pull", {"model": NAME, "stream": False}):
                await wait_until(lambda: [flight.watchers for flight in flights.values()] == [2])
            await wait_until(lambda: [flight.watchers for flight in flights.values()] == [1])
        await wait_until(lambda: not flights)
        for _ in range(1000):
            gate.release()
        assert (await h.client.post("/api/pull", {"model": NAME})).lines()[-1] == {"status": "success"}


async def test_push_is_refused(open_house: Opened) -> None:
    async with open_house as h:
        *lines, last = (await h.client.post("/api/push", {"model": "m"})).lines()
        assert lines == [{"status": "retrieving manifest"}, {"status": "couldn't retrieve manifest"}]
        assert last["error"].startswith("push is not supported")
        whole = await h.client.post("/api/push", {"model": "m", "stream": False})
        assert (whole.status, whole.header("content-type")) == (400, "application/json")
        assert whole.json() == last
