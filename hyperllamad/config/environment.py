"""The environment variables that users of Ollama have set already, and what they change.

Meanings and tolerance are those of Ollama's envconfig: what it cannot read counts as not set.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hyperllamad.config.tables import File
from hyperllamad.config.values import parse_seconds
from hyperllamad.core.errors import BadRequestError


def with_environment(file: File, environ: Mapping[str, str]) -> File:
    """The environment wins over the file, as an Ollama user expects of `OLLAMA_X=... hyperllamad`."""

    def text(name: str) -> str:
        return environ.get(name, "").strip().strip("\"'")

    def number(name: str, default: int) -> int:
        # Ollama takes its default for an unsigned number it cannot read.
        return int(value) if (value := text(name)).isdecimal() else default

    server, fleet, models = file.server, file.fleet, file.models
    server = msgspec.structs.replace(
        server,
        host=text("OLLAMA_HOST") or server.host,
        origins=(*server.origins, *filter(None, (o.strip() for o in text("OLLAMA_ORIGINS").split(",")))),
        debug=server.debug or text("OLLAMA_DEBUG").lower() not in {"", "0", "f", "false"},
    )
    fleet = msgspec.structs.replace(
        fleet,
        keep_alive=_environment_duration(text("OLLAMA_KEEP_ALIVE"), fleet.keep_alive),
        max_loaded_models=number("OLLAMA_MAX_LOADED_MODELS", fleet.max_loaded_models),
        max_queue=number("OLLAMA_MAX_QUEUE", fleet.max_queue),
        load_timeout=_environment_duration(text("OLLAMA_LOAD_TIMEOUT"), fleet.load_timeout),
        gpu_overhead=str(number("OLLAMA_GPU_OVERHEAD", 0) or fleet.gpu_overhead),
        spread=fleet.spread or text("OLLAMA_SCHED_SPREAD").lower() not in {"", "0", "f", "false"},
    )
    models = msgspec.structs.replace(
        models,
        context=number("OLLAMA_CONTEXT_LENGTH", models.context),
        parallel=number("OLLAMA_NUM_PARALLEL", models.parallel),
    )
    return msgspec.structs.replace(file, server=server, fleet=fleet, models=models)


def _environment_duration(text: str, default: str) -> str:
    """The text where it is a duration; the default for anything else, as Ollama does."""
    try:
        parse_seconds(text)
    except BadRequestError:
        return default
    return text
