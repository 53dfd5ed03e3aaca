"""How a model is to be run: which engine home, which settings.  Decided anew for every request, so it must be quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyperllamad.config.tables import Config
from hyperllamad.core.errors import NoGpuError
from hyperllamad.core.gpu_health import Verdict
from hyperllamad.core.models import Device, Key, Model, Settings, Terms, key_of
from hyperllamad.core.names import ModelName
from hyperllamad.engines import base, choose, host
from hyperllamad.engines.base import Engine, Home
from hyperllamad.engines.homes import Homes

DEVICES = Path("/dev")
SHORTEST = 2048  # tokens; the shortest context that is planned because a request asks for one
DEFAULT_CONTEXT = 4096  # tokens; more costs memory that few conversations use
START_CPU, START_GPU = 2.0, 60.0  # seconds that a first start is thought to take, until it is known
LOAD_RATE = 500e6  # bytes of weights per second, likewise
PARALLEL = {"llama_cpp": 4}  # each slot takes its share of the context, so few
PARALLEL_OTHERS = {"cpu": 8, "cuda": 256}  # by device: engines that batch as requests come
MOST_PLANS = 1000  # that are remembered; beyond, all are made anew


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an instance needs to be started."""

    key: Key
    model: Model  # as it was named by the request that wanted it first
    settings: Settings
    home: Home
    engine: Engine
    pinned: bool = False

    def terms(self, device: Device) -> Terms:
        """What the fleet must know of it, by the engine's own estimate; `device` is one like those it will lie on."""
        settings, model = self.settings, self.model
        gpu = settings.device == "cuda"
        return Terms(
            need=self.engine.need(model, settings, self.home, device),
            gpu=gpu,
            parallel=settings.parallel,
            sleep_levels=self.engine.sleep_levels(model, settings, self.home),
            pinned=self.pinned,
            load_seconds=(START_GPU if gpu else START_CPU) + model.size / LOAD_RATE,
            slows=self.engine.slows,
            tells_begin=self.engine.probe.begins_early,
        )


@dataclass(frozen=True, slots=True)
class _Planned:
    """A plan, and what it was made of beside the configuration."""

    model: Model
    homes: tuple[Home, ...]
    verdict: Verdict
    grown: int  # tokens of context that requests asked for
    plan: Plan

    def holds(self, model: Model, homes: tuple[Home, ...], verdict: Verdict, grown: int) -> bool:
        """Whoever looked at the model or the homes and found them as they were hands in the same objects."""
        same = self.model is model and self.homes is homes
        return same and self.verdict == verdict and self.grown == grown


class Planner:
    """Plans from the configuration and the homes that are installed.  Made once for each model, until one changes."""

    def __init__(self, config: Config, homes: Homes, verdict: Callable[[], Verdict] | None = None) -> None:
        """`verdict` says whether there is a GPU to use now; without it, what the device files showed at start."""
        self._homes = homes
        fixed = Verdict(host.device())
        self._verdict = verdict or (lambda: fixed)
        self.configure(config)
        self._grown: dict[str, int] = {}  # digest -> tokens of context that requests asked for

    def configure(self, config: Config) -> None:
        """Plan by another configuration from now on."""
        self._config = config
        self._pinned = frozenset(ModelName.parse(name).key for name in config.fleet.pinned)
        self._planned: dict[ModelName, _Planned] = {}

    def plan(self, model: Model) -> Plan:
        """Raises NoEngineError when no installed engine can run the model here, NoGpuError when it wants a GPU."""
        homes, verdict, grown = self._homes.in_use(), self._verdict(), self._grown.get(model.digest, 0)
        known = self._planned.get(model.name)
        if known is None or not known.holds(model, homes, verdict, grown):
            known = _Planned(model, homes, verdict, grown, self._plan(model, homes, verdict, grown))
            if len(self._planned) >= MOST_PLANS:
                self._planned.clear()
            self._planned[model.name] = known
        return known.plan

    def _plan(self, model: Model, homes: Sequence[Home], verdict: Verdict, grown: int) -> Plan:
        home = self._home(model, homes, verdict)
        settings = resolve(model, self._config, home)
        grown = min(grown, model.context_length or sys.maxsize)
        if grown > settings.context:
            settings = replace(settings, context=grown)
        pinned = model.name.key in self._pinned
        return Plan(key_of(model, settings), model, settings, home, base.load(home.engine), pinned)

    def _home(self, model: Model, homes: Sequence[Home], verdict: Verdict) -> Home:
        """Where it runs.  One that would lie on a GPU that is missing runs on the processor only if that is allowed."""
        if not verdict.missing:
            return choose.choose(model, homes, device=verdict.device)
        home = choose.choose(model, homes, device="cuda")
        if home.device != "cuda":
            return home
        if not self._config.fleet.cpu_fallback:
            hint = (
                "see `hyperllamactl status`; `fleet.cpu_fallback = true` lets models run on the processor, much slower"
            )
            raise NoGpuError(f"'{model.name}' runs on a GPU, and none can be used: {verdict.missing}", hint=hint)
        return choose.choose(model, homes, device="cpu")

    def grow(self, model: Model, context: int) -> None:
        """Plan at least so many tokens of context for the model's weights from now on; 0 = as configured.

        In few lengths, since each is another instance, and MAX compiles every new one for minutes.
        """
        self._grown[model.digest] = _length(context)


def _length(context: int) -> int:
    """The next of the lengths that are planned: doublings of SHORTEST; 0 stays 0."""
    length = SHORTEST if context else 0
    while length < context:
        length *= 2
    return length


def resolve(model: Model, config: Config, home: Home) -> Settings:
    """The model's own statements, else the configuration's, else what suits the engine."""
    table = config.engine_table(home.engine)
    general = config.models.parallel or PARALLEL.get(home.engine, PARALLEL_OTHERS[home.device])
    return Settings(
        engine=home.engine,
        home=home.id,
        device=home.device,
        context=_context(model, config.models.context),
        parallel=model.parallel or general,
        kv_cache_bytes=table.memory_bytes,
        args=(*table.args, *model.engine_args),
        env=tuple(sorted(table.env.items())),
        limits=model.limits.over(table.limits),
        quantize=model.quantize,
    )


def models_at_once(config: Config) -> int:
    """As configured, else three for each GPU, or three on a machine without: Ollama's default."""
    gpus = len(list(DEVICES.glob("nvidia[0-9]*"))) if host.device(DEVICES) == "cuda" else 1
    return config.fleet.max_loaded_models or 3 * gpus


def _context(model: Model, general: int) -> int:
    """What is stated for the model, else in general, but never beyond what the model was trained for (as in Ollama)."""
    stated = model.parameters.get("num_ctx")
    wanted = model.context or (stated if type(stated) is int and stated > 0 else 0) or general or DEFAULT_CONTEXT
    return min(wanted, model.context_length) if model.context_length else wanted
