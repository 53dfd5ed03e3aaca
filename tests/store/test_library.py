"""The library while its configuration changes: a job under way ends as it began, the next goes by the new one."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.config.tables import ModelTable
from hyperllamad.core.errors import InUseError
from hyperllamad.store import catalog
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from tests.store.files import small_gguf


async def test_a_configuration_that_comes_during_a_job_is_the_next_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(tmp_path, {"HOME": str(tmp_path)})
    (config.paths.models / "tiny@q4").mkdir(parents=True)
    (config.paths.models / "tiny@q4/x.gguf").write_bytes(small_gguf())
    for directory in (config.paths.models / "tiny@q4", config.paths.models):
        os.utime(directory, (1, 1))  # what has just changed would be looked at again in any case
    library = Library(config, ShortNames(()))
    looking, changed = threading.Event(), threading.Event()
    survey = catalog.survey

    def slow(*args: Any) -> Any:
        found = survey(*args)
        looking.set()
        assert changed.wait(10)
        return found

    monkeypatch.setattr(catalog, "survey", slow)
    named = (ModelTable(name="named", path="tiny@q4"),)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(library.copy, "tiny:q4", "second")
        await anyio.to_thread.run_sync(looking.wait)
        library.configure(msgspec.structs.replace(config, model=named), ShortNames(()))
        changed.set()
    with pytest.raises(InUseError, match=r"'named:latest' is named in the configuration"):
        await library.delete("named")
    await library.delete("second")
