"""A request whose engine died before anything was sent is asked once more, and only then, and only once."""

from __future__ import annotations

from typing import Any

import pytest

from hyperllamad.core.errors import CutShortError, EngineDiedError, HyperLlamaError, LoadFailedError
from hyperllamad.front import relay
from tests.front.fake_supervisor import model


async def outcome(monkeypatch: pytest.MonkeyPatch, *failures: HyperLlamaError | None) -> tuple[Any, int]:
    """What comes of a request whose tries end like that, and how many leases it took."""
    leases = 0

    async def lease(*_: object) -> int:
        nonlocal leases
        leases += 1
        return leases

    async def serve(upstream: Any) -> str:
        if failure := failures[upstream - 1]:
            raise failure
        return f"answer of engine {upstream}"

    monkeypatch.setattr(relay, "lease", lease)
    try:
        return await relay.with_engine(None, model("m"), None, serve), leases  # type: ignore[arg-type]
    except HyperLlamaError as failure:
        return failure, leases


async def test_the_second_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await outcome(monkeypatch, EngineDiedError("killed"), None) == ("answer of engine 2", 2)


async def test_a_request_that_kills_engines_kills_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    second = EngineDiedError("killed again")
    assert await outcome(monkeypatch, EngineDiedError("killed"), second) == (second, 2)


@pytest.mark.parametrize("failure", [CutShortError("unloaded"), LoadFailedError("broken")])
async def test_what_would_end_the_same_way_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, failure: HyperLlamaError
) -> None:
    assert await outcome(monkeypatch, failure) == (failure, 1)
