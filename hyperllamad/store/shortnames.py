"""Where a model's name leads on the hub: repositories by name, and short names through a catalogue kept as data.

`hf.co/org/repo:Q4_K_M`, `huggingface.co/org/repo` and `org/repo` name a repository.  `qwen3:8b` is a short name: the
file catalog.toml of the configuration says which repositories it stands for.  Nothing here talks to a hub.
"""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from hyperllamad.config.paths import SYSTEM_DIRECTORY
from hyperllamad.core import fitting
from hyperllamad.core.errors import ConfigError, HyperLlamaError, RepositoryNotFoundError, UnknownShortNameError
from hyperllamad.core.fitting import GGUF, PUBLISHED, Weights
from hyperllamad.core.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName

HUB_HOSTS = frozenset({"hf.co", "huggingface.co", "www.hf.co", "www.huggingface.co"})
_FILE = "catalog.toml"
_NEAREST = 5
_FILLERS = re.compile(r"^(?:instruct|chat|it|text)-")  # in Ollama's longer tags: 8b-instruct-q4_K_M


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of catalog.toml: what a name with its tag stands for."""

    name: str
    checked: date
    source: str
    also: str = ""  # another place, of what `source` does not say
    default: bool = False
    embedding: bool = False
    weights: dict[str, str] = {}  # kind -> repository: "bf16", "fp8", "awq", "gptq", "mxfp4"
    gguf: str = ""  # repository
    parameters: int = 0  # 0 = not known
    active: int = 0  # of them, for each token of a mixture of experts
    context: int = 0  # tokens; 0 = not known
    license: str = ""
    gated: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """What there is of it, as it is written behind the tag: ("bf16", "awq", "gguf")."""
        return (*self.weights, GGUF) if self.gguf else tuple(self.weights)

    @property
    def facts(self) -> Weights:
        """What decides where it fits."""
        return Weights(self.parameters, self.active, self.kinds, writes=not self.embedding)

    def repository(self, kind: str) -> str:
        """Where that kind lies on the hub."""
        return self.gguf if kind == GGUF else self.weights[kind]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What to fetch: a repository of the hub and what of it."""

    repository: str  # "org/repo"
    variant: str = ""  # a quantisation of its GGUF files; "" = what suits the repository
    kind: str = ""  # "gguf", or another kind for directories; "" = whatever there is


class ShortNames:
    """The catalogue, by name and tag."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self._by_name: dict[str, dict[str, Entry]] = {}
        for entry in entries:
            name = ModelName.parse(entry.name)
            tags = self._by_name.setdefault(name.model.casefold(), {})
            tags[name.tag.casefold()] = entry
            if entry.default:
                tags[DEFAULT_TAG] = entry

    def find(self, name: ModelName) -> tuple[Entry, str]:
        """The entry of a short name, and what stands behind its tag: "" or "awq" or "q4_k_m".

        Raises UnknownShortNameError, which names the nearest.
        """
        tags, tag = self._by_name.get(name.model.casefold(), {}), name.tag.casefold()
        fitting = [known for known in tags if tag == known or tag.startswith(f"{known}-")]
        if not fitting:
            raise self._unknown(name, tags)
        known = max(fitting, key=len)
        return tags[known], _FILLERS.sub("", tag[len(known) + 1 :])

    def open_choice(self, name: ModelName) -> Entry | None:
        """The entry of a short name that says nothing of the kind; None for every other name."""
        if name.host != DEFAULT_HOST or name.namespace != DEFAULT_NAMESPACE:
            return None
        entry, wanted = self.find(name)
        return None if wanted else entry

    def _unknown(self, name: ModelName, tags: Mapping[str, Entry]) -> UnknownShortNameError:
        if tags:
            nearest = tuple(dict.fromkeys(entry.name for entry in tags.values()))
        else:
            close = difflib.get_close_matches(name.model.casefold(), self._by_name, n=_NEAREST, cutoff=0.5)
            nearest = tuple(close)
        listed = f"; the nearest are {', '.join(nearest)}" if nearest else ""
        return UnknownShortNameError(
            f"'{name.short}' is not in the catalogue of short names{listed}",
            hint="any repository of the hub can be pulled by its own name, as hf.co/ORGANISATION/REPOSITORY[:VARIANT]",
            nearest=nearest,
        )


def of_hub(name: ModelName) -> bool:
    """Whether the name is a repository's, and none of the catalogue."""
    return name.host in HUB_HOSTS or (name.host == DEFAULT_HOST and name.namespace != DEFAULT_NAMESPACE)


def source_of(name: ModelName, names: ShortNames, prefer: Sequence[str]) -> Source:
    """Where `name` leads.  `prefer` orders the kinds for names that leave the choice open: ("fp8", "bf16", "gguf").

    Raises UnknownShortNameError, and RepositoryNotFoundError for hosts that are no hub and kinds there are not.
    """
    if of_hub(name):
        variant = "" if name.tag.casefold() == DEFAULT_TAG else name.tag
        return Source(f"{name.namespace}/{name.model}", variant, GGUF if tuple(prefer[:1]) == (GGUF,) else "")
    if name.host != DEFAULT_HOST:
        hint = "for a mirror of huggingface.co set HF_ENDPOINT, and pull by hf.co/ORGANISATION/REPOSITORY"
        raise RepositoryNotFoundError(f"{name.host} is not a model hub that can be pulled from", hint=hint)
    entry, wanted = names.find(name)
    kind = _kind(entry, wanted, prefer)
    if kind == GGUF:
        return Source(entry.gguf, "" if wanted in {"", GGUF} else wanted, GGUF)
    return Source(entry.repository(kind), kind=kind)


def _kind(entry: Entry, wanted: str, prefer: Sequence[str]) -> str:
    """Which of the entry's kinds: the stated one, else the first that is preferred, else the first there is."""
    if wanted == "":
        return next((kind for kind in prefer if kind in entry.kinds), entry.kinds[0])
    if wanted in entry.kinds:
        return wanted
    if wanted in {"fp16", "f16"} and PUBLISHED in entry.weights:
        return PUBLISHED
    if entry.gguf:
        return GGUF
    listed = ", ".join(f"{entry.name}-{kind}" for kind in entry.kinds)
    raise RepositoryNotFoundError(f"{entry.name} does not come as '{wanted}'", hint=f"there is {listed}")


def load(directory: Path) -> ShortNames:
    """Read catalog.toml from the configuration directory, else from where the package put it; raises ConfigError."""
    beside = Path(__file__).parents[2] / "etc" / "hyperllama"
    for place in (directory, SYSTEM_DIRECTORY, Path(sys.prefix) / "share" / "hyperllama", beside):
        path = place / _FILE
        if path.exists():
            return read(path)
    return ShortNames(())


def read(path: Path) -> ShortNames:
    """Raises ConfigError: not readable, not TOML, an unknown key, two entries of one name, an entry without weights."""
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
        seen: set[str] = set()
        for entry in file.model:
            key = ModelName.parse(entry.name).key
            if key in seen:
                raise ConfigError(f"{path}: {entry.name} is there twice")
            if not entry.kinds:
                raise ConfigError(f"{path}: {entry.name} has neither `weights` nor `gguf`")
            if unknown := set(entry.weights) - fitting.LEAST.keys():
                known = ", ".join(fitting.LEAST)
                raise ConfigError(f"{path}: {entry.name} has weights of the kind {min(unknown)}, but there are {known}")
            seen.add(key)
    except ConfigError:
        raise
    except OSError as failure:
        raise ConfigError(f"{path} cannot be read: {failure.strerror}") from failure
    except (ValueError, msgspec.ValidationError, HyperLlamaError) as failure:
        raise ConfigError(f"{path}: {failure}") from failure
    return ShortNames(file.model)
