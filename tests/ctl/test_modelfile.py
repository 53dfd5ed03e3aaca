"""Modelfiles: what they come to, and what is said of mistakes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hyperllamactl import modelfile
from hyperllamactl.modelfile import ModelfileError
from hyperllamactl.protocol.store import Create, Turn

WHOLE = '''# a pirate
FROM qwen3:8b

PARAMETER temperature 0.2
parameter NUM_CTX 8192
PARAMETER stop "<|end|>"
PARAMETER stop User:
PARAMETER use_mmap true
SYSTEM """You are a pirate.
# and this is no comment
You say "arr"."""
TEMPLATE """{{ .System }} {{ .Prompt }}"""
LICENSE "MIT"
LICENSE """Two
lines"""
MESSAGE user Who are you?
Message assistant """I am
a pirate."""
ADAPTER ./lora
'''


def test_everything_at_once(tmp_path: Path) -> None:
    made = modelfile.parse(WHOLE, "pirate", str(tmp_path))
    assert made == Create(
        model="pirate",
        base="qwen3:8b",
        system='You are a pirate.\n# and this is no comment\nYou say "arr".',
        template="{{ .System }} {{ .Prompt }}",
        license=["MIT", "Two\nlines"],
        parameters={"temperature": 0.2, "num_ctx": 8192, "stop": ["<|end|>", "User:"], "use_mmap": True},
        messages=[Turn(role="user", content="Who are you?"), Turn(role="assistant", content="I am\na pirate.")],
        adapters=[str(tmp_path / "lora")],
    )


@pytest.mark.parametrize("text", ["FROM x.gguf", "FROM ./x.gguf", "\ufefffrom\t./sub/../x.gguf\r\n"])
def test_files_of_this_machine(tmp_path: Path, text: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "x.gguf").touch()
    made = modelfile.parse(text, "m", str(tmp_path))
    assert (made.base, made.path) == ("", str(tmp_path / "x.gguf"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no FROM"),
        ("# FROM x", "there is no FROM"),
        ("FROM", "line 1: FROM says nothing"),
        ("FROM a\nFROM b", "line 2: FROM is there twice, first in line 1"),
        ("FROM ./nothing.gguf", r"line 1: there is no /.*/nothing.gguf"),
        ("FROM nothing.gguf", r"line 1: there is no /.*/nothing.gguf"),
        ("FROM a\n\nSYSTM be brief", "line 3: 'SYSTM' is no instruction: did you mean SYSTEM?"),
        ("FROM a\nfoo", "line 2: 'foo' is no instruction: there are FROM, PARAMETER"),
        ("FROM a\nPARAMETER temprature 1", "line 2: there is no parameter 'temprature'; did you mean temperature?"),
        ("FROM a\nPARAMETER zzz 1", "line 2: there is no parameter 'zzz'$"),
        ("FROM a\nPARAMETER temperature hot", "line 2: temperature is 'hot', but a number was expected"),
        ("FROM a\nPARAMETER temperature nan", "line 2: temperature is 'nan', but a number was expected"),
        ("FROM a\nPARAMETER num_ctx 1.5", "line 2: num_ctx is '1.5', but a whole number was expected"),
        ("FROM a\nPARAMETER use_mmap maybe", "line 2: use_mmap is 'maybe', but true or false was expected"),
        ("FROM a\nPARAMETER top_k", "line 2: the parameter top_k has no value"),
        ("FROM a\nMESSAGE robot beep", "line 2: 'robot' is no role of a message: system, user, assistant"),
        ("FROM a\nMESSAGE user", "line 2: the message says nothing"),
        ('FROM a\nSYSTEM """never\nended', 'line 2: SYSTEM opens """ and never closes it'),
        ('FROM a\nSYSTEM """ended\nhere""" and more', 'line 2: behind the closing """ of SYSTEM stands \'and more\''),
        ("FROM a\nLICENSE", "line 2: LICENSE says nothing"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ModelfileError, match=words):
        modelfile.parse(text, "m", str(tmp_path))


def test_any_text_is_understood_or_refused(tmp_path: Path) -> None:
    """Pieces of Modelfiles in any order: never another error, and each outcome is reached."""
    pieces = [
        "FROM a\n",
        "SYSTEM ",
        '"""',
        '"',
        "\n",
        "PARAMETER stop ",
        "x",
        "#",
        "MESSAGE user ",
        "TEMPLATE t\n",
        " ",
        "\0",
    ]
    chance, understood, refused = random.Random(7), 0, 0
    for _ in range(3000):
        text = "FROM b\n" * chance.randint(0, 1) + "".join(chance.choices(pieces, k=chance.randint(1, 8)))
        try:
            made = modelfile.parse(text, "m", str(tmp_path))
        except ModelfileError as failure:
            refused += 1
            assert str(failure).startswith(("line ", "there is no FROM"))
        else:
            understood += 1
            assert made.base in {"a", "b"}
    assert min(understood, refused) > 300
