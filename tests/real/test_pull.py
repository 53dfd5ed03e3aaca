"""Pulls of the demo model by a real daemon from a hub of our own, by every way there is, and a chat with what came.

The hub speaks the real one's HTTP to the real client; the daemon is killed in the middle of it, ten times.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Semaphore

import ollama
import pytest

from hyperllamad.supervision import procfs
from tests.daemon import INSTALLED, Daemon, daemon, eventually
from tests.real.conftest import answer
from tests.store import hub as hub_module
from tests.store.hub import PIECE, Hub

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]  # it starts a dozen processes, one after the other

FILE = "SmolLM2-135M-Instruct-Q4_1.gguf"
NAME = "hf.co/org/demo"
STEP = 1 << 20  # bytes that the hub sends between two looks


@pytest.fixture(scope="module")
def content() -> bytes:
    found = next(INSTALLED.models.rglob("*.gguf"), None)
    assert found is not None, "`make engines` installs the demo model"
    return found.read_bytes()


@pytest.fixture
def hub(content: bytes) -> Iterator[Hub]:
    with hub_module.serve() as hub:
        hub.put("org/demo", {FILE: content, "README.md": b"read me" * 100, "LICENSE": b"Apache License 2.0"})
        yield hub


@pytest.fixture
def running(hub: Hub, tmp_path: Path) -> Iterator[Daemon]:
    environ = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", "HF_TOKEN": ""}
    with daemon({}, environ=environ) as started:
        yield started


def pull(running: Daemon) -> Iterator[dict[str, object]]:
    """POST /api/pull, line by line; ends where the answer does, also when the daemon dies."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    try:
        connection.request("POST", "/api/pull", json.dumps({"model": NAME}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        for line in response:
            yield json.loads(line)
    except (OSError, http.client.HTTPException, ValueError):
        return
    finally:
        connection.close()


def names(running: Daemon) -> list[str]:
    with ollama.Client(running.url) as client:
        return [model.model or "" for model in client.list().models]


def kept(running: Daemon) -> int:
    """Bytes of the file that lie on the disk, for the next pull to go on from."""
    incoming = (running.root / "state" / "models").rglob("*.partial/.incoming/*")
    return sum(path.stat().st_size for path in incoming)


def sent(hub: Hub, gate: Semaphore, requests: int, amount: int) -> bool:
    """Whether that many requests have come and the file has grown by so much more; if not, the hub may send on."""
    begun = len(hub.ranges.get(FILE, ())) >= requests
    if begun and hub.served[FILE] < amount and not gate._value:
        gate.release(STEP // PIECE)
    return begun and hub.served[FILE] >= amount


def test_every_way_to_pull_and_a_chat_after_each(running: Daemon, hub: Hub, content: bytes) -> None:
    def through_http() -> None:
        lines = list(pull(running))
        assert (lines[0], lines[-1]) == ({"status": "pulling manifest"}, {"status": "success"})
        (layer,) = {line["digest"] for line in lines if "digest" in line and line["total"] == len(content)}
        seen = [line.get("completed", 0) for line in lines if line.get("digest") == layer]
        assert seen == sorted(seen)  # type: ignore[type-var]
        assert seen[-1] == len(content)

    def through_ollama() -> None:
        with ollama.Client(running.url) as client:
            steps = list(client.pull(NAME, stream=True))
        assert steps[-1].status == "success"
        assert max(step.completed or 0 for step in steps) == len(content)

    def through_ctl() -> None:
        done = running.ctl("pull", NAME)
        assert f"{FILE}  98 MB" in done.stderr
        assert done.stderr.splitlines()[-1] == f"{NAME}:latest is here"

    for number, way in enumerate((through_http, through_ollama, through_ctl), 1):
        way()
        assert hub.served[FILE] == number * len(content)
        assert hub.served["README.md"] == 0
        assert "Paris" in answer(running.url, NAME)
        running.ctl("unload", NAME)
        running.ctl("rm", NAME)
        assert names(running) == []


@pytest.mark.long
def test_killed_ten_times_in_the_middle(running: Daemon, hub: Hub, content: bytes) -> None:
    """Nothing is listed before it is whole; what was kept is never fetched again; what is listed at last answers."""
    chance = random.Random(4)
    gate, begins = hub.gates.setdefault(FILE, Semaphore(0)), []
    for number in range(1, 11):
        begins.append(kept(running))
        puller = threading.Thread(target=lambda: list(pull(running)))
        puller.start()
        until = partial(sent, hub, gate, number, hub.served[FILE] + chance.randrange(len(content) // 14))
        eventually(until, within=60, what="so much has been sent")
        assert running.process is not None
        children = [one.pid for one in procfs.processes() if one.parent == running.process.pid]
        assert children
        running.kill()
        puller.join()
        eventually(lambda: not any(map(procfs.process, children)), within=20, what="the download has ended")  # noqa: B023
        running.start()
        assert names(running) == []
    begins.append(kept(running))
    gate.release(len(content))
    assert list(pull(running))[-1] == {"status": "success"}
    assert names(running) == [f"{NAME}:latest"]
    assert hub.ranges[FILE] == begins  # each went on exactly where the last one ended
    assert begins == sorted(begins)
    assert begins[-1] > 0
    assert "Paris" in answer(running.url, NAME)


def test_create_from_a_modelfile(running: Daemon, content: bytes, tmp_path: Path) -> None:
    """Of a file that lies elsewhere: nothing is copied, what the Modelfile adds is obeyed."""
    source, modelfile = tmp_path / "elsewhere.gguf", tmp_path / "Modelfile"
    source.write_bytes(content)
    lines = [
        f"FROM {source}",
        'SYSTEM """You are a helpful assistant."""',
        "PARAMETER temperature 0",
        "PARAMETER num_predict 3",
    ]
    modelfile.write_text("\n".join([*lines, "PARAMETER num_predikt 3"]))
    refused = running.ctl("create", "short", "-f", str(modelfile), check=False)
    assert refused.returncode != 0
    assert f"{modelfile}: line 5: there is no parameter" in refused.stderr
    modelfile.write_text("\n".join(lines))
    running.ctl("create", "short", "-f", str(modelfile))
    stored = sum(path.lstat().st_size for path in (running.root / "state" / "models").rglob("*"))
    assert stored < len(content) // 10
    with ollama.Client(running.url, timeout=120) as client:
        said = client.chat("short", [{"role": "user", "content": "What is the capital of France?"}])
    assert (said.eval_count, said.done_reason) == (3, "length")
    running.ctl("unload", "short")
    running.ctl("rm", "short")
    assert source.read_bytes() == content
