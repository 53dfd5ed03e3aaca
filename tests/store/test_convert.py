"""From GGUF to a Hugging Face directory: values, configuration, tokenizer, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.core.models import Format
from hyperllamad.core.names import ModelName
from hyperllamad.store import convert, llama
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import locate
from tests.store.files import Tensor
from tests.store.tiny_llama import ALPHABET, HEADS, MERGES, TEMPLATE, TOKENS, Floats, TinyLlama, permuted


@pytest.fixture(scope="module")
def tiny() -> TinyLlama:
    return TinyLlama()


def converted(tmp_path: Path, content: bytes, dtype: str = "float32") -> Path:
    (tmp_path / "m.gguf").write_bytes(content)
    convert.convert(tmp_path / "m.gguf", tmp_path / "hf", dtype)
    return tmp_path / "hf"


def weights(directory: Path) -> dict[str, tuple[str, Floats]]:
    """What the safetensors package reads, bfloat16 widened to float32."""
    found = {}
    for name, tensor in safetensors.deserialize((directory / "model.safetensors").read_bytes()):
        raw = bytes(tensor["data"])
        if tensor["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, np.float32)
        found[name] = (tensor["dtype"], values.reshape(tensor["shape"]))
    return found


def content(directory: Path, name: str) -> Any:
    return json.loads((directory / name).read_text())


def test_every_value_arrives_in_its_place(tmp_path: Path, tiny: TinyLlama) -> None:
    found = weights(converted(tmp_path, tiny.gguf()))
    assert found.keys() == tiny.wanted.keys()
    for name, wanted in tiny.wanted.items():
        dtype, values = found[name]
        assert dtype == "F32"
        np.testing.assert_array_equal(values, wanted, err_msg=name)


def test_bfloat16_is_rounded_to_the_nearest(tmp_path: Path, tiny: TinyLlama) -> None:
    found = weights(converted(tmp_path, tiny.gguf(), "bfloat16"))
    inexact = 0
    for name, wanted in tiny.wanted.items():
        dtype, values = found[name]
        assert dtype == "BF16"
        below = (wanted.view(np.uint32) & 0xFFFF0000).view(np.float32)
        above = ((wanted.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
        nearest = np.minimum(abs(wanted - below), abs(wanted - above))
        np.testing.assert_array_equal(abs(values - wanted), nearest, err_msg=name)
        inexact += int((values != wanted).sum())
    assert inexact > 10_000


def test_rows_are_put_back_in_order() -> None:
    rows = np.arange(32, dtype=np.float32).reshape(32, 1)
    mixed = permuted(rows, HEADS)
    assert mixed[:4, 0].tolist() == [0, 4, 1, 5]
    np.testing.assert_array_equal(llama.unpermute(mixed, HEADS), rows)


def test_the_configuration(tmp_path: Path, tiny: TinyLlama) -> None:
    directory = converted(tmp_path, tiny.gguf(), "bfloat16")
    assert content(directory, "config.json") == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": len(TOKENS),
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    assert content(directory, "generation_config.json") == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_an_output_matrix_of_its_own(tmp_path: Path) -> None:
    untied = TinyLlama(tied=False)
    directory = converted(tmp_path, untied.gguf(tokenizer__ggml__eot_token_id=0))
    assert content(directory, "config.json")["tie_word_embeddings"] is False
    assert content(directory, "config.json")["eos_token_id"] == [2, 0]
    np.testing.assert_array_equal(weights(directory)["lm_head.weight"][1], untied.wanted["lm_head.weight"])


def test_the_tokenizer(tmp_path: Path, tiny: TinyLlama) -> None:
    directory = converted(tmp_path, tiny.gguf())
    tokenizer = content(directory, "tokenizer.json")
    assert tokenizer["model"]["vocab"] == {token: number for number, token in enumerate(TOKENS)}
    assert tokenizer["model"]["merges"] == MERGES
    assert [(t["id"], t["content"], t["special"]) for t in tokenizer["added_tokens"]] == [
        (0, "<|endoftext|>", True),
        (1, "<|im_start|>", True),
        (2, "<|im_end|>", True),
        (3, "<tool>", False),
    ]
    digits, byte_level = tokenizer["pre_tokenizer"]["pretokenizers"]
    assert digits == {"type": "Digits", "individual_digits": True}
    assert (byte_level["type"], byte_level["add_prefix_space"], byte_level["use_regex"]) == ("ByteLevel", False, True)
    assert tokenizer["decoder"]["type"] == "ByteLevel"
    assert tokenizer["post_processor"] is None
    config = content(directory, "tokenizer_config.json")
    assert config["chat_template"] == TEMPLATE
    assert [config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")] == [
        TOKENS[n] for n in (1, 2, 0, 2)
    ]
    assert config["model_max_length"] == 128
    assert set(config["added_tokens_decoder"]) == {"0", "1", "2", "3"}
    assert len(set(ALPHABET)) == 256


def test_variants_of_the_tokenizer(tmp_path: Path, tiny: TinyLlama) -> None:
    tokenizer = content(
        converted(tmp_path, tiny.gguf(tokenizer__ggml__pre="gpt-2", tokenizer__ggml__add_bos_token=True)),
        "tokenizer.json",
    )
    assert tokenizer["pre_tokenizer"]["type"] == "ByteLevel"
    assert tokenizer["post_processor"]["single"][0] == {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    assert tokenizer["post_processor"]["special_tokens"]["<|im_start|>"]["ids"] == [1]


def test_the_result_is_a_model(tmp_path: Path, tiny: TinyLlama) -> None:
    model = inspect(ModelName.parse("m"), locate(converted(tmp_path, tiny.gguf(), "bfloat16")))
    assert (model.format, model.architecture, model.quantization) == (Format.SAFETENSORS, "LlamaForCausalLM", "BF16")
    assert model.parameter_count == sum(values.size for values in tiny.wanted.values())
    assert model.chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"general__architecture": "qwen2"}, "of the architecture 'qwen2', and only 'llama' can be converted"),
        ({"llama__rope__scaling__type": "yarn"}, "scales its positions ('yarn')"),
        ({"llama__block_count": 3}, "lacks 'blk.2.attn_k.weight'"),
        ({"llama__block_count": 1}, "holds 'blk.1.attn_k.weight', which has no place"),
        ({"llama__block_count": 0}, "claims 0 blocks"),
        ({"llama__block_count": 1 << 31}, "claims 2147483648 blocks"),
        ({"llama__attention__head_count": 0}, "0 attention heads over 2"),
        ({"llama__attention__head_count": 7, "llama__attention__head_count_kv": 7}, "cannot be split over 7"),
        ({"llama__attention__head_count": [4, 4]}, "0 attention heads"),
        ({"tokenizer__ggml__model": "llama"}, "the tokenizer 'llama' with pre-tokenizer 'smollm'"),
        ({"tokenizer__ggml__pre": "qwen2"}, "pre-tokenizer 'qwen2' cannot be rebuilt"),
        ({"tokenizer__ggml__tokens": None}, "has no list tokenizer.ggml.tokens"),
        ({"tokenizer__ggml__merges": [1, 2]}, "has no list tokenizer.ggml.merges"),
        ({"tokenizer__ggml__merges": ["Ġ ż"]}, "the merge 'Ġ ż' makes or uses a token that is not in the token list"),
        ({"tokenizer__ggml__tokens": [*TOKENS[:-1], TOKENS[0]]}, "the same token twice"),
        ({"tokenizer__ggml__token_type": [1]}, "or its types do not match it"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    tmp_path: Path, tiny: TinyLlama, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], says: str
) -> None:
    (tmp_path / "m.gguf").write_bytes(tiny.gguf(**changes))
    assert convert.main([str(tmp_path / "m.gguf"), str(tmp_path / "hf")]) == 1
    sentence = capsys.readouterr().err
    assert says in sentence
    assert sentence.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_tensors_that_cannot_be_unpacked(tmp_path: Path) -> None:
    for number, type_name in ((200, "unknown (200)"), (9, "Q8_1")):
        tiny = TinyLlama()
        norm = tiny.tensors[1]
        tiny.tensors[1] = Tensor(norm.name, norm.shape, number, norm.data)
        with pytest.raises(HyperLlamaError) as caught:
            converted(tmp_path, tiny.gguf())
        assert f"output_norm.weight is stored as {type_name}, not convertible" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_a_truncated_source(tmp_path: Path, tiny: TinyLlama) -> None:
    with pytest.raises(HyperLlamaError, match="is truncated"):
        converted(tmp_path, tiny.gguf()[:-1])


def test_a_missing_package_is_named(tmp_path: Path, tiny: TinyLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "hyperllamad.store.llama")
    monkeypatch.delattr("hyperllamad.store.llama")
    with pytest.raises(HyperLlamaError, match="needs the Python package 'gguf'"):
        converted(tmp_path, tiny.gguf())


def test_as_a_command(tmp_path: Path, tiny: TinyLlama) -> None:
    (tmp_path / "m.gguf").write_bytes(tiny.gguf())
    command = [sys.executable, "-m", "hyperllamad.store.convert", "m.gguf", "hf", "--dtype", "float32"]
    for code, says in (
        (0, ""),
        (1, f"{tmp_path / 'hf'} exists already (remove it first, or name another directory)\n"),
    ):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, says)
    assert content(tmp_path / "hf", "config.json")["torch_dtype"] == "float32"


def test_the_store_loads_no_numpy() -> None:
    """What the daemon imports of this room must not bring numpy into it."""
    modules = "catalog, demo, inspect, survey, layout, staging"
    check = f"from hyperllamad.store import {modules}; import sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_quantising_rows_is_independent_of_their_order() -> None:
    """What the made-up model relies on when it permutes packed rows."""
    values = np.random.default_rng(2).standard_normal((8, 64), dtype=np.float32)
    kind = gguf.GGMLQuantizationType.Q4_1
    np.testing.assert_array_equal(gguf.quantize(values, kind)[::-1], gguf.quantize(values[::-1].copy(), kind))
