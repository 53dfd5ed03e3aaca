"""The store on the wire: which models there are, and the commands that change that."""

from __future__ import annotations

from typing import Any

import msgspec

from hyperllamactl.protocol.base import Command, Reply, Role


class ModelRow(msgspec.Struct, kw_only=True):
    """One model as `list` shows it."""

    name: str
    id: str  # the first 12 hex digits of the digest
    size: int  # bytes
    modified_at: float  # Unix seconds
    format: str  # gguf, safetensors
    family: str
    parameter_size: str  # 134.52M, 8.0B
    quantization: str
    engine: str = ""  # the engine that would serve it; "" when none can
    problem: str = ""  # why none can


class BrokenModel(msgspec.Struct, kw_only=True):
    """Something that was meant to be a model and cannot be used."""

    name: str
    path: str
    problem: str  # a sentence


class Models(Reply, tag="models"):
    """What is in the store, newest first."""

    models: list[ModelRow]
    broken: list[BrokenModel] = []


class List(Command):
    """List the models in the store."""

    reply = Models


class ModelDetails(Reply, tag="model_details"):
    """`show`: everything known of one model."""

    model: ModelRow
    path: str
    architecture: str
    context_length: int  # tokens the model was trained for
    embedding_length: int
    capabilities: list[str]  # completion, tools, vision, embedding, ...
    system: str = ""  # the system message it comes with
    parameters: dict[str, Any] = {}  # the options it comes with
    license: str = ""


class Show(Command):
    """Show one model."""

    reply = ModelDetails

    model: str


class Pull(Command):
    """Fetch a model from a hub, or what is missing of it."""

    role = Role.ADMIN
    streams = True

    model: str  # hf.co/org/repo[:variant], org/repo, or a short name such as qwen3:8b


class Remove(Command):
    """Remove a model from the store; a running copy stays until it is unloaded."""

    role = Role.ADMIN
    streams = True

    model: str


class Copy(Command):
    """Give a model a second name; no weights are copied."""

    role = Role.ADMIN
    streams = True

    source: str
    destination: str


class Turn(msgspec.Struct, kw_only=True):
    """One message of a conversation that a model begins with."""

    role: str  # system, user, assistant
    content: str


class Create(Command):
    """Make a model from a Modelfile: another one with something added, or files on this machine, which are linked."""

    role = Role.ADMIN
    streams = True

    model: str  # the name to make
    base: str = ""  # FROM: a model, pulled if it is not here
    path: str = ""  # FROM: in its place, a GGUF file or a Hugging Face directory; absolute
    system: str = ""
    template: str = ""
    license: list[str] = []
    parameters: dict[str, Any] = {}
    messages: list[Turn] = []
    adapters: list[str] = []  # LoRA adapters in GGUF files on this machine; absolute paths


class GarbageRow(msgspec.Struct, kw_only=True):
    """Something no name refers to."""

    path: str
    size: int  # bytes
    reason: str


class Collected(Reply, tag="collected"):
    """`gc`: what was removed, or would be."""

    items: list[GarbageRow]
    freed: int  # bytes
    dry_run: bool = False


class CollectGarbage(Command):
    """Remove what no name refers to from the store, or only list it; caches of other programs are not touched."""

    role = Role.ADMIN
    reply = Collected
    streams = True

    dry_run: bool = False
