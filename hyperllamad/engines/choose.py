"""Which engine serves a model.  Pure: the homes that could are an argument.

1. The engine stated for the model, or none.
2. Else any engine whose home does not refuse the model: homes for the GPU first where there is one, then base.NAMES'
   order, then the order of the homes.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperllamad.core.errors import NoEngineError
from hyperllamad.core.models import Model
from hyperllamad.engines import base
from hyperllamad.engines.base import Engine, Home


def choose(model: Model, homes: Sequence[Home], *, device: str) -> Home:
    """The home to run `model` in; `device` is the best this machine has, "cpu" or "cuda".

    Raises NoEngineError: why each engine cannot, and what to install.
    """
    if model.engine and model.engine not in base.NAMES:
        raise NoEngineError(
            f"'{model.name}' is set to run on \"{model.engine}\", which is no engine",
            hint=f"the engines are {', '.join(base.NAMES)}",
        )
    able = [home for home in homes if not _refusal(model, home, device)]
    wanted = [home for home in able if home.engine == model.engine] if model.engine else able
    if not wanted:
        raise _no_engine(model, homes, able, device)
    return min(wanted, key=lambda home: (home.device != device, base.NAMES.index(home.engine)))


def _refusal(model: Model, home: Home, device: str) -> str:
    if home.device == "cuda" and device != "cuda":
        return "it is installed for NVIDIA GPUs, and there is none here"
    return base.load(home.engine).refusal(model, home)


def _no_engine(model: Model, homes: Sequence[Home], able: Sequence[Home], device: str) -> NoEngineError:
    names = (model.engine,) if model.engine else base.NAMES
    reasons = [f"{base.load(name).title}: {_reason(model, name, homes, device)}" for name in names]
    start = (
        f"'{model.name}' is set to run on {model.engine}, which cannot"
        if model.engine
        else (f"no engine here can run '{model.name}'")
    )
    hints = [f"`hyperllamactl engine install {name}`" for name in names if _would(model, name, homes, device)]
    others = dict.fromkeys(base.load(home.engine).title for home in able)
    if others:
        hints.append(f"{' or '.join(others)} could run it: take `engine` out of its file")
    elif model.engine and not hints:
        possible = [name for name in base.NAMES if _would(model, name, homes, device)]
        hints += [f"without `engine` in its file, `hyperllamactl engine install {name}`" for name in possible[:1]]
    if model.quantize:
        hints.append("take `quantize` out of its file")
    return NoEngineError(f"{start}: {'; '.join(reasons)}", hint=", or ".join(hints))


def _reason(model: Model, name: str, homes: Sequence[Home], device: str) -> str:
    """Why an engine cannot: what its homes say, or what it would say if it had one."""
    said = [_refusal(model, home, device) for home in homes if home.engine == name]
    if said:
        return said[0]
    return base.load(name).refusal(model, _imagined(base.load(name), device)) or "not installed"


def _would(model: Model, name: str, homes: Sequence[Home], device: str) -> bool:
    """Whether installing the engine would help."""
    fits = [home for home in homes if home.engine == name and home.device in {"cpu", device}]
    return not fits and not base.load(name).refusal(model, _imagined(base.load(name), device))


def _imagined(engine: Engine, device: str) -> Home:
    variant = device if device in engine.variants else next(iter(engine.variants))
    return Home(id="", engine=engine.name, version=engine.version, variant=variant, path="", python="")
