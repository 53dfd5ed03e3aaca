"""hyperllamad as it is, with tests/fake_engine.py in place of every engine; a model's `args` are its vices.

With RINGS in its environment it keeps so many decisions, and so many lines of each engine, instead of thousands; and
Python's table of interned names has the size that it would else take after hours, once, in a step of 940 KiB.
"""

from __future__ import annotations

import os
import sys

from hyperllamad import __main__ as real
from hyperllamad.engines import base
from hyperllamad.engines.base import Home
from hyperllamad.engines.homes import Homes
from hyperllamad.supervision import events, logs
from tests.supervision import fake

RINGS = "TEST_RINGS"
NAMES = 30_000  # the daemon's table grew after 13,700 new ones, and not again in 80,000 (CPython 3.11)


def _homes(_: Homes) -> tuple[Home, ...]:
    return (fake.HOME,)


if __name__ == "__main__":
    base.load = lambda _name: fake.ENGINE
    events.KEPT = int(os.environ.get(RINGS, events.KEPT))
    logs.MOST_LINES = int(os.environ.get(RINGS, logs.MOST_LINES))
    Homes._scan = _homes  # type: ignore[method-assign]
    if RINGS in os.environ:
        for number in range(NAMES):
            sys.intern(f"a name {number}")  # and forgotten again at once
    sys.exit(real.main())
