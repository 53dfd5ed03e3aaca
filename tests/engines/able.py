"""The demo model made able to call tools and to think, for real: it copies the examples in the template it is given.

Nothing holds its words to a grammar before it has begun a call, and the engine's own parsers read them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.daemon import INSTALLED

TEMPLATE = (Path(__file__).parent / "able.jinja").read_text(encoding="utf-8")


def gguf(root: Path, template: str = TEMPLATE) -> Path:
    """The demo model's file with the template in it, in `root`."""
    demo, made = next(INSTALLED.models.rglob("*.gguf")), root / "able.gguf"
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", str(demo), str(made)]
    subprocess.run([*command, "--chat-template", template], check=True, timeout=120, capture_output=True)
    return made


def directory(root: Path, template: str = TEMPLATE) -> Path:
    """The demo model's directory with the template in it: `root`."""
    demo = next(path.parent for path in INSTALLED.models.rglob("config.json"))
    for path in demo.iterdir():
        (root / path.name).symlink_to(path)
    (root / "chat_template.jinja").write_text(template, encoding="utf-8")
    return root
