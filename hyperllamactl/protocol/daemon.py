"""The daemon itself on the wire: its state in one page, and reading its configuration anew."""

from __future__ import annotations

from hyperllamactl.protocol.base import Command, Reply, Role
from hyperllamactl.protocol.instances import InstanceRow


class StatusReport(Reply, tag="status_report"):
    """`status`: the daemon in one page."""

    version: str
    pid: int
    started_at: float  # Unix seconds
    url: str  # of the API
    config: str  # the directory it was read from
    config_error: str = ""  # why a newer configuration is not in force
    engines: list[str] = []  # homes in use
    models: int = 0  # in the store
    requests: int = 0  # being answered
    waiting: int = 0  # waiting for an instance
    memory: int = 0  # resident bytes of the daemon
    prepared: dict[str, int] = {}  # engine homes with a process that waits for a model, and the bytes it holds
    gpu_problems: list[str] = []  # GPUs that are not used and why, or why there is none though one is expected
    instances: list[InstanceRow] = []


class Status(Command):
    """Show the daemon: version, address, engines, what is loaded."""

    reply = StatusReport


class Reload(Command):
    """Read the configuration anew: all of it is taken over, or nothing.

    What would now run otherwise is unloaded after its requests and loaded again; what would run as before is not
    touched.  A hang-up ends the wait for that only.
    """

    role = Role.ADMIN
    streams = True
