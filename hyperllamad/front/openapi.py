"""The OpenAPI document of this API, made of the table of routes and of the Structs that read and write its bodies.

Pure, and the same for every installation.  Schemas come from the Structs; openapi_fields says only what they do not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hyperllamad.front.openapi_fields import FIELDS, REQUIRED
from hyperllamad.front.openapi_routes import ROUTES, Route, Struct

Schema = dict[str, Any]

_COMPONENTS = "#/components/schemas/"
_OPENAPI = "3.1.0"
_KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"x-api-key": []}, {}]  # any of them; none where keys are off
_TAGS = {
    "Ollama": "The native API, as Ollama 0.33 answers it, and tokenize and detokenize beside it.",
    "OpenAI": "Chats, completions, responses, embeddings, models; and rerank beside them.",
    "Anthropic": "Messages.",
    "Server": "The server itself.",
}
_ABOUT = """\
Ollama's API, and OpenAI's and Anthropic's, over supervised engines.  Field names are read in any case, fields that are
not known are ignored, and null stands for a field that is left out.  The response headers `X-Hyperllama-Truncated` and
`X-Hyperllama-Num-Ctx` say that a chat was too long for the model's context, or asked for a longer one than there is.
"""
_STATUS = {
    200: "Done.",
    201: "It was not there before.",
    400: "The request is wrong, or cannot be done by this model or its engine.",
    401: "No API key, or none that is known.",
    403: "Not here.",
    404: "There is no such model or file.",
    409: "In use, or the name is taken.",
    429: "More than the limits of the API key allow; `Retry-After` says when to try again.",
    500: "The engine failed.",
    503: "Too many requests wait, or the server is shutting down.",
    507: "The disk is full.",
}


@functools.cache
def document(version: str) -> bytes:
    """The document as JSON; `version` is ours."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), route in ROUTES.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, route, schemas)
    whole = {
        "openapi": _OPENAPI,
        "info": {"title": "HyperLlama", "version": version, "description": _ABOUT},
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": _KEYS,
    }
    return msgspec.json.encode(whole)


def _operation(method: str, path: str, route: Route, schemas: _Schemas) -> Schema:
    made: Schema = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": dict(_responses(route, schemas)),
    }
    if names := re.findall(r"{(\w+)}", path):
        made["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.asks is not None:
        content = {"application/json": {"schema": schemas.request(route)}}
        made["requestBody"] = {"required": True, "content": content}
    if route.uploads:
        made["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    if route.open:
        made["security"] = []
    return made


def _responses(route: Route, schemas: _Schemas) -> Iterator[tuple[str, Schema]]:
    answers: Mapping[str, Struct | None] = route.answers or {}
    content = {kind: {} if struct is None else {"schema": schemas.reply(struct)} for kind, struct in answers.items()}
    error = {"content": {"application/json": {"schema": schemas.reply(route.error)}}}
    done: Schema = {"description": _STATUS[route.status]} | ({"content": content} if content else {})
    yield str(route.status), done | (error if route.status >= 400 else {})
    for status in sorted({*route.fails, *(() if route.open else (401,))} - {route.status}):
        yield str(status), {"description": _STATUS[status]} | error
    yield "default", {"description": "Anything else.", **error}


class _Schemas:
    """Collects components; each is named for the module its Struct lives in, since dialects share their words."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def request(self, route: Route) -> Schema:
        """A reference to the schema of what a route asks for: the fields that it reads, and no others."""
        assert route.asks is not None  # noqa: S101 - the caller's condition
        struct, shape = route.asks
        name = f"{_module(struct.__module__)}.{shape.go_name}"
        self.reply(struct)
        read = self.components.pop(f"{_module(struct.__module__)}.{struct.__name__}")
        wire = {wire: read["properties"][attribute] for wire, attribute in shape.names()}
        properties = {
            field: FIELDS.get(f"{shape.go_name}.{field}", FIELDS.get(field, schema)) for field, schema in wire.items()
        }
        self.components[name] = read | {"title": name, "properties": properties}
        return {"$ref": _COMPONENTS + name, "required": list(route.required)}

    def reply(self, struct: Struct) -> Schema:
        """A reference to the schema of a Struct, which is added with all it is made of."""
        _, found = msgspec.json.schema_components([struct], ref_template="{name}")
        for name, schema in found.items():
            full = self._full(name, struct)
            for field in schema.get("properties", ()):
                schema["properties"][field] = FIELDS.get(f"{full}.{field}", schema["properties"][field])
            schema["required"] = REQUIRED.get(full, schema.get("required", []))
            self.components[full] = _relinked(schema, lambda ref: self._link(ref, struct))
        return {"$ref": _COMPONENTS + f"{_module(struct.__module__)}.{struct.__name__}"}

    def _link(self, ref: str, struct: Struct) -> str:
        return ref if ref.startswith(_COMPONENTS) else _COMPONENTS + self._full(ref, struct)

    @staticmethod
    def _full(name: str, struct: Struct) -> str:
        """Parts of a Struct are taken to live beside it unless msgspec says where."""
        module, _, short = name.rpartition(".")
        return f"{_module(module or struct.__module__)}.{short}"


def _module(name: str) -> str:
    return name.rpartition(".")[2]


def _relinked(schema: Any, link: Any) -> Any:
    """The schema with every reference replaced."""
    if isinstance(schema, dict):
        return {key: link(value) if key == "$ref" else _relinked(value, link) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_relinked(item, link) for item in schema]
    return schema
