"""Our front over a scripted engine, for benchmarks: `python -m tests.bench.our_front ENGINE_SOCKET PORT`.

Everything between the client's socket and the engine's is the real thing; only the supervisor grants without a fleet.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import msgspec

from hyperllamad import listen, sockets, telemetry
from hyperllamad.config.load import load_config
from hyperllamad.config.tables import Server
from hyperllamad.front.app import create_app
from hyperllamad.front.ports import Services
from hyperllamad.store.library import Library
from hyperllamad.store.shortnames import ShortNames
from tests.front.fake_supervisor import FakeCatalog, FakeEngine, FakeSupervisor, FakeUpstream, model


async def main(engine_socket: str, port: int) -> None:
    bench = model("bench")
    fake = FakeUpstream(Path(engine_socket), bench, FakeEngine())
    settings = load_config(Path("/nonexistent"), {"HOME": "/nonexistent"})
    settings = msgspec.structs.replace(settings, server=Server(host=f"127.0.0.1:{port}"))
    library = Library(settings, ShortNames(()))
    app = create_app(Services(FakeCatalog(bench), FakeSupervisor(fake), library, settings, telemetry.Metrics(), "0"))
    await listen.serve(app, sockets.open_tcp("127.0.0.1", port), stop=anyio.Event().wait, grace=1)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), backend_options={"use_uvloop": True})
