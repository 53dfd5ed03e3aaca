"""The environment that engines written in Python share: private, offline, silent, and with their own Python first."""

from __future__ import annotations

from hyperllamad.engines.base import Home, Host, Place


def python_engine(home: Home, place: Place) -> dict[str, str]:
    """Variables for a child that runs in `home`.  Nothing of the user's Python, and no cache outside its place."""
    return {
        # First of all its own: MAX starts its workers with whatever `python3` it finds here, and waits for ever for
        # workers of another Python (seen with 26.7.0).
        "PATH": f"{home.path}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": place.tmp,
        "XDG_CACHE_HOME": place.cache,
        "XDG_CONFIG_HOME": f"{place.cache}/config",
        "CUDA_CACHE_PATH": f"{place.cache}/cuda",
        **_hub(place.host),
        **_telemetry(place.host),
    }


def _hub(host: Host) -> dict[str, str]:
    return {} if host.hub_access else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def _telemetry(host: Host) -> dict[str, str]:
    return {} if host.telemetry else {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
