"""Which files of a repository are fetched: the one model that was asked for, and of it what an engine reads.  Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from hyperllamad.core.errors import RepositoryNotFoundError, UnsupportedError

GGUF = "gguf"
# Good and small first; then larger ones, which are better; then what is left.
_BY_DEFAULT = ("Q4_K_M", "MXFP4", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_XS", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0")
_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}")
_QUANTIZATION = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|MXFP4\w*|NVFP4|BF16|F16|F32|FP16|FP32))$", re.IGNORECASE
)
_NOT_MODELS = re.compile(r"(?:^|/)(?:mmproj|imatrix)|imatrix\.gguf$|-mmproj", re.IGNORECASE)
_TEXTS = frozenset({".json", ".jinja"})
_MORE = frozenset(
    {"tokenizer.model", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.tiktoken"}
)
_NOT_NEEDED = re.compile(r"training_args|trainer_state|all_results|train_results|eval_results|\.onnx|openvino")
_POOLING = re.compile(r"\d_\w+/config\.json")  # a sentence-transformers directory


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository."""

    path: str  # inside the repository, with slashes
    size: int  # bytes
    blob: str  # git's id of it: sha1 over its content, or over the pointer to a large file
    sha256: str = ""  # of the content; only large files have it

    @property
    def local(self) -> str:
        """Where it goes in the model's directory: GGUF files lie side by side there."""
        return PurePosixPath(self.path).name if self.path.lower().endswith(".gguf") else self.path


def choose(repository: str, files: Sequence[RemoteFile], variant: str, kind: str) -> tuple[RemoteFile, ...]:
    """The files to fetch.  `variant` names a quantisation of the GGUF files, `kind` is "gguf", another one, or "".

    Raises RepositoryNotFoundError (no such variant; the sentence lists what there is) and UnsupportedError (nothing
    that an engine could read).
    """
    files = [file for file in files if not re.search(r"(?:^|/)\.", file.path)]  # such names are the store's own
    groups = _groups(files)
    weights = _safetensors(files)
    if variant.casefold() == "safetensors" and weights:
        variant, groups = "", {}
    if variant:
        return (*_named(repository, groups, variant, weights), *_licenses(files))
    if groups and (kind == GGUF or not weights):
        return (*groups[_default(groups)], *_licenses(files))
    if weights:
        return (*sorted(_beside(files), key=lambda file: file.path), *weights, *_licenses(files))
    found = sorted({PurePosixPath(file.path).suffix for file in files} & {".bin", ".pt", ".pth", ".onnx", ".h5"})
    said = f"only {', '.join(found)} files" if found else "no weights"
    hint = "look for a repository of the same model with safetensors or GGUF files"
    raise UnsupportedError(f"{repository} holds {said}: no engine here reads that", hint=hint)


def _groups(files: Sequence[RemoteFile]) -> dict[str, tuple[RemoteFile, ...]]:
    """The GGUF models by name without ending and numbering."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        if file.path.lower().endswith(".gguf") and not _NOT_MODELS.search(file.path):
            stem = PurePosixPath(file.path).stem
            split = _SPLIT.fullmatch(stem)
            groups.setdefault(split["stem"] if split else stem, []).append(file)
    return {stem: tuple(parts) for stem, parts in groups.items()}


def _quantization(stem: str) -> str:
    found = _QUANTIZATION.search(stem)
    return found[1].upper() if found else ""


def _named(
    repository: str, groups: dict[str, tuple[RemoteFile, ...]], variant: str, weights: Sequence[RemoteFile]
) -> tuple[RemoteFile, ...]:
    wanted = variant.casefold().removesuffix(".gguf")
    fitting = [stem for stem in groups if wanted in {stem.casefold(), _quantization(stem).casefold()}]
    if not fitting:
        fitting = [stem for stem in groups if re.search(rf"[-_.]{re.escape(wanted)}$", stem.casefold())]
    if len(fitting) == 1:
        return groups[fitting[0]]
    if fitting:
        hint = f"name one of them in full: {', '.join(fitting[:5])}"
        raise RepositoryNotFoundError(f"{repository} has several models with '{variant}'", hint=hint)
    there = [_quantization(stem) or stem for stem in groups] + (["safetensors"] if weights else [])
    hint = f"there is {', '.join(dict.fromkeys(there))}" if there else "it holds no models"
    raise RepositoryNotFoundError(f"{repository} has no variant '{variant}'", hint=hint)


def _default(groups: dict[str, tuple[RemoteFile, ...]]) -> str:
    by_quantization = {_quantization(stem): stem for stem in reversed(groups)}
    for quantization in _BY_DEFAULT:
        if quantization in by_quantization:
            return by_quantization[quantization]
    return min(groups, key=lambda stem: sum(file.size for file in groups[stem]))


def _safetensors(files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The weights at the top of the repository; not the same ones once more in the publisher's own layout."""
    if not any(file.path == "config.json" for file in files):
        return ()
    found = sorted((file for file in files if re.fullmatch(r"[^/]+\.safetensors", file.path)), key=lambda it: it.path)
    model = [file for file in found if file.path.startswith("model")]
    plain = [file for file in found if not file.path.startswith(("consolidated", "adapter_"))]
    return tuple(model or plain)


def _beside(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """What engines read besides the weights: configuration, tokenizer, templates, pooling."""
    return [
        file
        for file in files
        if _POOLING.fullmatch(file.path)
        or ("/" not in file.path and file.path in _MORE)
        or (
            "/" not in file.path
            and PurePosixPath(file.path).suffix in _TEXTS
            and not _NOT_NEEDED.search(file.path)
            and not file.path.endswith(".safetensors.index.fp32.json")
        )
    ]


def _licenses(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if re.fullmatch(r"LICEN[CS]E(?:\.\w+)?", file.path, re.IGNORECASE)]
