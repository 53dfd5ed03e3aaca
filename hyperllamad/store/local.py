"""Models that lie elsewhere on this machine, registered without copying: a directory of links in the store.

What belongs to others stays theirs: deleting such a model removes the links, never what they lead to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hyperllamad.core.errors import BadRequestError, InUseError, LoadFailedError
from hyperllamad.core.models import Model
from hyperllamad.core.names import ModelName
from hyperllamad.store import disk, layout, staging
from hyperllamad.store.inspect import inspect
from hyperllamad.store.steps import OnStep, Step


def register(
    name: ModelName, target: Path, source: Path, on_step: OnStep, *, accept: Callable[[Model], None] = lambda _: None
) -> None:
    """Make `target` of links to the model at `source`, a GGUF file or a Hugging Face directory.

    `accept` may refuse the model by raising.
    Raises BadRequestError (relative, not there, not readable by the daemon, not a model), InUseError, StoreError.
    """
    if not source.is_absolute():
        raise BadRequestError(f"{source} is not an absolute path", hint="begin at the root: /srv/models/x.gguf")
    try:
        location = layout.locate(source)
        unreadable = [str(file) for file in location.files if not os.access(file, os.R_OK)]
        if unreadable:
            hint = "the daemon's user must be able to read it, and to enter every directory on the way"
            raise BadRequestError(f"{unreadable[0]} may not be read by the daemon", hint=hint)
        accept(inspect(name, location))
    except LoadFailedError as failure:
        raise BadRequestError(failure.message, hint=failure.hint) from failure
    on_step(Step(f"linking {source}"))
    try:
        with disk.explained(f"the model {name.short}"), staging.stage(target, replace=True) as work:
            for file in _files(location):
                (work / file.name).symlink_to(file)
    except LoadFailedError as failure:  # from staging: a disk that refuses, or another process
        if isinstance(failure.__cause__, OSError):
            raise disk.refusal(f"the model {name.short}", failure.__cause__) from failure
        raise InUseError(failure.message, hint=failure.hint) from failure


def _files(location: layout.Location) -> list[Path]:
    """Everything of the model: all parts of a GGUF, or what lies in a Hugging Face directory."""
    if location.directory is None or location.path != location.directory:
        return [*location.files, *([location.license] if location.license else [])]
    return sorted(entry for entry in location.directory.iterdir() if not entry.name.startswith("."))
