"""Thirty-odd models and settings that cannot work, each broken in its own way, and what people must be told of each.

Made from the demo model.  Most are found out before an engine is started; those that are not take an engine's whole
start, so running all of them takes a while: `python -m tests.real.bad_models [PREFIX...]` prints a table.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ollama

from tests.daemon import Daemon, daemon
from tests.real.conftest import ENGINES, GREEDY, PARIS, demo_model

NEEDED = 27  # of thirty must be named right


class Bad(NamedTuple):
    """`make` breaks a copy of the model at the path; `says` is a pattern the message must match."""

    says: str
    make: Callable[[Path], object] | None = None
    args: tuple[str, ...] = ()
    engine: str = ""  # other than the one the name begins with


def _cut(path: Path) -> None:
    _weights(path).write_bytes(_weights(path).read_bytes()[:30_000_000])


def _weights(path: Path) -> Path:
    return next(path.glob("*.safetensors")) if path.is_dir() else path


def _noise(path: Path) -> None:
    _weights(path).write_bytes(b"not a model " * 1000)


def _empty(path: Path) -> None:
    _weights(path).write_bytes(b"")


def _gguf_patch(old: bytes, new: bytes) -> Callable[[Path], None]:
    def patch(path: Path) -> None:
        data = path.read_bytes()
        assert data.count(old, 0, 4_000_000) >= 1, old
        path.write_bytes(data.replace(old, new, 1))

    return patch


def _unknown_quantisation(path: Path) -> None:
    """Behind a tensor's name: how many dimensions (4 bytes), each (8), the type."""
    data = bytearray(path.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    data[at : at + 4] = struct.pack("<I", 250)
    path.write_bytes(data)


def _gguf_bytes(at: int, new: bytes) -> Callable[[Path], None]:
    def patch(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at : at + len(new)] = new
        path.write_bytes(data)

    return patch


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _configured(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _removed(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def _written(name: str, text: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text(text)


def _missing_shard(path: Path) -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    (path / "model.safetensors").rename(path / first)
    index = {"metadata": {}, "weight_map": {"model.norm.weight": first, "model.embed_tokens.weight": second}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change the JSON header of the weights, with the data behind it left as it is."""

    def rewrite(path: Path) -> None:
        file = _weights(path)
        data = file.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return rewrite


def _rename_norm(header: dict[str, Any]) -> None:
    header["model.normal.weight"] = header.pop("model.norm.weight")


def _wrong_dtype(header: dict[str, Any]) -> None:
    for name, tensor in header.items():
        if name != "__metadata__":
            tensor["dtype"] = "I16"


LOST = r"does not exist"
BAD: dict[str, Bad] = {
    "llama_cpp-gone": Bad(LOST, lambda path: path.unlink()),
    "llama_cpp-cut": Bad("truncated", _cut),
    "llama_cpp-noise": Bad("not a GGUF", _noise),
    "llama_cpp-empty": Bad("not a GGUF|empty|ends", _empty),
    "llama_cpp-directory": Bad("no config.json|not a regular file|directory", _as_directory),
    "llama_cpp-arch": Bad("zlama", _gguf_patch(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0zlama")),
    "llama_cpp-version": Bad("version 99", _gguf_bytes(4, struct.pack("<I", 99))),
    "llama_cpp-header": Bad("damaged|header|truncated|metadata", _gguf_bytes(16, struct.pack("<Q", 1 << 40))),
    "llama_cpp-quantisation": Bad("quantisation of the tensor", _unknown_quantisation),
    "llama_cpp-flag": Bad("no-such-flag", args=("--no-such-flag",)),
    "llama_cpp-value": Bad("ctx-size", args=("--ctx-size", "many")),
    "llama_cpp-context": Bad("memory", args=("--ctx-size", "900000000")),
    "llama_cpp-engine": Bad("reads no GGUF|GGUF files only", engine="vllm"),
    "vllm-shard": Bad("lacks 1 of 2 weight files|names it", _missing_shard),
    "vllm-cut": Bad("truncated", _cut),
    "vllm-noise": Bad("safetensors|damaged", _noise),
    "vllm-arch": Bad("FooForCausalLM", _configured(architectures=["FooForCausalLM"])),
    "vllm-type": Bad('"foo"|FooForCausalLM', _configured(model_type="foo", architectures=["LlamaForCausalLM"])),
    "vllm-json": Bad("config.json", _written("config.json", "{")),
    "vllm-config": Bad("config.json", _removed("config.json")),
    "vllm-tokenizer": Bad("tokenizer", _removed("tokenizer.json")),
    "vllm-flag": Bad("no-such-flag", args=("--no-such-flag",)),
    "vllm-value": Bad("--dtype", args=("--dtype", "float3")),
    "vllm-context": Bad("10000000 tokens is more than the 8192", args=("--max-model-len", "10000000")),
    "vllm-shape": Bad("hidden size|do not fit", _configured(hidden_size=640)),
    "vllm-tensor": Bad("model.norm|norm.weight", _header(_rename_norm)),
    "vllm-quantisation": Bad("quantisation foo", _configured(quantization_config={"quant_method": "foo"})),
    "vllm-memory": Bad("memory", args=("--kv-cache-memory-bytes", "900G")),
    "max-flag": Bad("no-such-flag", args=("--no-such-flag",)),
    "max-arch": Bad("FooForCausalLM", _configured(architectures=["FooForCausalLM"])),
    "max-json": Bad("tokenizer", _written("tokenizer.json", "{")),
    "max-dtype": Bad("weights that MAX can read|dtype|I16|int16", _header(_wrong_dtype)),
    "max-context": Bad("10000000 tokens is more than the 8192", args=("--max-length", "10000000")),
    "max-shape": Bad("hidden|shape|weight", _configured(hidden_size=640)),
    "max-value": Bad("--max-batch-size", args=("--max-batch-size", "many")),
    "max-gpu": Bad("GPU|gpu|device", args=("--devices", "gpu:0")),
}  # fmt: skip


def build(root: Path, names: list[str]) -> dict[str, dict[str, object]]:
    """The broken files below `root`, and the models.d keys that name them."""
    good = {engine: demo_model(engine) for engine in ENGINES}
    models: dict[str, dict[str, object]] = {}
    for name in names:
        bad = BAD[name]
        engine = name.partition("-")[0]
        source = Path(str(good[engine]["path"]))
        path = source
        if bad.make is not None:
            path = root / f"{name}{source.suffix}"
            if source.is_dir():
                shutil.copytree(source, path)
            else:
                shutil.copyfile(source, path)
            bad.make(path)
        models[name] = {"path": str(path), "engine": bad.engine or engine, "args": list(bad.args)}
    return models


def told(running: Daemon, name: str) -> str:
    """What a client is told that asks the model; "" when it got an answer."""
    with ollama.Client(running.url, timeout=420) as client:
        try:
            client.chat(name, PARIS, options=GREEDY)
        except ollama.ResponseError as failure:
            return failure.error
    return ""


def run(*prefixes: str) -> tuple[int, int]:
    """(causes named right, tried) of those whose names begin so, or of all; tells each as it goes."""
    names = [name for name in BAD if not prefixes or name.startswith(prefixes)]
    right = 0
    main = '[fleet]\nrestart_budget = 0\nload_timeout = "400s"\n'
    with tempfile.TemporaryDirectory(prefix="hlbad-") as root, daemon(build(Path(root), names), main=main) as running:
        for name in names:
            began = time.monotonic()
            said = told(running, name)
            good = bool(re.search(BAD[name].says, said))
            right += good
            print(f"{'ok ' if good else 'BAD'} {time.monotonic() - began:6.1f} s  {name:24} {said}", flush=True)
            if not good:
                print(running.ctl("logs", name, check=False).stdout[-4000:])
    return right, len(names)


if __name__ == "__main__":
    named, tried = run(*sys.argv[1:])
    print(f"{named} of {tried} causes named right")
