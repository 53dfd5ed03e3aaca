"""Where models lie: from directories to names and files.  Looks at names of files only, never into them.

The store (`models` in the state directory) is a tree a person can read and fill by hand:

    models/smollm2@135m/anything.gguf          smollm2:135m      one GGUF file, or all parts of a split one
    models/qwen3@8b-fp8/config.json, ...       qwen3:8b-fp8      a Hugging Face directory
    models/mistral.gguf                        mistral:latest    a bare file
    models/hf.co/org/repo@q8/...               hf.co/org/repo:q8 a directory without a model in it is part of the name

So the path is the name, with `@` where the name has a colon; without it the tag is `latest`.  Directories of
`[models] directories` are read the same way, one level deep.  Names that begin with a dot are never looked at: there,
models are being built (store/staging.py).  Projector files (`mmproj*.gguf`) are not models and are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperllamad.core.errors import InvalidNameError, LoadFailedError
from hyperllamad.core.models import Format
from hyperllamad.core.names import DEFAULT_HOST, DEFAULT_NAMESPACE, ModelName
from hyperllamad.store import disk

NAME_DEPTH = 3  # host, namespace, model
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
_FACTS = frozenset({".json", ".jinja", ".safetensors", ".model"})  # files of a directory that say what the model is


@dataclass(frozen=True, slots=True)
class Location:
    """The files of one model."""

    format: Format
    path: Path  # the GGUF file (of a split one the first part) or the Hugging Face directory
    files: tuple[Path, ...]  # all parts, or the files of the directory that matter
    directory: Path | None  # the directory that is the model's own
    license: Path | None = None  # a licence text in that directory


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was meant to be a model and cannot be one: a sentence for people."""

    name: str
    path: str
    sentence: str


def locate(path: Path) -> Location:
    """The model at `path`, a GGUF file or a directory.  Raises LoadFailedError in plain words."""
    try:
        if not path.exists():
            raise LoadFailedError(f"{path} does not exist", hint="check the path, or download the model again")
        if path.is_dir():
            found = _in_directory(path)
        else:
            parts = _parts(path)
            found = Location(Format.GGUF, parts[0], parts, None)
    except OSError as failure:
        raise disk.unreadable(path, failure) from failure
    except ValueError as failure:  # a null byte in the path
        raise LoadFailedError(f"{path} cannot be read: {failure}", hint="check the path") from failure
    if found is None:
        hint = "a model is a .gguf file, or a directory with config.json and .safetensors files"
        raise LoadFailedError(f"{path} holds no model", hint=hint)
    return found


def _in_directory(directory: Path) -> Location | None:
    """The one model a directory holds, None when there is nothing of the kind in it."""
    entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    licenses = [entry for entry in entries if re.match("LICEN[CS]E", entry.name, re.IGNORECASE) and entry.is_file()]
    first = licenses[0] if licenses else None
    ggufs = [entry for entry in entries if _is_model_file(entry)]
    ggufs = [entry for entry in ggufs if entry.exists()] or ggufs[:1]
    names = {entry.name for entry in entries}
    if "config.json" in names and (not ggufs or any(name.endswith(".safetensors") for name in names)):
        files = tuple(entry for entry in entries if entry.suffix in _FACTS and entry.is_file())
        return Location(Format.SAFETENSORS, directory, files, directory, first)
    if any(name.endswith(".safetensors") for name in names):
        raise LoadFailedError(f"{directory} holds .safetensors files but no config.json", hint="download it again")
    if not ggufs:
        return None
    if len({_stem(entry) for entry in ggufs}) > 1:
        listed = ", ".join(entry.name for entry in ggufs[:3])
        hint = "give each a directory of its own, or name one in a file of models.d"
        raise LoadFailedError(f"{directory} holds several models ({listed})", hint=hint)
    parts = _parts(ggufs[0])
    return Location(Format.GGUF, parts[0], parts, directory, first)


def _parts(path: Path) -> tuple[Path, ...]:
    """The file, or all parts of the split file it belongs to; raises LoadFailedError when one is missing."""
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        return (path,)
    count = int(split["count"])
    parts = []
    for number in range(1, count + 1):
        part = path.with_name(f"{split['stem']}-{number:05d}-of-{count:05d}.gguf")
        if not part.exists():
            raise LoadFailedError(f"{part} is missing: the model comes in {count} parts", hint="download it again")
        parts.append(part)
    return tuple(parts) or (path,)


def parts(path: Path) -> tuple[Path, ...]:
    """The parts of the model in a GGUF file that are there, the file itself included."""
    split = _SPLIT.fullmatch(path.name)
    found = path.parent.glob("*.gguf") if split else ()
    others = [
        entry for entry in found if (it := _SPLIT.fullmatch(entry.name)) and split and it["stem"] == split["stem"]
    ]
    return tuple(sorted({path, *others}))


def _is_model_file(path: Path) -> bool:
    """Also a link that leads nowhere: a model that is gone shall be said to be, not vanish."""
    if path.suffix.lower() != ".gguf" or path.name.lower().startswith("mmproj"):
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def _stem(path: Path) -> str:
    """The name of a GGUF file without its ending and the numbering of its parts."""
    split = _SPLIT.fullmatch(path.name)
    return split["stem"] if split else path.stem


# -- from names to directories -----------------------------------------------------------------------------------


def directory_of(store: Path, name: ModelName) -> Path:
    """Where a new model of that name goes; walk() finds it there under that name.

    The tag is always written out: without it, the models of an organisation would lie inside a model of its name.
    """
    parts = [f"{name.model}@{name.tag}"]
    if name.host != DEFAULT_HOST:
        parts = [name.host, name.namespace, *parts]
    elif name.namespace != DEFAULT_NAMESPACE:
        parts = [name.namespace, *parts]
    return store.joinpath(*parts)


# -- from directories to names -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tree:
    """What one directory holds, and which directories must be unchanged for that to be so."""

    models: dict[str, tuple[ModelName, Path]]  # by ModelName.key
    problems: list[Problem]
    branches: list[Path]  # the root and every directory that is part of names
    leaves: list[Path]  # directories that are models


def walk(root: Path, depth: int) -> Tree:
    """Every model under `root`, whose names have up to `depth` parts.  A root that is not there holds none."""
    tree = Tree({}, [], [root], [])
    try:
        _walk(root, (), depth, tree)
    except FileNotFoundError:
        pass
    except OSError as failure:
        tree.problems.append(Problem("", str(root), f"the directory cannot be read: {failure.strerror}"))
    return tree


def _walk(directory: Path, prefix: Sequence[str], depth: int, tree: Tree) -> None:
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith("."):
            continue
        if _is_model_file(entry):
            _add(tree, "/".join((*prefix, _stem(entry))), entry)
        elif entry.is_dir():
            _walk_directory(entry, (*prefix, entry.name), depth - 1, tree)


def _walk_directory(directory: Path, name: Sequence[str], depth: int, tree: Tree) -> None:
    try:
        is_model = _in_directory(directory) is not None
    except (LoadFailedError, OSError):
        is_model = True  # a broken one: locate() will say why when it is asked for
    if is_model:
        tree.leaves.append(directory)
        _add(tree, "/".join(name), directory)
    else:
        tree.branches.append(directory)
        if depth:
            _walk(directory, name, depth, tree)


def _add(tree: Tree, text: str, path: Path) -> None:
    text = text.replace("@", ":", 1)
    try:
        name = ModelName.parse(text)
    except InvalidNameError:
        sentence = "its file name cannot be a model's name: rename it, or name it in a file of models.d"
        tree.problems.append(Problem(text, str(path), sentence))
        return
    _, other = tree.models.setdefault(name.key, (name, path))
    if other != path and _SPLIT.fullmatch(path.name) is None:
        tree.problems.append(Problem(name.short, str(path), f"{other} has the same name and is used instead"))
