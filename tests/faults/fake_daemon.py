"""hyperllamad as it is, with tests/fake_engine.py in place of every engine; a model's `args` are its vices."""

from __future__ import annotations

import sys

from hyperllamad import __main__ as real
from hyperllamad.engines import base
from hyperllamad.engines.base import Home
from hyperllamad.engines.homes import Homes
from tests.supervision import fake


def _homes(_: Homes) -> tuple[Home, ...]:
    return (fake.HOME,)


if __name__ == "__main__":
    base.load = lambda _name: fake.ENGINE
    Homes.all = _homes  # type: ignore[method-assign]
    sys.exit(real.main())
