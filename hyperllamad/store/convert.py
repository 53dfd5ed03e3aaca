"""`python -m hyperllamad.store.convert SRC.gguf DST_DIR`: a llama-family GGUF becomes a Hugging Face directory.

A process of its own, because it needs numpy (and gguf), which must not enter the daemon.  Without torch: weights are
unpacked tensor by tensor, so the largest tensor bounds the memory.  DST_DIR appears complete or not at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import HyperLlamaError, UnsupportedError
from hyperllamad.store import gguf, safetensors_file
from hyperllamad.store.staging import stage
from hyperllamad.store.tokenizer import Vocabulary


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m hyperllamad.store.convert", description="Convert a GGUF file to a Hugging Face directory."
    )
    parser.add_argument("source", type=Path, metavar="SRC.gguf")
    parser.add_argument("target", type=Path, metavar="DST_DIR")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the written weights")
    arguments = parser.parse_args(argv)
    try:
        convert(arguments.source, arguments.target.absolute(), arguments.dtype)
    except HyperLlamaError as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


def convert(source: Path, target: Path, dtype: str) -> None:
    """Write `target`, a directory that must not exist yet; `dtype` is "bfloat16" or "float32".

    Raises UnsupportedError (another family, an unknown tokenizer, missing packages) and LoadFailedError (damaged
    source, disk full).
    """
    try:
        from hyperllamad.store import llama  # noqa: PLC0415  # numpy and gguf may be missing: then say so in a sentence
    except ImportError as failure:
        raise UnsupportedError(
            f"the conversion needs the Python package {failure.name!r}", hint="pip install 'hyperllama[convert]'"
        ) from failure
    header = gguf.read(source, arrays=True)
    if header.missing_bytes:
        raise gguf.truncated(header)
    llama.check(header)
    vocabulary = Vocabulary(header.metadata)
    with stage(target) as work:
        _write_json(work / "config.json", llama.config(header, vocabulary, dtype))
        _write_json(work / "generation_config.json", llama.token_ids(vocabulary))
        _write_json(work / "tokenizer.json", vocabulary.tokenizer_json())
        context = header.integer("llama.context_length")
        _write_json(work / "tokenizer_config.json", vocabulary.tokenizer_config(context))
        weights = list(llama.sources(header, dtype))
        safetensors_file.write(work / "model.safetensors", weights, {"format": "pt"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
