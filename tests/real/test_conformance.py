"""Every recorded case, in the order of the recording, against the daemon with the demo model on each real engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.request
from typing import Any

import pytest

from tests.conformance import deviations, facts
from tests.daemon import Daemon, eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

# sha256 of "hello": the recorded server had this blob already.
HELLO = "/api/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def ask(port: int, case: dict[str, Any]) -> dict[str, Any]:
    """The facts of the reply; nothing is sent that the case does not name, but for a JSON body's type and length."""
    raw = case.get("raw")
    body = raw if raw is not None else json.dumps(case["body"]) if "body" in case else None
    headers = ({"Content-Type": "application/json"} if "body" in case else {}) | case.get("headers", {})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
        connection.putrequest(case["method"], case["path"], skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None or case["method"] == "POST":
            connection.putheader("Content-Length", str(len((body or "").encode())))
        connection.endheaders(None if body is None else body.encode())
        reply = connection.getresponse()
        first = {name.lower(): value for name, value in reversed(reply.getheaders())}
        return facts.facts(reply.status, first, reply.read())


def test_the_recorded_cases(served: Daemon, engine: str) -> None:
    urllib.request.urlopen(urllib.request.Request(served.url + HELLO, data=b"hello", method="POST")).close()
    recorded, found = facts.golden(), {}
    for case in facts.cases():
        if "sleep" in case:  # the recorded server was given a moment to unload; ours is asked whether it has
            eventually(lambda: served.ps() == [], within=120, what="the model is unloaded")
        found[case["id"]] = facts.compare(case, recorded[case["id"]], ask(served.port, case))
    assert deviations.unexpected(engine, found) == []
    assert len(found) == 111
