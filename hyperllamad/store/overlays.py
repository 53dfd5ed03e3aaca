"""Variants on disk: names of their own over a model's files, each a TOML file that a person can read and change.

They lie in `variants` in the state directory, one file for each, named after the variant in lower case with `@` where
the name has a colon and `+` where it has slashes: `variants/mario@latest.toml`, `variants/hf.co+org+repo@q4.toml`.

    name = "mario:latest"
    base = "smollm2:135m"       # the model whose files it uses; never another variant
    parent = "smollm2:135m"     # what it was created from, for people
    system = "You are Mario."
    adapters = ["sha256-....gguf"]  # LoRA adapters: files of `.adapters` beside the models, or absolute paths
    [parameters]
    temperature = 0.2

A file may say `hidden = true` instead: then a model of that name lies in the store only because variants use its files.
Owns the files; knows nothing of models.  Changes are atomic: see store/disk.py.
"""

from __future__ import annotations

import hashlib
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from hyperllamad.core.errors import BadRequestError, HyperLlamaError, LoadFailedError
from hyperllamad.core.models import Message
from hyperllamad.core.names import DEFAULT_HOST, DEFAULT_NAMESPACE, ModelName
from hyperllamad.store import disk
from hyperllamad.store.survey import Stamp, settled, stamp

MAX_FILE = 16 << 20  # bytes of one variant
_MAX_STEM = 200  # characters of a file's name; longer ones are hashed


class _Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: str
    content: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the TOML may hold."""

    name: str
    hidden: bool = False
    base: str = ""
    parent: str = ""
    system: str = ""
    template: str = ""
    license: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    messages: tuple[_Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Overlay:
    """A variant: what it adds to the model `base`.  Empty = as the base has it."""

    name: ModelName
    base: ModelName
    parent: str = ""
    system: str = ""
    template: str = ""
    license: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()  # see store/adapters.py
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    hidden: bool = False  # no variant: the model of this name is not to be seen
    modified_at: float = 0.0  # Unix time


@dataclass(frozen=True, slots=True)
class _Read:
    """What a file said when it was last read."""

    stamp: Stamp | None
    result: Overlay | HyperLlamaError


class Overlays:
    """The files, read again when they change.  The mutable state is the memory of what they said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._inside = f"{directory}{os.sep}"
        self._read: dict[str, _Read] = {}

    def get(self, name: ModelName) -> Overlay | HyperLlamaError | None:
        """The variant of that name, or what is wrong with its file; None when there is none.  One stat call."""
        return self._at(_stem(name))

    def all(self) -> dict[str, Overlay | HyperLlamaError]:
        """Every variant and hidden name by its file's stem, and what is wrong with files that cannot be read."""
        stems = [path.stem for path in sorted(self.directory.glob("*.toml")) if not path.name.startswith(".")]
        self._read = {stem: self._read[stem] for stem in stems if stem in self._read}
        found = ((stem, self._at(stem)) for stem in stems)
        return {stem: result for stem, result in found if result is not None}

    def users(self, name: ModelName) -> list[Overlay]:
        """The variants that use the files of the model of that name, one of the same name included."""
        readable = (overlay for overlay in self.all().values() if isinstance(overlay, Overlay))
        return [overlay for overlay in readable if not overlay.hidden and overlay.base.key == name.key]

    def put(self, overlay: Overlay) -> None:
        """Write a variant in place of the one that has its name.  Raises StoreError, BadRequestError when too large."""
        content = _encode(overlay)
        if len(content) > MAX_FILE:  # it could not be read again
            sentence = f"what the variant {overlay.name.short} adds takes {len(content) >> 20} MiB"
            raise BadRequestError(sentence, hint=f"{MAX_FILE >> 20} MiB is the most")
        with disk.explained(f"the variant {overlay.name.short}"):
            disk.write(self.path(overlay.name), content)

    def drop(self, name: ModelName) -> bool:
        """Remove the variant or the hiding of that name; False when there is none.  Raises StoreError."""
        path = self.path(name)
        if not path.exists():
            return False
        with disk.explained(f"the variant {name.short}"):
            disk.remove(path)
        return True

    def path(self, name: ModelName) -> Path:
        """The file a variant of that name has or would have."""
        return self._path(_stem(name))

    def _path(self, stem: str) -> Path:
        return self.directory / f"{stem}.toml"

    def _at(self, stem: str) -> Overlay | HyperLlamaError | None:
        now = stamp((f"{self._inside}{stem}.toml",))
        if now == (None,):
            self._read.pop(stem, None)
            return None
        known = self._read.get(stem)
        if known is None or known.stamp != now:
            began = time.time_ns()
            known = self._read[stem] = _Read(settled(now, began), _load(self._path(stem), stem))
        return known.result


def _load(path: Path, stem: str) -> Overlay | HyperLlamaError:
    hint = "correct the file, or remove it"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            return LoadFailedError(f"{path} is larger than {MAX_FILE >> 20} MiB", hint=hint)
        said = msgspec.convert(tomllib.loads(raw.decode()), _File)
        name = ModelName.parse(said.name)
        base = name if said.hidden else ModelName.parse(said.base)
        modified = path.stat().st_mtime
    except OSError as failure:
        return LoadFailedError(f"{path} cannot be read: {failure.strerror}", hint=hint)
    except (ValueError, RecursionError, msgspec.ValidationError, HyperLlamaError) as failure:
        return LoadFailedError(f"{path} is not the file of a variant: {failure}", hint=hint)
    if _stem(name) != stem:
        return LoadFailedError(f"{path} says that it is {said.name}", hint=f"name the file {_stem(name)}.toml")
    return Overlay(
        name=name,
        base=base,
        parent=said.parent,
        system=said.system,
        template=said.template,
        license=said.license,
        adapters=said.adapters,
        parameters=said.parameters,
        messages=tuple(Message(turn.role, turn.content) for turn in said.messages),
        hidden=said.hidden,
        modified_at=modified,
    )


def _encode(overlay: Overlay) -> bytes:
    said = _File(
        name=overlay.name.short,
        hidden=overlay.hidden,
        base="" if overlay.hidden else overlay.base.short,
        parent=overlay.parent,
        system=overlay.system,
        template=overlay.template,
        license=overlay.license,
        adapters=overlay.adapters,
        parameters=dict(overlay.parameters),
        messages=tuple(_Turn(role=role, content=content) for role, content in overlay.messages),
    )
    tree = _plain(msgspec.to_builtins(said))
    text = tomli_w.dumps(tree, multiline_strings=True)
    if not _means(text, tree):  # a text with carriage returns does not survive on several lines
        text = tomli_w.dumps(tree)
    return f"# A variant of a model, written by hyperllamad.  You may change it.\n\n{text}".encode()


def _means(text: str, tree: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == tree
    except tomllib.TOMLDecodeError:
        return False


def _plain(item: Any) -> Any:
    """What TOML can hold: nothing that is null, no half of a surrogate pair."""
    if isinstance(item, str):
        return item.encode(errors="replace").decode()
    if isinstance(item, Mapping):
        return {_plain(str(key)): _plain(value) for key, value in item.items() if value is not None}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item if value is not None]
    return item


def _stem(name: ModelName) -> str:
    host = "" if name.host == DEFAULT_HOST else f"{name.host}+"
    namespace = "" if not host and name.namespace == DEFAULT_NAMESPACE else f"{name.namespace}+"
    stem = f"{host}{namespace}{name.model}@{name.tag}".casefold()
    if len(stem) > _MAX_STEM:
        return f"sha256-{hashlib.sha256(stem.encode()).hexdigest()}"
    return stem
