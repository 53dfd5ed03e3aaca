"""How a chat body says whether, and how hard, a model shall think.  Knows the engines' words, no dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Think = bool | str | None  # None: not said; a text is a level: "low", "medium", "high" or "max"


def arguments(think: Think) -> dict[str, Any]:
    """For a model that can think: on unless said otherwise, with the level where one is given."""
    kwargs: dict[str, Any] = {"enable_thinking": think is not False}
    if not isinstance(think, str):
        return {"chat_template_kwargs": kwargs}
    level = "high" if think == "max" else think  # templates that know levels know three
    return {"chat_template_kwargs": kwargs | {"reasoning_effort": level}, "reasoning_effort": level}


def wanted(body: Mapping[str, Any]) -> bool:
    """Whether the answer to a chat body may begin with a thought."""
    kwargs = body.get("chat_template_kwargs") or {}
    return bool(kwargs.get("enable_thinking"))
