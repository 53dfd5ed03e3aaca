"""A `llama-server` for PATH that is the fake engine: with it a whole daemon, as it is, runs fake engines.

with fake_llama_server.installed(tmp_path) as environ:
    with daemon({"m": {"path": fake_llama_server.model(tmp_path), "args": ["--slow", "1"]}}, environ=environ, ...)

The vices of tests/fake_engine.py are the `args` of a model.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from tests.store.files import Tensor, gguf_bytes

ENGINE = Path(__file__).parent / "fake_engine.py"
# Its own arguments end with --metrics (engines/llama_cpp.py); a model's come after them.
SCRIPT = """#!{python}
import os, sys
own = sys.argv.index("--metrics")
socket = sys.argv[sys.argv.index("--host") + 1]
os.execv(sys.executable, [sys.executable, "-I", "-S", {engine!r}, "--socket", socket, *sys.argv[own + 1 :]])
"""


def installed(directory: Path) -> dict[str, str]:
    """Put it into `directory`; the environment in which it is found, and no other engine."""
    program = directory / "llama-server"
    program.write_text(SCRIPT.format(python=sys.executable, engine=str(ENGINE)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def model(directory: Path, name: str = "m") -> str:
    """The path of a GGUF that is whole, and too small to be anything."""
    path = directory / f"{name}.gguf"
    keys = {"general.architecture": "llama", "general.name": name, "llama.context_length": 4096}
    tensor = Tensor("output.weight", (32,), 0, os.urandom(128))
    path.write_bytes(gguf_bytes(keys, [tensor]))
    return str(path)
