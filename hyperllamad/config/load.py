"""Files and environment become one frozen Config, whole and checked, or a ConfigError."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hyperllamad.config.checks import check_values
from hyperllamad.config.environment import with_environment
from hyperllamad.config.paths import default_directory, resolve
from hyperllamad.config.tables import Config, EngineTable, File, ModelTable
from hyperllamad.config.toml_file import decode


def load_config(directory: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read `directory` (default: the user's, else the system's) and the environment; raises ConfigError."""
    directory = directory or default_directory(environ)
    main = directory / "hyperllamad.toml"
    file = decode(main, File) if main.exists() else File()
    engines = {p.stem: decode(p, EngineTable) for p in sorted((directory / "engines.d").glob("*.toml"))}
    models = tuple(decode(p, ModelTable) for p in sorted((directory / "models.d").glob("*.toml")))
    file = with_environment(file, environ)
    config = Config(
        server=file.server,
        fleet=file.fleet,
        models=file.models,
        engines=file.engines,
        keys=file.keys,
        admin=file.admin,
        paths=resolve(file.paths, directory, environ),
        engine=engines,
        model=models,
    )
    check_values(config, main)
    return config
