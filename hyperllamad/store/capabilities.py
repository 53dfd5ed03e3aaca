"""What a model can do, told from what its files say.  Pure.

For GGUF by Ollama's rules (server/images.go, Capabilities), for Hugging Face directories by what stands for the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hyperllamad.core.models import Capability

_THINKING = re.compile(r"<think>|enable_thinking|reasoning_effort")
_INSERT = re.compile(r"fim[_▁-](?:prefix|begin)|▁<PRE>")
_INSERT_KEYS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_NO_GENERATION = re.compile(r"(?:Model|Embeddings?|ForSequenceClassification|ForMaskedLM)$")


def of_gguf(metadata: Mapping[str, Any]) -> frozenset[Capability]:
    """From a GGUF's metadata."""
    architecture = metadata.get("general.architecture")
    if f"{architecture}.pooling_type" in metadata:
        return frozenset({Capability.EMBEDDING})
    found = {Capability.COMPLETION, *_of_template(str(metadata.get("tokenizer.chat_template") or ""))}
    if any(key.startswith(f"{architecture}.vision.") for key in metadata):
        found.add(Capability.VISION)
    if any(key in metadata for key in _INSERT_KEYS):
        found.add(Capability.INSERT)
    return frozenset(found)


def of_directory(
    config: Mapping[str, Any], tokenizer: Mapping[str, Any], template: str, *, pools: bool
) -> frozenset[Capability]:
    """From config.json, tokenizer_config.json, the chat template, and whether the files say that vectors are pooled."""
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    # Some remote code calls a model that generates ...Model, and then says how to load it to generate.
    generates = "AutoModelForCausalLM" in (config.get("auto_map") or ())
    if pools or (_NO_GENERATION.search(architecture) and not generates):
        return frozenset({Capability.EMBEDDING})
    found = {Capability.COMPLETION, *_of_template(template)}
    if isinstance(config.get("vision_config"), dict):
        found.add(Capability.VISION)
    added = tokenizer.get("added_tokens_decoder")
    tokens = [str(token) for token in added.values()] if isinstance(added, dict) else []
    if any(_INSERT.search(token) for token in tokens):
        found.add(Capability.INSERT)
    return frozenset(found)


def _of_template(template: str) -> set[Capability]:
    found = set()
    if "tools" in template:
        found.add(Capability.TOOLS)
    if _THINKING.search(template):
        found.add(Capability.THINKING)
    return found
