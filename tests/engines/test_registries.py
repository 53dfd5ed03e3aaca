"""What an engine knows, read from a tree that looks like its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.engines import registries

VLLM = """
_TEXT_GENERATION_MODELS = {"LlamaForCausalLM": ("llama", "LlamaForCausalLM"), "Qwen3ForCausalLM": ("q", "Q")}
_EMBEDDING_MODELS: dict[str, tuple[str, str]] = {"BertModel": ("bert", "B"), **_TEXT_GENERATION_MODELS}
_PREVIOUSLY_SUPPORTED_MODELS = {"OldForCausalLM": "0.9"}
_VLLM_MODELS = {**_TEXT_GENERATION_MODELS}
_OTHER = {"NotAModel": 1}
x: int
"""
MAX = """
class _LazyArch: ...
def register():
    for arch in (
        _LazyArch("LlamaForCausalLM", ".llama3", "llama_arch"),
        _LazyArch("MistralForCausalLM", ".mistral", "mistral_arch"),
        _LazyArch(name="Qwen3ForCausalLM_ModuleV3", module=".qwen3.inner", symbol="q"),
        _LazyArch("Draft", ".llama3", "d", speculates_on="LlamaForCausalLM"),
        _LazyArch("Draft2", ".llama3", "d", "LlamaForCausalLM"),
    ):
        register_lazy(arch)
"""
MODELS = {
    "llama3/model_config.py": 'class C:\n    SUPPORTED_ENCODINGS: set = {"float32", "bfloat16"}\n',
    "mistral/model_config.py": 'class C:\n    SUPPORTED_ENCODINGS = {"bfloat16"}\n    default = "float32"\n',
    "qwen3/arch.py": 'a = SupportedArchitecture(name="x", supported_encodings={"float32"})\n',
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "lib/python3.12/site-packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_vllm(tmp_path: Path) -> None:
    write(tmp_path, {"vllm/model_executor/models/registry.py": VLLM})
    assert registries.read("vllm", tmp_path, "cpu") == {"LlamaForCausalLM", "Qwen3ForCausalLM", "BertModel"}


def test_max(tmp_path: Path) -> None:
    architectures = "max/pipelines/architectures"
    write(tmp_path, {f"{architectures}/__init__.py": MAX, **{f"{architectures}/{k}": v for k, v in MODELS.items()}})
    everything = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"}
    assert registries.read("max", tmp_path, "cuda") == everything
    assert registries.read("max", tmp_path, "cpu") == everything - {"MistralForCausalLM"}


def test_an_engine_without_a_list(tmp_path: Path) -> None:
    assert registries.read("llama_cpp", tmp_path, "cpu") == frozenset()


def test_a_list_that_moved_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"registry\.py"):
        registries.read("vllm", tmp_path, "cpu")
