"""The environment that engines written in Python share: private, offline, silent, and with their own Python first."""

from __future__ import annotations

from collections.abc import Mapping

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.core.models import Placement
from hyperllamad.engines.base import Home, Host, Place

LONGEST_SOCKET = 107  # bytes of sun_path in unix(7), less the final zero


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


def visible(room: Placement) -> dict[str, str]:
    """The GPUs an engine may use.  CUDA counts the fastest one first unless it is told to count as the driver does."""
    indices = ",".join(str(share.index) for share in room.shares)
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": indices}


def check_room_for_sockets(title: str, env: Mapping[str, str], name: int) -> None:
    """Raises LoadFailedError where sockets with names of `name` bytes, which an engine puts under TMPDIR, have no room.

    Otherwise vLLM ends after half a minute without a word about it, and MAX leaves its sockets in /tmp.
    """
    excess = len(env["TMPDIR"].encode()) + 1 + name - LONGEST_SOCKET
    if excess > 0:
        raise LoadFailedError(
            f"the runtime directory's path is too long for {title}'s own sockets, by {excess} bytes: {env['TMPDIR']}",
            hint="set `paths.runtime` in hyperllamad.toml to a shorter one",
        )


def _hub(host: Host) -> dict[str, str]:
    return {} if host.hub_access else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def _telemetry(host: Host) -> dict[str, str]:
    return {} if host.telemetry else {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
