"""`python3 inside STAGE`: run the checks of one stage on this machine; the last line counts them."""

from __future__ import annotations

import importlib
import sys

import lib

if __name__ == "__main__":
    importlib.import_module(sys.argv[1])
    passed, failed = lib.run()
    print(f"@@ {passed} {failed}")
