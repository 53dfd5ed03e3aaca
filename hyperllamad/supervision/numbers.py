"""What the fleet takes from the configuration.  Must not know the fleet's rules, only their names."""

from __future__ import annotations

import math
from typing import TypedDict

from hyperllamad.config.tables import Config
from hyperllamad.core.admission import Rules
from hyperllamad.supervision.plan import models_at_once


class FleetNumbers(TypedDict):
    """See Fleet.__init__."""

    max_models: int
    keep_alive: float
    max_queue: int
    load_timeout: float
    stop_timeout: float
    drain_timeout: float
    restart_budget: int
    rules: Rules


def numbers(config: Config, *, measured: bool, at_start: int) -> FleetNumbers:
    """`measured`: somebody counts memory, so models are limited by it and not by number alone.

    `at_start`: bytes of host memory that there were before any model was loaded; those who sleep hold some of it later.
    """
    table = config.fleet
    stated = table.sleep_memory_bytes
    return FleetNumbers(
        max_models=models_at_once(config),
        keep_alive=table.keep_alive_seconds,
        max_queue=table.max_queue,
        load_timeout=table.load_timeout_seconds,
        stop_timeout=table.stop_timeout_seconds,
        drain_timeout=math.inf,  # an answer is not cut off because others wait; at shutdown the supervisor does
        restart_budget=table.restart_budget,
        rules=Rules(
            measured=measured,
            gpu_overhead=table.gpu_overhead_bytes,
            spread=table.spread,
            sleep_memory=at_start // 2 if stated is None else stated,
        ),
    )
