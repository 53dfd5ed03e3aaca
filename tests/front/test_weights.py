"""Two clients fill one model through the real front: the weights of their keys decide who gets how much of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp

from tests.daemon import Daemon, daemon
from tests.faults.house import TEMPLATE
from tests.store.files import gguf_bytes

ANSWERS = 100  # to be counted
OPEN = 12  # requests that each client has open all the time, three times as many as the model answers at once


async def share(running: Daemon, names: tuple[str, ...]) -> Counter[str]:
    """How many answers each key had when ANSWERS were complete."""
    answers: Counter[str] = Counter()

    async def ask(session: aiohttp.ClientSession, name: str) -> None:
        headers = {"Authorization": f"Bearer hl-{name}"}
        while answers.total() < ANSWERS:
            body = {"model": "m", "prompt": "count", "stream": False}
            async with session.post("/api/generate", json=body, headers=headers) as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()
            if answers.total() < ANSWERS:
                answers[name] += 1

    async with aiohttp.ClientSession(running.url, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session, name) for name in names for _ in range(OPEN)))
    return answers


WEIGHTS = {"heavy": 3.0, "light": 1.0, "one": 1.0, "other": 1.0}


async def test_answers_are_shared_by_the_weights_of_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    stated = (f'[[key]]\nname = "{name}"\nkey = "hl-{name}"\nweight = {weight}\n' for name, weight in WEIGHTS.items())
    keys.write_text("".join(stated))
    keys.chmod(0o600)
    model = tmp_path / "m.gguf"
    metadata = {"general.architecture": "llama", "llama.context_length": 4096, "tokenizer.chat_template": TEMPLATE}
    model.write_bytes(gguf_bytes(metadata, []))
    table = {"path": str(model), "engine": "llama_cpp", "args": ["--token-delay", "0.003"], "parallel": 4}
    main = f"[keys]\nrequired = true\nfile = '{keys}'\n"
    environ = {"PYTHONPATH": str(Path.cwd())}
    with daemon({"m": table}, main=main, module="tests.faults.fake_daemon", environ=environ) as running:
        uneven = await share(running, ("heavy", "light"))
        even = await share(running, ("one", "other"))
    assert 0.69 < uneven["heavy"] / ANSWERS < 0.81, uneven  # three quarters
    assert 0.44 < even["one"] / ANSWERS < 0.56, even
