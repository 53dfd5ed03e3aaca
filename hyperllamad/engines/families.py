"""Which parser reads a family's tool calls and its reasoning, and how it is asked to fill a gap: families.toml.

Engines that read Hugging Face directories must be told; llama.cpp finds out from the chat template by itself.  Knows
the table and nothing of any engine's command line.
"""

from __future__ import annotations

import functools
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hyperllamad.config.paths import SYSTEM_DIRECTORY
from hyperllamad.core.errors import ConfigError
from hyperllamad.core.models import Model

_FILE = "families.toml"
_BESIDE = Path(__file__).parents[2] / "etc" / "hyperllama"


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of families.toml.  What it states of a model must all hold; what it leaves out is not asked."""

    name: str  # for people
    source: str  # where it is written down
    architectures: tuple[str, ...] = ()  # as config.json has them; the model's is one of these
    names: str = ""  # a regular expression found somewhere in the model's name, whatever its case
    template: tuple[str, ...] = ()  # texts that all stand in the chat template
    vllm_tools: str = ""  # for --tool-call-parser
    vllm_reasoning: str = ""  # for --reasoning-parser
    max_tools: str = ""  # the parser MAX chooses for the architecture by itself
    thinking: str = ""  # what the chat template calls the switch that others call enable_thinking
    insert: str = ""  # the prompt for a gap: {prefix} and {suffix} stand for what is around it


@dataclass(frozen=True, slots=True)
class Ways:
    """What the table says of one model; "" where no family that fits states it."""

    vllm_tools: str = ""
    vllm_reasoning: str = ""
    max_tools: str = ""
    thinking: str = ""
    insert: str = ""


def find(model: Model) -> Ways:
    """Each thing from the first family that fits and states it; raises ConfigError when the table cannot be read."""
    # Every name there is of a model, since a user may call it what they like.
    names = f"{model.name} {model.parent} {model.info.get('general.basename', '')}"
    return _find(model.architecture, names, model.chat_template)


@functools.lru_cache(maxsize=256)
def _find(architecture: str, names: str, template: str) -> Ways:
    fitting = [family for family in table() if _fits(family, architecture, names, template)]
    return Ways(*(_first(fitting, field) for field in Ways.__slots__))


@functools.cache
def table() -> tuple[Family, ...]:
    """The table of this system, read once; raises ConfigError."""
    return look()


def forget() -> None:
    """Read the table again when it is next needed."""
    table.cache_clear()
    _find.cache_clear()


def look() -> tuple[Family, ...]:
    """The table as it is now: that of /etc, else where the package put it; raises ConfigError."""
    for place in (SYSTEM_DIRECTORY, Path(sys.prefix) / "share" / "hyperllama", _BESIDE):
        if (path := place / _FILE).exists():
            return read(path)
    return ()


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    family: tuple[Family, ...] = ()


def read(path: Path) -> tuple[Family, ...]:
    """Raises ConfigError: not readable, not TOML, an unknown key, no pattern, a gap without its two sides."""
    try:
        families = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).family
        for family in families:
            _check(family)
    except OSError as failure:
        raise ConfigError(f"{path} cannot be read: {failure.strerror}") from failure
    except (ValueError, re.error, msgspec.ValidationError) as failure:
        raise ConfigError(f"{path}: {failure}") from failure
    return families


def _check(family: Family) -> None:
    """Raises ValueError or re.error."""
    re.compile(family.names)
    if not (family.architectures or family.names or family.template):
        raise ValueError(f"{family.name} would fit every model: state `architectures`, `names` or `template`")
    if family.insert and any(family.insert.count(side) != 1 for side in ("{prefix}", "{suffix}")):
        raise ValueError(f"`insert` of {family.name} must hold {{prefix}} and {{suffix}} once each")


def _fits(family: Family, architecture: str, names: str, template: str) -> bool:
    if family.architectures and architecture not in family.architectures:
        return False
    if family.names and not re.search(family.names, names, re.IGNORECASE):
        return False
    return all(text in template for text in family.template)


def _first(families: Sequence[Family], field: str) -> str:
    return next((value for family in families if (value := getattr(family, field))), "")
