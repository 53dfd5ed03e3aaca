"""A daemon over fake engines as a process of its own, and clients that know what to expect of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hyperllamactl.client import CallError, Client
from hyperllamactl.protocol.instances import InstanceRow, Instances, Ps, Unload
from tests.daemon import Daemon, daemon
from tests.fake_engine import WORDS
from tests.store.files import gguf_bytes

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def answer_of(words: int) -> str:
    """What a fake engine in good order says."""
    return " ".join(itertools.islice(itertools.cycle(WORDS), words))


@contextlib.contextmanager
def fakes(
    root: Path,
    models: Mapping[str, Sequence[str]],
    *,
    main: str = "",
    server: str = "",
    parallel: int = 256,
    environ: Mapping[str, str] = MappingProxyType({}),
    tables: dict[str, str] | None = None,
) -> Iterator[Daemon]:
    """A started daemon; `models` are names and vices, each with a file of its own; `tables` are files of engines.d."""
    keys: dict[str, dict[str, Any]] = {}
    for name, vices in models.items():
        path = root / f"{name}.gguf"
        metadata = {"general.architecture": "llama", "general.name": name, "llama.context_length": 1 << 20}
        path.write_bytes(gguf_bytes(metadata | {"tokenizer.chat_template": TEMPLATE}, []))
        table = {"path": str(path), "engine": "llama_cpp", "args": list(vices), "context": 4096}
        keys[name] = {**table, "parallel": parallel}
    both = {"PYTHONPATH": str(Path.cwd()), **environ}
    module = "tests.faults.fake_daemon"
    with daemon(keys, main=main, server=server, module=module, environ=both, tables=tables) as running:
        yield running


def row(running: Daemon, model: str) -> InstanceRow | None:
    """What `hyperllamactl ps` would show of it, without a process for the asking."""
    client = Client([str(running.root / "run/admin.sock")], warn=print)
    rows = client.call(Ps(), Instances).instances
    return next((row for row in rows if row.name == f"{model}:latest"), None)


def unload(running: Daemon, model: str) -> None:
    """At once, and wait until it is gone; one that is not loaded does no harm."""
    client = Client([str(running.root / "run/admin.sock")], warn=print)
    with contextlib.suppress(CallError):
        for _ in client.stream(Unload(model=model, now=True)):
            pass


def chat(running: Daemon, model: str, words: int, **more: Any) -> Iterator[str]:
    """The pieces of an answer; raises AssertionError with the error that it ended with."""
    options = {"temperature": 0, "num_predict": words, **more.pop("options", {})}
    messages = [{"role": "user", "content": "count"}]
    body = {"model": model, "messages": messages, "options": options, **more}
    request = urllib.request.Request(f"{running.url}/api/chat", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            for line in reply:
                event = json.loads(line)
                if "error" in event:
                    raise AssertionError(event["error"])
                yield event["message"]["content"]
    except urllib.error.HTTPError as refusal:
        raise AssertionError(refusal.read().decode(errors="replace")) from refusal
