"""`python3 inside STAGE`: run the checks of one stage on this machine; the last line counts them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import lib

if __name__ == "__main__":
    # The stages together start it more often in five minutes than StartLimitBurst= lets a service be started.
    subprocess.run(["systemctl", "reset-failed", "hyperllamad.service"], capture_output=True, check=False)
    importlib.import_module(sys.argv[1])
    passed, failed = lib.run()
    print(f"@@ {passed} {failed}")
