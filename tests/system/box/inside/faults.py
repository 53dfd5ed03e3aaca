"""What breaks, and how it comes back."""

from __future__ import annotations

import http.client
import json
import os
import signal

from lib import MODEL, ask, chat, check, eventually, instances, load, processes, running, sh, show


def _stream() -> http.client.HTTPResponse:
    """An answer that has begun, and takes a while."""
    connection = http.client.HTTPConnection("127.0.0.1", 11434, timeout=60)
    options = {"num_predict": 100, "temperature": 0}
    body = {"model": MODEL, "prompt": "Tell me a long story.", "options": options}
    connection.request("POST", "/api/generate", json.dumps(body))
    answer = connection.getresponse()
    assert "response" in json.loads(answer.readline())
    return answer


@check("kill -9 of an engine: its answer goes on on the next one or ends with the reason, and requests are answered")
def _() -> None:
    chat()
    (row,) = instances()
    answer = _stream()
    os.kill(row["pid"], signal.SIGKILL)
    last = json.loads(answer.read().splitlines()[-1])
    assert "error" in last or last["done"], last
    assert chat()
    assert instances()[0]["pid"] != row["pid"]


@check("an engine that hangs is noticed, replaced, and the request that met it is answered")
def _() -> None:
    (row,) = instances()
    os.kill(row["pid"], signal.SIGSTOP)
    assert chat()
    assert instances()[0]["pid"] != row["pid"]
    assert not running(row["pid"])


@check("kill -9 of the daemon: it comes back, answers, and nothing of the engine before is left")
def _() -> None:
    before, main = processes(), show("MainPID")
    sh("systemctl kill --signal=KILL --kill-whom=main hyperllamad")
    assert chat()
    assert show("MainPID") != main
    eventually(lambda: not any(running(pid) for pid in before), within=20, what="the old processes are gone")


@check("restart under load: nobody is refused")
def _() -> None:
    main = show("MainPID")
    with load() as wrong:
        sh("systemctl restart hyperllamad")
        assert show("MainPID") != main
    assert wrong == [], wrong


@check("a daemon that hangs is noticed by the watchdog and replaced")
def _() -> None:
    # Sooner than as packaged, which is a minute: this is about what happens then.
    sh("mkdir -p /run/systemd/system/hyperllamad.service.d")
    sh("printf '[Service]\\nWatchdogSec=10\\n' >/run/systemd/system/hyperllamad.service.d/watchdog.conf")
    sh("systemctl daemon-reload && systemctl restart hyperllamad")
    main, invocation = int(show("MainPID")), show("InvocationID")
    os.kill(main, signal.SIGSTOP)
    eventually(lambda: show("InvocationID") not in {"", invocation}, within=60, what="a new life")
    assert "Watchdog timeout" in sh("journalctl -u hyperllamad -o cat --since=-2min"), "it was the watchdog"
    eventually(lambda: ask("/api/version"), within=20, what="it answers")
    assert chat()
