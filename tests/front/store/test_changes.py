"""POST /api/copy and DELETE /api/delete, and what all routes that change the store refuse at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.front.store.asks import J, names
from tests.front.store.conftest import Opened


async def test_copy_and_delete(open_house: Opened) -> None:
    async with open_house as h:
        reply = await h.client.post("/api/copy", {"source": "m", "destination": "n"})
        assert (reply.status, reply.body, reply.header("content-type")) == (200, b"", None)
        assert await names(h) == ["m:latest", "n:latest"]
        for body in ({"name": "m"}, {"model": "n"}):  # the first leaves the files, the second uses them
            reply = await h.client.ask("DELETE", "/api/delete", body)
            assert (reply.status, reply.body) == (200, b"")
        assert await names(h) == []


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        (("POST", "copy", {"source": "M", "destination": "bad name"}), 400, 'destination "bad name" is invalid'),
        (("POST", "copy", {"source": "no", "destination": "n"}), 404, 'model "no" not found'),
        (("DELETE", "delete", {"model": "a b"}), 400, 'name "a b" is invalid'),
        (("DELETE", "delete", {"name": "no"}), 404, "model 'no' not found"),
        (("POST", "pull", {"name": "bad name"}), 400, "invalid model name"),
        (("POST", "create", {"model": "bad name", "from": "m"}), 400, "invalid model name"),
        (("POST", "push", {}), 400, "model is required"),
        (("POST", "pull", {"model": "m", "insecure": "x"}), 400,
         "json: cannot unmarshal string into Go struct field PullRequest.insecure of type bool"),
        (("POST", "blobs/sha256:12", {}), 400, "invalid digest format"),
        (("POST", "create", {"files": ["x"]}), 400,
         "json: cannot unmarshal array into Go struct field CreateRequest.files of type map[string]string"),
    ],
)  # fmt: skip
async def test_refused_at_once(
    open_house: Opened, asked: tuple[str, str, dict[str, Any]], status: int, error: str
) -> None:
    method, path, body = asked
    async with open_house as h:
        reply = await h.client.ask(method, f"/api/{path}", body)
        assert (reply.status, reply.header("content-type"), reply.json()) == (status, J, {"error": error})
