"""Manual pages and completions say what the parsers and the configuration say, and bash's really completes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from hyperllamactl import cli
from hyperllamad.config.tables import AdminTable, EnginesTable, FleetTable, ModelsTable, ModelTable, Server
from tools import __main__ as tools
from tools import commandline, manual, roff

FILES = tools.files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == FILES[path], "run: make docs"


def test_nothing_else_lies_there() -> None:
    directories = [tools.ROOT / "man", tools.ROOT / "completions"]
    there = {path for directory in directories for path in directory.iterdir()}
    assert there == {path for path in FILES if path.parent in directories}


def test_every_subcommand_is_in_the_manual() -> None:
    page = FILES[tools.ROOT / "man" / "hyperllamactl.1"]
    found = [heading.replace("\\-", "-") for heading in re.findall(r'^\.SS "(.+)"$', page, re.MULTILINE)]
    assert sorted(found) == sorted(parser.prog.partition(" ")[2] for parser in cli.build_parser()[1].values())


def test_every_key_of_a_model_file_is_in_the_manual() -> None:
    assert set(manual.MODEL_KEYS) == {field.name for field in msgspec.structs.fields(ModelTable)}


def test_every_key_of_the_configuration_is_in_the_manual() -> None:
    page = FILES[tools.ROOT / "man" / "hyperllamad.toml.5"]
    for table in (Server, FleetTable, ModelsTable, EnginesTable, AdminTable):
        for field in msgspec.structs.fields(table):
            assert re.search(rf"^\\fB{field.name} = ", page, re.MULTILINE), field.name


def test_text_cannot_become_a_request() -> None:
    assert roff.escape(".TH no\n'br\nC:\\x a-b") == "\\&.TH no\n\\&'br\nC:\\ex a\\-b"


def test_options_with_and_without_values_are_told_apart() -> None:
    logs = next(leaf for leaf in commandline.hyperllamactl().leaves() if leaf.name == "logs")
    options = {option.long: option.value for option in logs.options}
    assert options["--lines"] == "N"
    assert options["--follow"] == ""
    assert logs.positionals == ("MODEL",)


def complete(tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last word; a stand-in for hyperllamactl knows two models, one of them loaded."""
    program = tmp_path / "hyperllamactl"
    program.write_text('#!/bin/sh\n[ "$1" = ps ] && echo one:latest || printf "one:latest\\ntwo:latest\\n"\n')
    program.chmod(0o755)
    script = (
        f'PATH={tmp_path}:$PATH; source {tools.ROOT}/completions/{words[0]}; COMP_WORDS=("$@"); '
        f'COMP_CWORD=$(($# - 1)); _{words[0]}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_subcommands_options_and_names(tmp_path: Path) -> None:
    assert complete(tmp_path, "hyperllamactl", "un") == ["unload"]
    assert complete(tmp_path, "hyperllamactl", "engine", "in") == ["install"]
    assert complete(tmp_path, "hyperllamactl", "engine", "install", "") == ["llama_cpp", "vllm", "max"]
    assert complete(tmp_path, "hyperllamactl", "engine", "install", "--variant", "") == ["cpu", "cuda"]
    assert complete(tmp_path, "hyperllamactl", "load", "t") == ["two:latest"]
    assert complete(tmp_path, "hyperllamactl", "unload", "") == ["one:latest"]
    assert complete(tmp_path, "hyperllamactl", "logs", "--f") == ["--follow"]
    assert complete(tmp_path, "hyperllamactl", "ls", "--j") == ["--json"]
    assert complete(tmp_path, "hyperllamad", "--ch") == ["--check-config"]


def test_bash_is_not_led_astray_by_words_that_look_like_subcommands(tmp_path: Path) -> None:
    assert complete(tmp_path, "hyperllamactl", "load", "list", "--k") == ["--keep-alive"]
