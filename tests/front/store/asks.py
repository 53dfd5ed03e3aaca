"""What the tests of the native routes that change the store have in common."""

from __future__ import annotations

import hashlib

from tests.front.conftest import House
from tests.front.scripted_engine import by_path

NOTHING = by_path({})
J = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
NOT_FOUND = "pull model manifest: file does not exist"
NAME = "hf.co/org/repo"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def names(h: House) -> list[str]:
    return sorted(item["name"] for item in (await h.client.get("/api/tags")).json()["models"])
