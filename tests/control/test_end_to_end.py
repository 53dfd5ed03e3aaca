"""The real command line, as a process, against the real app on a real socket; only the rooms below are fake."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from subprocess import PIPE, CompletedProcess

import anyio
import pytest

from hyperllamactl.exits import Exit
from hyperllamad.core.instance import State
from tests.control.conftest import QWEN, SMOL, Door, outsider


def words(door: Door, *command: str) -> list[str]:
    return [sys.executable, "-m", "hyperllamactl", "--socket", str(door.path), *command]


async def run(door: Door, *command: str) -> CompletedProcess[bytes]:
    return await anyio.run_process(words(door, *command), check=False)


async def test_ps_as_text_and_as_json(door: Door) -> None:
    door.supervisor.show(SMOL, State.READY, until=None)
    text = await run(door, "ps")
    assert (text.returncode, text.stderr) == (0, b"")
    head, row = text.stdout.decode().splitlines()
    assert " ".join(head.split()) == "NAME ID SIZE PROCESSOR CONTEXT UNTIL STATE ENGINE RUN/WAIT RST"
    assert " ".join(row.split()) == "smollm2:135m abababababab 250 MB 100% CPU 4096 Forever ready llama_cpp 0/0 0"
    document = json.loads((await run(door, "ps", "--json")).stdout)
    assert document["instances"][0]["name"] == "smollm2:135m"


async def test_load_shows_progress_and_succeeds(door: Door) -> None:
    door.supervisor.show(SMOL, State.STARTING, phase="weights")
    async with anyio.create_task_group() as tasks:

        async def become_ready() -> None:
            await door.supervisor.leased.wait()
            door.supervisor.show(SMOL, State.READY)
            door.supervisor.leases[0].answer()

        tasks.start_soon(become_ready)
        done = await run(door, "load", "smollm2:135m", "--keep-alive", "-1")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"smollm2:135m is ready on llama_cpp after" in done.stderr
    assert door.supervisor.leases[0].keep_alive == float("inf")


@pytest.mark.parametrize(
    ("command", "exit_"),
    [
        (["show", "nope"], Exit.NO_SUCH),
        (["show", "a:b/"], Exit.USAGE),
        (["unload", "smollm2:135m"], Exit.NOT_LOADED),
        (["load", "qwen3:8b"], Exit.NO_FIT),
        (["engine", "remove", "vllm"], Exit.NOT_LOADED),
    ],
)
async def test_exit_codes(command: list[str], exit_: Exit, door: Door) -> None:
    door.supervisor.refused.add(QWEN.digest)
    ran = await run(door, *command)
    assert (ran.returncode, ran.stdout) == (exit_, b"")
    assert ran.stderr.startswith(b"hyperllamactl: ")


async def test_a_reader_is_told_how_to_become_an_administrator(door: Door) -> None:
    door.peer = outsider()
    ran = await run(door, "load", "smollm2:135m")
    assert ran.returncode == Exit.NOT_PERMITTED
    assert b"usermod -aG hyperllama" in ran.stderr


async def test_ctrl_c_takes_back_the_wish_to_load(door: Door) -> None:
    async with await anyio.open_process(words(door, "load", "smollm2:135m"), stdout=PIPE, stderr=PIPE) as process:
        try:
            await door.supervisor.leased.wait()
            process.send_signal(signal.SIGINT)
            with anyio.fail_after(10):
                await door.supervisor.leases[0].released.wait()
                assert await process.wait() == Exit.INTERRUPTED
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
