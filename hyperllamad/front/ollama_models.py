"""GET /api/tags, GET /api/ps, POST /api/show: what is here, what is loaded, what one model is."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import anyio.to_thread
import msgspec
from quart import Blueprint, Response, request

from hyperllamad.core.errors import BadRequestError, HyperLlamaError, ModelNotFoundError
from hyperllamad.core.instance import State
from hyperllamad.core.models import Capability, Format, Model
from hyperllamad.core.names import ModelName
from hyperllamad.front import body, gojson, gotime, ollama_checks, replies
from hyperllamad.front import ollama_wire as wire
from hyperllamad.front.ollama_requests import SHOW, ShowRequest
from hyperllamad.front.ports import Row, Services
from hyperllamad.front.request_scope import record
from hyperllamad.store import inspect

_LOADED = frozenset({State.READY, State.DRAINING, State.STOPPING})  # before that Ollama lists nothing


class OllamaModelRoutes:
    """The routes that only look."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("ollama_models", __name__)
        routes.add_url_rule("/api/tags", view_func=self.tags, methods=["GET", "HEAD"])
        routes.add_url_rule("/api/ps", view_func=self.ps, methods=["GET"])
        routes.add_url_rule("/api/show", view_func=self.show, methods=["POST"])
        return routes

    async def tags(self) -> Response:
        items = [_tags_item(model) for model in self._services.catalog.list()]
        return replies.json(wire.TagsReply(models=items).encode())

    async def ps(self) -> Response:
        now = time.time()
        rows = [row for row in self._services.supervisor.rows() if row.state in _LOADED]
        rows.sort(key=lambda row: _expires(row, now), reverse=True)
        return replies.json(wire.PsReply(models=[self._ps_item(row, now) for row in rows]).encode())

    def _ps_item(self, row: Row, now: float) -> wire.PsItem:
        try:
            details = _details(self._services.catalog.resolve(row.name), parent=False)
        except HyperLlamaError:  # deleted since it was loaded; it stays until its time is over
            details = _NO_DETAILS
        return wire.PsItem(
            name=row.name,
            model=row.name,
            size=row.size,
            digest=row.digest,
            details=details,
            expires_at=gotime.local(_expires(row, now)),
            size_vram=row.size if "GPU" in row.processor else 0,
            context_length=row.context,
        )

    async def show(self) -> Response:
        asked = await body.receive(SHOW)
        name = asked.model or asked.name
        if not name:
            raise BadRequestError("model is required")
        try:
            model = ollama_checks.find(self._services.catalog, name, remote=ollama_checks.REMOTE_DETAILS)
        except ModelNotFoundError:
            raise ModelNotFoundError(ModelName.parse(name).short) from None
        record().model = model.name.short
        copilot = request.headers.get("User-Agent", "").startswith("GitHubCopilotChat/")
        info, tensors = await anyio.to_thread.run_sync(_read_files, model, asked.verbose)
        info = _model_info(model, info, verbose=asked.verbose)
        if copilot:
            info["general.basename"] = name
        return replies.json(_show(model, asked, info, tensors).encode())


def _details(model: Model, *, lengths: bool = False, parent: bool = True) -> wire.Details:
    return wire.Details(
        parent_model=model.parent if parent else "",
        format=model.format.value,
        family=model.family,
        families=[model.family] if model.family else [],
        parameter_size=model.parameter_size,
        quantization_level=model.quantization,
        context_length=model.context_length if lengths else 0,
        embedding_length=model.embedding_length if lengths else 0,
    )


_NO_DETAILS = wire.Details(parent_model="", format="", family="", families=[], parameter_size="", quantization_level="")


def _capabilities(model: Model) -> list[str]:
    return [capability.value for capability in Capability if capability in model.capabilities]


def _tags_item(model: Model) -> wire.TagsItem:
    return wire.TagsItem(
        name=model.name.short,
        model=model.name.short,
        modified_at=gotime.local(model.modified_at),
        size=model.size,
        digest=model.digest,
        details=_details(model, lengths=True),
        capabilities=_capabilities(model),
    )


def _expires(row: Row, now: float) -> float:
    """Unix seconds.  Of one that is going already it is now, so that the CLI prints "Stopping..."."""
    if row.state is not State.READY:
        return now
    return math.inf if row.until is None else row.until


# -- show --------------------------------------------------------------------------------------------------------------


def _read_files(model: Model, verbose: bool) -> tuple[Mapping[str, Any], list[wire.Tensor]]:  # noqa: FBT001  for a thread
    """(metadata, tensors), with what the catalog does not keep: up to half a second of reading."""
    if model.format is not Format.GGUF:  # Ollama lists the tensors of its own format only
        return model.info, []
    try:
        info = inspect.verbose_info(model) if verbose else model.info
        tensors = [wire.Tensor(name=t.name, type=t.type, shape=list(t.shape)) for t in inspect.tensors(model)]
    except (OSError, HyperLlamaError):
        return model.info, []
    return info, tensors


def _show(model: Model, asked: ShowRequest, info: Mapping[str, Any], tensors: list[wire.Tensor]) -> wire.ShowReply:
    system, template = asked.system or model.system, asked.template or model.template or model.chat_template
    parameters = {**model.parameters, **asked.options}
    return wire.ShowReply(
        license=model.license,
        modelfile=_modelfile(model, template, system, parameters),
        parameters=_parameters(parameters),
        template=template,
        system=system,
        details=_details(model),
        messages=[wire.Message(role=turn.role, content=turn.content) for turn in model.messages],
        model_info=gojson.plain(info),
        tensors=tensors,
        capabilities=_capabilities(model),
        modified_at=gotime.local(model.modified_at),
    )


def _model_info(model: Model, found: Mapping[str, Any], *, verbose: bool) -> dict[str, Any]:
    """GGUF-style keys; lists (tokens, merges) only when asked for, and exactly one key with the context length."""
    architecture = str(found.get("general.architecture") or model.family)
    least = {
        "general.architecture": architecture,
        "general.parameter_count": model.parameter_count,
        f"{architecture}.context_length": model.context_length,
        f"{architecture}.embedding_length": model.embedding_length,
    }
    info = {key: value for key, value in least.items() if value}
    hidden = {"general.name", "tokenizer.chat_template"}
    info |= {key: value for key, value in found.items() if key not in hidden}
    if not verbose:
        info = {key: None if isinstance(value, (list, tuple)) else value for key, value in info.items()}
    return info


def _parameters(parameters: Mapping[str, Any]) -> str:
    """A line for each value: the name padded to 30 columns, a space, the value in Go's syntax."""
    return "\n".join(f"{name:<30} {_go(value)}" for name, value in _each(parameters))


def _each(parameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    listed = [(name, value if isinstance(value, list) else [value]) for name, value in parameters.items()]
    return [(name, item) for name, items in listed for item in items]


def _go(value: Any) -> str:
    """A value as Go's %#v writes it: texts in double quotes, whole numbers bare, 1e+06 from a million on."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "<nil>"}[value]
    if isinstance(value, (int, float)):
        shortest = Decimal(repr(float(value))).normalize()
        if value == 0 or -4 <= shortest.adjusted() < 6:
            return f"{shortest:f}"
        mantissa, _, exponent = f"{shortest:e}".partition("e")
        return f"{mantissa}e{exponent[0]}{exponent[1:]:0>2}"
    return msgspec.json.encode(value).decode()


def _modelfile(model: Model, template: str, system: str, parameters: Mapping[str, Any]) -> str:
    """A Modelfile that would make this model again."""
    lines = [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        f"# FROM {model.name.short}",
        "",
        f"FROM {model.path}",
        *(f"ADAPTER {path}" for path in model.adapters),
    ]
    if template:
        lines.append(f"TEMPLATE {_quoted(template)}")
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    for name, value in _each(parameters):
        lines.append(f"PARAMETER {name} {_go(value) if not isinstance(value, str) else value}")
    lines += [f"MESSAGE {turn.role} {_quoted(turn.content)}" for turn in model.messages]
    if model.license:
        lines.append(f'LICENSE """{model.license}"""')
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f'"""{text}"""' if "\n" in text or '"' in text else text
