"""What types cannot say of the configuration: times and sizes must parse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyperllamad.config.tables import Config
from hyperllamad.config.values import parse_seconds
from hyperllamad.core.errors import BadRequestError, ConfigError


def check_values(config: Config, main: Path) -> None:
    """Raises ConfigError that names the first wrong value; `main` is the path of hyperllamad.toml."""
    checks: list[tuple[Path, str, Any]] = [
        (main, "server.shutdown_grace", lambda: config.server.grace),
        (main, "server.header_timeout", lambda: _positive(config.server.header_timeout)),
        (main, "server.idle_timeout", lambda: _positive(config.server.idle_timeout)),
        (main, "server.unread_timeout", lambda: parse_seconds(config.server.unread_timeout)),
        (main, "server.unread_timeout_wanted", lambda: config.server.unread_wanted),
        (main, "fleet.keep_alive", lambda: config.fleet.keep_alive_seconds),
        (main, "fleet.load_timeout", lambda: config.fleet.load_timeout_seconds),
        (main, "fleet.adopt_within", lambda: config.fleet.adopt_within_seconds),
        (main, "fleet.stop_timeout", lambda: config.fleet.stop_timeout_seconds),
        (main, "fleet.gpu_wait", lambda: config.fleet.gpu_wait_seconds),
        (main, "fleet.memory", lambda: config.fleet.memory_bytes),
        (main, "fleet.gpu_overhead", lambda: config.fleet.gpu_overhead_bytes),
        (main, "fleet.sleep_memory", lambda: config.fleet.sleep_memory_bytes),
    ]
    for name, table in config.engine.items():
        file = config.paths.config / "engines.d" / f"{name}.toml"
        checks.append((file, "memory", lambda t=table: t.memory_bytes))
        checks.append((file, "memory_max", lambda t=table: t.limits))
    models = config.paths.config / "models.d"
    checks += [(models, f"memory_max` of `{model.name}", lambda m=model: m.limits) for model in config.model]
    for path, key, check in checks:
        try:
            check()
        except BadRequestError as failure:
            raise ConfigError(f"{path}: `{key}`: {failure}") from failure


def _positive(text: str) -> float:
    if (seconds := parse_seconds(text)) <= 0:
        raise BadRequestError(f'"{text}" is no time to wait: more than 0 was expected', hint='such as "10s"')
    return seconds
