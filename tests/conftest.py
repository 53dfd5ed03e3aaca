"""What every test shares: the asyncio backend, and nothing of the user's own environment."""

from __future__ import annotations

import signal

import pytest

# A test run in the background of a shell inherits an ignored SIGINT, and so would every process a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# One that is ended (a time limit around it, a shutdown) ends in order: what its fixtures have started is stopped.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Quart and Hypercorn live on asyncio, so everything does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables a developer has set for Ollama or for us must not change what a test sees."""
    import os

    for name in list(os.environ):
        if name.startswith(("OLLAMA_", "HYPERLLAMA_", "XDG_")):
            monkeypatch.delenv(name)
