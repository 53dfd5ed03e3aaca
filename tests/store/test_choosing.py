"""Which files of repositories are fetched: shapes of real ones, by their file names."""

from __future__ import annotations

import pytest

from hyperllamad.core.errors import RepositoryNotFoundError, UnsupportedError
from hyperllamad.store.choosing import RemoteFile, choose


def chosen(paths: str, variant: str = "", kind: str = "") -> list[str]:
    """The paths chosen; each file is larger than the one before."""
    files = [RemoteFile(path, number, f"b{number}") for number, path in enumerate(paths.split(), 1)]
    return [file.path for file in choose("org/repo", files, variant, kind)]


def test_a_published_model() -> None:
    """Laid out as Meta's: the same weights again in `original`, texts nobody reads."""
    found = chosen(
        ".gitattributes LICENSE README.md USE_POLICY.md config.json generation_config.json tokenizer.json "
        "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json "
        "original/consolidated.00.pth original/params.json original/tokenizer.model special_tokens_map.json "
        "tokenizer_config.json training_args.bin trainer_state.json .origin.json"
    )
    assert found == [
        *("config.json", "generation_config.json", "model.safetensors.index.json", "special_tokens_map.json"),
        *("tokenizer.json", "tokenizer_config.json"),
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "LICENSE"),
    ]


def test_mistrals_two_layouts() -> None:
    found = chosen(
        "config.json consolidated.safetensors model-00001-of-00001.safetensors params.json tekken.json "
        "tokenizer.model.v3 tokenizer.model chat_template.jinja"
    )
    assert "consolidated.safetensors" not in found
    assert {"tekken.json", "tokenizer.model", "chat_template.jinja", "params.json"} <= set(found)


def test_an_embedding_model() -> None:
    found = chosen(
        "1_Pooling/config.json config.json modules.json sentence_bert_config.json model.safetensors vocab.txt "
        "pytorch_model.bin onnx/model.onnx openvino/openvino_model.xml tf_model.h5 tokenizer.json"
    )
    assert found == [
        *("1_Pooling/config.json", "config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json"),
        *("vocab.txt", "model.safetensors"),
    ]


GGUFS = "m-Q2_K.gguf m-Q4_K_M.gguf m-UD-Q4_K_XL.gguf m-Q8_0.gguf m-BF16/m-BF16-00001-of-00002.gguf \
m-BF16/m-BF16-00002-of-00002.gguf mmproj-F16.gguf imatrix.gguf m.imatrix README.md config.json .x-Q4_0.gguf"


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("", ["m-Q4_K_M.gguf"]),
        ("q8_0", ["m-Q8_0.gguf"]),
        ("Q4_K_XL", ["m-UD-Q4_K_XL.gguf"]),
        ("UD-Q4_K_XL", ["m-UD-Q4_K_XL.gguf"]),
        ("m-Q2_K", ["m-Q2_K.gguf"]),
        ("m-q2_k.gguf", ["m-Q2_K.gguf"]),
        ("bf16", ["m-BF16/m-BF16-00001-of-00002.gguf", "m-BF16/m-BF16-00002-of-00002.gguf"]),
    ],
)
def test_ggufs(variant: str, expected: list[str]) -> None:
    assert chosen(GGUFS, variant) == expected


def test_what_there_is_not() -> None:
    with pytest.raises(
        RepositoryNotFoundError, match=r"no variant 'Q9' .there is BF16, Q2_K, Q4_K_M, Q8_0, UD-Q4_K_XL"
    ):
        chosen(GGUFS, "Q9")
    with pytest.raises(
        RepositoryNotFoundError, match=r"several models with 'Q4_0' .name one of them in full: a-Q4_0, b-"
    ):
        chosen("a-Q4_0.gguf b-Q4_0.gguf", "Q4_0")
    with pytest.raises(UnsupportedError, match=r"only \.bin, \.onnx files"):
        chosen("config.json pytorch_model.bin model.onnx")
    with pytest.raises(UnsupportedError, match="no weights"):
        chosen("README.md")
    with pytest.raises(UnsupportedError, match="no weights"):
        chosen("adapter_model.safetensors adapter_config.json")


def test_without_a_usual_quantisation_the_smallest() -> None:
    assert chosen("m-F32.gguf m-F16.gguf") == ["m-F32.gguf"]


def test_repositories_with_both() -> None:
    both = "config.json model.safetensors m-Q4_K_M.gguf"
    assert chosen(both) == ["config.json", "model.safetensors"]
    assert chosen(both, kind="gguf") == ["m-Q4_K_M.gguf"]
    assert chosen(both, "Q4_K_M", "bf16") == ["m-Q4_K_M.gguf"]
    assert chosen(both, "safetensors") == ["config.json", "model.safetensors"]


def test_ggufs_lie_side_by_side_at_home() -> None:
    (file, _) = choose("o/r", [RemoteFile(f"q/m-0000{n}-of-00002.gguf", 1, "") for n in (1, 2)], "", "")
    assert file.local == "m-00001-of-00002.gguf"
