"""LoRA adapters: GGUF files that a variant lays over its base's weights; llama.cpp applies them as it loads.

An uploaded one lies in `.adapters` in the directory of the models as a second name for its blob's bytes; one on this
machine stays where it is, and a variant names it by its path.  Owns `.adapters`; knows nothing of names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyperllamad.core.errors import BadRequestError, LoadFailedError, UnsupportedError
from hyperllamad.core.models import Format, Model
from hyperllamad.store import digest, disk, gguf
from hyperllamad.store.blobs import Blobs, parse_digest

_CONVERT = (
    "llama.cpp applies LoRA adapters in GGUF files: its convert_lora_to_gguf.py makes one of a safetensors adapter"
)


@dataclass(frozen=True, slots=True)
class Source:
    """An adapter that a client names."""

    called: str  # as the client calls it
    path: Path  # where it lies
    kept: str  # as a variant's file will name it: a file of `.adapters`, or an absolute path


class Adapters:
    """The kept files.  No state but what lies on the disk."""

    def __init__(self, models: Path) -> None:
        self.directory = models / ".adapters"
        self._blobs = Blobs(models)

    def path(self, kept: str) -> Path:
        """Where the adapter lies that a variant's file names so."""
        return self.directory / kept  # an absolute path stays what it is

    def sources(self, uploaded: Mapping[str, str], local: Sequence[str]) -> tuple[Source, ...]:
        """What a client names: file name -> digest of a blob, and paths on this machine.  Raises BadRequestError."""
        found = []
        for called, text in uploaded.items():
            hexadecimal = parse_digest(text)
            kept, path = f"sha256-{hexadecimal}.gguf", self._blobs.path(text)
            if not path.is_file():
                path = self.path(kept)
            if not path.is_file():
                hint = f"upload it first with POST /api/blobs/sha256:{hexadecimal}"
                raise BadRequestError(f"the adapter {called} (sha256:{hexadecimal}) is not here", hint=hint)
            found.append(Source(called, path, kept))
        for called in local:
            if not Path(called).is_absolute() or "\0" in called:
                raise BadRequestError(f"{called} is not an absolute path", hint="begin at the root: /srv/lora.gguf")
            found.append(Source(called, Path(called), called))
        return tuple(found)

    def keep(self, sources: Iterable[Source]) -> None:
        """Give uploaded ones their second names.  Raises StoreError."""
        for source in sources:
            target = self.path(source.kept)
            if not target.exists():
                with disk.explained(f"the adapter {source.called}"):
                    self.directory.mkdir(parents=True, exist_ok=True)
                    temporary = target.with_suffix(disk.TEMPORARY)  # where there are no links, bytes are copied
                    temporary.unlink(missing_ok=True)
                    disk.link(source.path, temporary)
                    disk.rename(temporary, target)

    def unused(self, kept: Iterable[str]) -> tuple[Path, ...]:
        """The files of `.adapters` that are not among those that variants keep."""
        needed = {self.path(name) for name in kept}
        return tuple(path for path in sorted(self.directory.glob("*")) if path not in needed)

    def remove(self, path: Path) -> None:
        """Remove one of unused(), and its blob if no model shares it.  Raises StoreError."""
        with disk.explained(f"the adapter {path.name}"):
            shared = self._blobs.inodes((path,))
            disk.remove(path)
            self._blobs.release(shared)


def check(sources: Iterable[Source], base: Model) -> None:
    """Raises UnsupportedError and BadRequestError, in the client's words, for what cannot be laid over `base`."""
    for source in sources:
        try:
            _header(source.path, base)
        except LoadFailedError as failure:
            words = failure.message.replace(str(source.path), source.called)
            raise BadRequestError(words, hint=failure.hint) from failure
        except UnsupportedError as failure:
            raise UnsupportedError(
                failure.message.replace(str(source.path), source.called), hint=failure.hint
            ) from None


def applied(paths: Sequence[Path], base: Model) -> Model:
    """The base with adapters over its weights: other weights, so another digest.

    Raises LoadFailedError, UnsupportedError for files that are gone or not for this model, OSError.
    """
    if not paths:
        return base
    headers = [_header(path, base) for path in paths]
    total = hashlib.sha256(base.digest.encode())
    for header in headers:
        total.update(digest.of_gguf([header]).encode())
    return replace(
        base,
        adapters=(*base.adapters, *map(str, paths)),
        digest=total.hexdigest(),
        size=base.size + sum(header.file_size for header in headers),
    )


def _header(path: Path, base: Model) -> gguf.Header:
    """The header of a LoRA adapter for `base`."""
    if base.format is not Format.GGUF:
        raise UnsupportedError(
            f"adapters are not supported for '{base.name.short}', a safetensors model: llama.cpp alone applies them",
            hint="create it from a GGUF of the model, or merge the adapter into the weights",
        )
    # Unlike Path.is_dir, this says no where a directory on the way may not be entered; gguf.read says why.
    if os.path.isdir(path) or path.suffix == ".safetensors":  # noqa: PTH112
        raise UnsupportedError(f"{path} is not a GGUF file", hint=_CONVERT)
    header = gguf.read(path)
    if header.missing_bytes:
        raise gguf.truncated(header)
    kinds = header.text("general.type"), header.text("adapter.type")
    if kinds != ("adapter", "lora"):
        raise LoadFailedError(f"{path} is not a LoRA adapter", hint=_CONVERT)
    if (architecture := header.text("general.architecture")) != base.architecture:
        raise LoadFailedError(
            f"{path} is an adapter for models of architecture {architecture or '(none)'}, "
            f"and '{base.name.short}' is {base.architecture}",
            hint="take the model that the adapter was trained on",
        )
    return header
