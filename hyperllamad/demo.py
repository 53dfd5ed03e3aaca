"""`hyperllamad --demo ENGINE`: from an empty machine to a model that answers.  Installs what is missing, then greets.

Must not know how an engine is installed or a model converted; engines/install.py and store/demo.py do.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from hyperllamad.config.tables import Config, ModelTable
from hyperllamad.core.durations import FOREVER
from hyperllamad.core.errors import BadRequestError, HyperLlamaError
from hyperllamad.core.models import Format
from hyperllamad.engines import base
from hyperllamad.engines.homes import Homes
from hyperllamad.engines.install import install
from hyperllamad.packages import Progress
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.demo import NAME, ensure_demo
from hyperllamad.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)


async def prepare(config: Config, engine: str) -> ModelTable:
    """Install `engine` and the demo model where they are missing; the demo model's entry for the configuration."""
    if engine not in base.NAMES:
        raise BadRequestError(f"no engine is called '{engine}'", hint=f"there are {', '.join(base.NAMES)}")
    homes, say = Homes(config.paths.engines, config.engine), Steps(_print)
    if homes.current(engine) is None:
        await install(base.load(engine), homes=homes, table=config.engine_table(engine), on_progress=say)
    wanted = Format.GGUF if Format.GGUF in base.load(engine).formats else Format.SAFETENSORS
    path = await ensure_demo(config.paths, wanted, on_progress=say)
    return ModelTable(name=NAME, path=str(path), engine=engine)


def with_model(config: Config, entry: ModelTable) -> Config:
    """The configuration with `entry` in the place of any other of its name."""
    others = tuple(model for model in config.model if model.name != entry.name)
    return msgspec.structs.replace(config, model=(*others, entry))


async def greet(catalog: Catalog, supervisor: Supervisor, url: str) -> None:
    """Load the demo model and say how to talk to it; a failure is logged and the daemon stays up."""
    began = time.monotonic()
    model = catalog.resolve(NAME)
    lease = supervisor.lease(model, keep_alive=FOREVER)
    try:
        upstream = await lease.granted()
        title = upstream.engine.title
    except HyperLlamaError as failure:
        log.error("the demo model cannot be served: %s", failure)
        return
    finally:
        lease.release()
    message = '{"model": "%s", "messages": [{"role": "user", "content": "Hello!"}], "stream": false}' % NAME  # noqa: UP031
    _print(f"""
  Serving {NAME} with {title} at {url} (loaded in {time.monotonic() - began:.1f} s)

  Try:
    curl {url}/api/chat -d '{message}'
    {_command("hyperllamactl")} ps

  Ctrl-C stops it.
""")


class Steps:
    """An installation's progress as lines: one for each step, however often a step reports how far it has come."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last = ("", "")

    def __call__(self, progress: Progress) -> None:
        step = (progress.phase, progress.detail)
        if step != self._last:
            self._write(f"  {progress.phase}: {progress.detail}" if progress.detail else f"  {progress.phase}")
            self._last = step


def _print(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _command(name: str) -> str:
    """How to call a program that lies beside our own interpreter, from where the user stands."""
    path = Path(sys.executable).with_name(name)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
