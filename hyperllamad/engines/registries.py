"""Which architectures an installed engine knows, read from its source without importing it.

Importing vLLM or MAX takes seconds and gigabytes; parsing the one file that lists their models takes milliseconds.
Where the lists lie and what they look like: vLLM 0.32 and MAX 26.7.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

VLLM = "lib/python3*/site-packages/vllm/model_executor/models/registry.py"
MAX = "lib/python3*/site-packages/max/pipelines/architectures/__init__.py"
CPU_ENCODING = "float32"  # what MAX computes in without a GPU


def read(engine: str, home: Path, device: str) -> frozenset[str]:
    """Names as config.json has them under `architectures`; empty for an engine that keeps no such list."""
    if engine == "vllm":
        return frozenset(_vllm(_only(home, VLLM)))
    if engine == "max":
        return frozenset(_max(_only(home, MAX), device))
    return frozenset()


def _only(home: Path, pattern: str) -> Path:
    """The file; raises FileNotFoundError with what was looked for."""
    for path in home.glob(pattern):
        return path
    raise FileNotFoundError(f"{home}/{pattern}")


def _vllm(path: Path) -> Iterator[str]:
    """The keys of the module's dictionaries, but for those it once knew."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign):
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            target, value = statement.target, statement.value
        else:
            continue
        known = isinstance(target, ast.Name) and target.id.endswith("_MODELS") and "PREVIOUSLY" not in target.id
        if known and isinstance(value, ast.Dict):
            yield from (key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _max(path: Path, device: str) -> Iterator[str]:
    """The names of the `_LazyArch` calls; drafts for speculation are no models of their own."""
    for call in _calls(path, "_LazyArch"):
        arguments = dict(zip(("name", "module", "symbol", "speculates_on"), call.args, strict=False))
        arguments |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        name, module = (_text(arguments.get(key)) for key in ("name", "module"))
        if not name or "speculates_on" in arguments:
            continue
        package = path.parent.joinpath(*module.split(".")[1:2])
        if device != "cpu" or _mentions(package, CPU_ENCODING):
            yield name.removesuffix("_ModuleV3")


def _mentions(package: Path, encoding: str) -> bool:
    """Whether a model's package lists `encoding` among its SUPPORTED_ENCODINGS."""
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                listing = node.value if isinstance(target, ast.Name) and target.id == "SUPPORTED_ENCODINGS" else None
            else:
                listing = node.value if isinstance(node, ast.keyword) and node.arg == "supported_encodings" else None
            if listing and any(_text(part) == encoding for part in ast.walk(listing)):
                return True
    return False


def _calls(path: Path, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            yield node


def _text(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
