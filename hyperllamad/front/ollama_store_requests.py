"""What clients send to the native routes that change the store: one Struct and one `Shape` for each request.

Field names and types are Ollama's (api/types.go).  Of what has no meaning here only the types count: `insecure`,
`username` and `password` of a pull, `info` of a create.  Its `renderer`, `parser` and `requires` are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hyperllamad.core.errors import BadRequestError, HyperLlamaError, UnsupportedError
from hyperllamad.core.models import Message as Turn
from hyperllamad.front.ollama_requests import MESSAGE, Message
from hyperllamad.front.shapes import Reader, Reading, Shape, anything, boolean, listing, mapping, own_parser, string
from hyperllamad.store.variants import Wanted


class BadQuantizationError(HyperLlamaError):
    """There is no quantisation of that name; Ollama answers 500 to it, not 400."""

    code = "bad_quantization"

    def __init__(self, name: str) -> None:
        most = ", ".join(_QUANTIZATIONS)
        super().__init__(f"unsupported quantization type {name.upper()} - supported types are {most}")


class NamedRequest(msgspec.Struct, kw_only=True):
    """A request about one model: DELETE /api/delete, POST /api/pull, POST /api/push."""

    model: str = ""
    name: str = ""
    stream: bool = True
    insecure: bool = False  # this and the two below: looked at for their types alone
    username: str = ""
    password: str = ""

    @property
    def asked_model(self) -> str:
        """The name as the client wrote it."""
        return self.model or self.name


class CopyRequest(msgspec.Struct, kw_only=True):
    """POST /api/copy."""

    source: str = ""
    destination: str = ""


class CreateRequest(NamedRequest, kw_only=True):
    """POST /api/create; `files` and `adapters` are relative path -> digest of a blob."""

    from_: str = msgspec.field(default="", name="from")
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    draft_files: dict[str, str] = {}
    quantize: str = ""
    quantization: str = ""
    template: str = ""
    system: str = ""
    license: Any = None
    parameters: dict[str, Any] = {}
    messages: list[Message] = []
    remote_host: str = ""
    info: dict[str, Any] = {}

    def wanted(self) -> Wanted:
        """What the store is asked for; raises BadRequestError, UnsupportedError."""
        quantize = self.quantize or self.quantization
        if quantize and quantize.upper() not in _QUANTIZATIONS:
            raise BadQuantizationError(quantize)
        for field in _TEXTS_OF_INFO:
            if not isinstance(self.info.get(field, ""), str):
                raise BadRequestError(f'info field "{field}" must be a string')
        if self.draft_files:
            hint = "leave `draft_files` out"
            raise UnsupportedError("draft models are not supported: no engine here is given one", hint=hint)
        if self.remote_host:
            raise UnsupportedError("remote models are not supported: models run here only", hint="leave it out")
        return Wanted(
            name=self.asked_model,
            base=self.from_,
            files=self.files,
            adapters=self.adapters,
            quantize=quantize,
            system=self.system,
            template=self.template,
            license=_texts(self.license),
            parameters=self.parameters,
            messages=[Turn(message.role, message.content) for message in self.messages],
        )


_QUANTIZATIONS = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
_TEXTS_OF_INFO = ("model_family", "base_name", "quantization_level", "parameter_size")


def _texts(value: Any) -> Sequence[str]:
    """A text, a list of texts, or nothing."""
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in found):
        raise BadRequestError("license must be a string or a list of strings")
    return [text for text in found if text]


def _digests(value: Any, reading: Reading) -> dict[str, str]:
    if not isinstance(value, dict):
        reading.mismatch(value, "map[string]string")
        return {}
    return {path: string(digest, reading) for path, digest in value.items()}


_NAMED: dict[str, Reader] = {"model": string, "name": string, "stream": boolean}
_REMOTE: dict[str, Reader] = {**_NAMED, "insecure": boolean, "username": string, "password": string}

DELETE = Shape("DeleteRequest", NamedRequest, {"model": string, "name": string})
PULL = Shape("PullRequest", NamedRequest, _REMOTE)
PUSH = Shape("PushRequest", NamedRequest, _REMOTE)
COPY = Shape("CopyRequest", CopyRequest, {"source": string, "destination": string})


def _create(**fields: Any) -> CreateRequest:
    return CreateRequest(from_=fields.pop("from", ""), **fields)  # `from` is a word of Python's


CREATE = Shape(
    "CreateRequest",
    _create,
    {
        **_NAMED,
        "from": string,
        "files": _digests,
        "adapters": _digests,
        "draft_files": _digests,
        "quantize": string,
        "quantization": string,
        "template": string,
        "system": string,
        "license": anything,
        "parameters": mapping,
        "messages": listing("[]api.Message", own_parser(MESSAGE)),
        "remote_host": string,
        "info": mapping,
    },
)
