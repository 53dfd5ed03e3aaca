"""A daemon cut down to one child, for tests that kill it: `daemon.py RUNTIME [vices]`; prints the child's lines."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from hyperllamad.engines.base import Host, Launch
from hyperllamad.supervision import orphans, place
from hyperllamad.supervision.child import Child

FAKE = Path(__file__).parent.parent / "fake_engine.py"


async def main(runtime: Path, *vices: str) -> None:
    orphans.become_subreaper()
    await orphans.sweep(runtime)
    where = place.make(runtime, runtime / "cache", Host())
    argv = (sys.executable, "-I", "-S", str(FAKE), "--socket", where.socket, *vices)
    child = Child(Launch(argv, {}, where.cwd), where, on_line=lambda line: print(line, flush=True))
    await child.run()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), *sys.argv[2:])
