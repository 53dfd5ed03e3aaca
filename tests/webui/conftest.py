"""Only where Open WebUI is installed: `make webui` has an environment of its own for it."""

from __future__ import annotations

import os
from importlib.util import find_spec

_THERE = find_spec("open_webui") is not None or os.environ.get("WEBUI") == "all"
collect_ignore = [] if _THERE else ["test_open_webui.py"]
