"""A model, settings, homes and a place to try engines with."""

from __future__ import annotations

import dataclasses

from hyperllamad.core.models import Capability, Format, Model, Settings
from hyperllamad.core.names import ModelName
from hyperllamad.engines.base import Home, Host, Place

GGUF = Model(
    name=ModelName.parse("smollm2:135m"),
    path="/models/smollm2.gguf",
    format=Format.GGUF,
    architecture="llama",
    family="llama",
    size=96_000_000,
    digest="0123456789abcdef" * 4,
    modified_at=1.0,
    context_length=8192,
    capabilities=frozenset({Capability.COMPLETION}),
    info={
        "general.architecture": "llama",
        "llama.block_count": 30,
        "llama.attention.head_count_kv": 3,
        "llama.attention.key_length": 64,
        "llama.vocab_size": 49152,
    },
)
DIRECTORY = Model(
    name=GGUF.name,
    path="/models/smollm2",
    format=Format.SAFETENSORS,
    architecture="LlamaForCausalLM",
    family="llama",
    size=269_000_000,
    digest=GGUF.digest,
    modified_at=1.0,
    context_length=8192,
    capabilities=GGUF.capabilities,
    info=GGUF.info,
)

BERT = dataclasses.replace(
    DIRECTORY,
    architecture="BertModel",
    family="bert",
    context_length=256,
    capabilities=frozenset({Capability.EMBEDDING}),
    info={"bert.pooling_type": 1, "bert.vocab_size": 30522, "bert.block_count": 6}
    | {"bert.attention.head_count_kv": 12, "bert.attention.key_length": 32},
)
HERMES = "{{ tools }}<tool_call>{{ enable_thinking }}</think>"  # what a template is known by
FIM = {"tokenizer.ggml.fim_pre_token_id": 7, "tokenizer.ggml.suffix_token_id": 8, "tokenizer.ggml.fim_mid_token_id": 9}


def model_for(engine: str) -> Model:
    return GGUF if engine == "llama_cpp" else DIRECTORY


def encoder_for(engine: str) -> Model:
    """A model that gives embeddings."""
    return dataclasses.replace(GGUF, capabilities=BERT.capabilities) if engine == "llama_cpp" else BERT


def caller_for(engine: str) -> Model:
    """A model that calls tools, reasons and fills gaps."""
    able = {Capability.COMPLETION, Capability.TOOLS, Capability.THINKING, Capability.INSERT}
    model = model_for(engine)
    architecture = model.architecture if engine == "llama_cpp" else "Qwen3ForCausalLM"
    return dataclasses.replace(
        model,
        architecture=architecture,
        capabilities=frozenset(able),
        chat_template=HERMES,
        info={**model.info, **(FIM if engine == "llama_cpp" else {})},
    )


def home(engine: str, variant: str = "cpu", version: str = "1.0", architectures: tuple[str, ...] = ()) -> Home:
    id_ = f"{engine}-{version}-{variant}"
    if variant == "system":
        return Home(id=f"{engine}-system", engine=engine, version="", variant=variant, path="/usr/bin/llama-server")
    return Home(
        id=id_,
        engine=engine,
        version=version,
        variant=variant,
        path=f"/engines/{id_}",
        python=f"/engines/{id_}/bin/python",
        architectures=frozenset(architectures),
    )


def settings(engine: str, device: str = "cpu", **changes: object) -> Settings:
    stated: dict[str, object] = {"home": f"{engine}-1.0-{device}", "context": 4096, "parallel": 4}
    return Settings(engine=engine, device=device, **(stated | changes))  # type: ignore[arg-type]


def place(host: Host = Host(cpus=(0, 1), bfloat16=True)) -> Place:  # noqa: B008
    return Place("/run/hyperllama/e/1/e.sock", "/run/hyperllama/e/1/tmp", "/run/hyperllama/e/1/cwd", "/cache/1", host)
