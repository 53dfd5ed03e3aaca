"""Pulls that are cut off, stalled or killed go on where they were."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Semaphore

import pytest

from hyperllamad.core.errors import PullFailedError
from hyperllamad.store import fetching
from tests.store import hub as hub_module
from tests.store.hub import Hub
from tests.store.pulling import CHUNK, MIB, Open, big_gguf, environ_of, request


async def test_a_cut_connection_goes_on_where_it_was(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    for after in (MIB, 2 * MIB, 1000):
        hub.fail("m.gguf", cut_after=after)
    async with opened() as store:
        await store.pull()
        assert store.listed() == ["hf.co/org/repo:latest"]
    begins = hub.ranges["m.gguf"]
    assert begins[0] == 0
    assert begins == sorted(begins)
    assert begins[1] > MIB - hub_module.PIECE * 5
    assert hub.served["m.gguf"] < len(content) + MIB


async def test_a_cut_that_stays(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    hub.fail("m.gguf", cut_after=2 * MIB)
    hub.fail("m.gguf", status=503, times=99)
    async with opened() as store:
        with pytest.raises(PullFailedError, match=r"has a fault of its own \(503\)"):
            await store.pull()
        kept = store.kept()
        assert 2 * MIB - 5 * hub_module.PIECE < kept <= 2 * MIB
        assert store.listed() == []
        hub.faults.clear()
        hub.served.clear()
        steps = await store.pull()
        assert next(step.completed for step in steps if step.digest) >= kept
        assert (hub.ranges["m.gguf"][-1], hub.served["m.gguf"]) == (kept, len(content) - kept)


async def test_a_stall(hub: Hub, opened: Open) -> None:
    content = big_gguf()
    hub.put("org/repo", {"m.gguf": content})
    hub.fail("m.gguf", stall_after=3 * MIB)
    async with opened() as store:
        await store.pull()
        assert store.listed() == ["hf.co/org/repo:latest"]
    assert hub.ranges["m.gguf"][-1] > 2 * MIB


def test_kill_at_ten_points(hub: Hub, tmp_path: Path) -> None:
    """Nothing that was kept is fetched again, and in the end the model is whole."""
    content = big_gguf(12)
    hub.put("org/repo", {"m.gguf": content})
    target = tmp_path / "models" / "m@latest"
    points = sorted(random.Random(4).sample(range(1, len(content) - MIB, 4096), 10))
    argv, environ = (sys.executable, "-m", "hyperllamad.store.fetching"), environ_of(hub, tmp_path)
    kept, killed, grown = 0, 0, 0
    for number, point in enumerate(points):
        pieces = max(0, point - kept) // hub_module.PIECE + 5
        gate = hub.gates["m.gguf"] = Semaphore(pieces)
        # Every other one is killed as soon as the hub has sent all it may, the others when they have written it down.
        least = kept + (pieces * hub_module.PIECE // CHUNK * CHUNK if number % 2 else 0)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environ) as child:
            assert child.stdin is not None
            child.stdin.write(request(hub, target))
            child.stdin.flush()
            end = time.monotonic() + 30
            while len(hub.ranges.get("m.gguf", ())) <= number or gate._value or _kept(target) < least:
                assert time.monotonic() < end
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
        killed += child.returncode == -signal.SIGKILL
        assert not target.exists()
        assert hub.ranges["m.gguf"][number] == kept
        assert _kept(target) >= kept
        grown += _kept(target) > kept
        kept = _kept(target)
    assert killed == 10
    assert grown >= 5
    hub.gates.clear()
    hub.served.clear()
    done = subprocess.run(argv, input=None, stdin=_pipe(request(hub, target)), stdout=subprocess.PIPE, env=environ)
    assert b'"type":"placed"' in done.stdout
    assert hub.ranges["m.gguf"][-1] == kept
    assert hub.served["m.gguf"] == len(content) - kept
    assert (target / "m.gguf").read_bytes() == content


def _kept(target: Path) -> int:
    incoming = target.with_name(f".{target.name}.partial") / fetching.INCOMING
    return sum(path.stat().st_size for path in incoming.iterdir()) if incoming.exists() else 0


def _pipe(content: bytes) -> int:
    """A pipe that holds `content` and stays open, as a living parent's does."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.set_inheritable(writer, False)
    _OPEN.append(writer)
    return reader


_OPEN: list[int] = []


def test_the_child_ends_with_its_parent(hub: Hub, tmp_path: Path) -> None:
    hub.put("org/repo", {"m.gguf": big_gguf()})
    hub.gates["m.gguf"] = Semaphore(10)
    argv = (sys.executable, "-m", "hyperllamad.store.fetching")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ_of(hub, tmp_path)) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(request(hub, tmp_path / "m"))
        child.stdin.flush()
        assert b"plan" in child.stdout.readline()
        child.stdin.close()
        assert child.wait(10) == 1
