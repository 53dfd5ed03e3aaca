"""What people and programs see: snapshots of the text, and JSON that parses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperllamactl.protocol.table import Line
from tests.ctl import replies
from tests.ctl.conftest import Outcome
from tests.ctl.fake_daemon import FakeDaemon

Ctl = Callable[..., Outcome]
Snapshot = Callable[[str, str], None]

DONE = {"type": "done", "message": "it is done"}
CHANGE = {"type": "change", "at": replies.NOW, "name": "smollm2:135m", "state": "starting", "phase": "weights"}
AT_ONCE: dict[str, tuple[list[str], str, dict[str, Any]]] = {
    "why": (["why", "smollm2:135m"], "why", replies.WHY),
    "why-nothing": (["why", "smollm2:135m"], "why", {"type": "why_report", "model": "smollm2:135m"}),
    "ps": (["ps"], "ps", replies.instances(*replies.ALL)),
    "ps-empty": (["ps"], "ps", replies.instances()),
    "ps-quiet": (["ps", "-q"], "ps", replies.instances(*replies.ALL)),
    "list": (["list"], "list", {"type": "models", "models": [replies.UNSERVED, replies.MODEL]}),
    "list-quiet": (["ls", "-q"], "list", {"type": "models", "models": [replies.UNSERVED, replies.MODEL]}),
    "show": (["show", "smollm2:135m"], "show", replies.DETAILS),
    "status": (["status"], "status", replies.STATUS),
    "info": (["info"], "info", replies.MACHINE),
    "info-no-gpu": (["info"], "info", replies.NO_GPU),
    "recommend": (["recommend", "--all"], "recommend", replies.OFFERS),
    "recommend-quiet": (["recommend", "-q"], "recommend", replies.OFFERS),
    "recommend-nothing": (["recommend"], "recommend", {"type": "recommendations", "offers": []}),
    "engine-list": (["engine", "list"], "engine-list", {"type": "engines", "engines": replies.ENGINES}),
    "key-list": (["key", "list"], "key-list", replies.KEYS),
    "key-list-quiet": (["key", "ls", "-q"], "key-list", replies.KEYS),
    "key-list-empty": (["key", "list"], "key-list", {**replies.KEYS, "keys": [], "required": False}),
    "engine-list-quiet": (["engine", "ls", "-q"], "engine-list", {"type": "engines", "engines": replies.ENGINES}),
}
STREAMS: dict[str, tuple[list[str], str, list[dict[str, Any]]]] = {
    "load": (
        ["load", "smollm2:135m"],
        "load",
        [
            replies.progress("starting"),
            replies.progress("weights", elapsed=1.2),
            replies.progress("weights", elapsed=2.2),
            replies.instances(replies.READY),
        ],
    ),
    "pull": (
        ["pull", "qwen3:8b"],
        "pull",
        [
            replies.progress("choosing", "qwen3:8b-fp8: compute capability 8.9 computes in fp8"),
            {"type": "caution", "message": "it will not run here as things are"},
            replies.progress("pulling manifest"),
            replies.fetched(("config.json", 700, 700), ("model-1.safetensors", 10**9, 4 * 10**9)),
            replies.fetched(("config.json", 700, 700), ("model-1.safetensors", 4 * 10**9, 4 * 10**9), elapsed=61),
            replies.progress("success", elapsed=62),
            DONE,
        ],
    ),
    "gc": (["gc", "--dry-run"], "gc", [replies.COLLECTED]),
    "gc-nothing": (["gc"], "gc", [{"type": "collected", "items": [], "freed": 0}]),
    "warm": (["warm", "smollm2:135m"], "warm", [replies.progress("compiling", elapsed=61), DONE]),
    "unload": (["unload", "smollm2:135m"], "unload", [replies.progress("draining", "2 requests", elapsed=61), DONE]),
    "logs": (
        ["logs", "smollm2:135m"],
        "logs",
        [{"type": "log_line", "at": replies.NOW, "text": text} for text in ("one", "two  ü")] + [{"type": "done"}],
    ),
    "events": (["events"], "events", [replies.PLACED, replies.DECISION, {"type": "done"}]),
    "plan-load": (["plan", "load", "qwen3:8b"], "plan-load", [replies.PLAN]),
    "plan-load-never": (["plan", "load", "qwen3:32b"], "plan-load", [replies.NEVER]),
    "watch": (["watch"], "watch", [CHANGE, {**CHANGE, "state": "ready", "phase": "", "detail": "after 2 s"}, DONE]),
    "engine-install": (
        ["engine", "install", "vllm"],
        "engine-install",
        [
            replies.progress("creating"),
            replies.progress("downloading", "torch.whl", done=10**6, total=4 * 10**6, elapsed=3),
            replies.progress("downloading", "torch.whl", done=2 * 10**6, total=4 * 10**6, elapsed=4),
            replies.progress("installing", "80 packages", elapsed=4000),
            DONE,
        ],
    ),
    "engine-remove": (["engine", "remove", "vllm"], "engine-remove", [DONE]),
    "key-new": (["key", "new", "alice"], "key-new", [replies.KEY]),
    "key-new-off": (["key", "new", "alice"], "key-new", [{**replies.KEY, "required": False}]),
    "key-remove": (["key", "rm", "alice"], "key-remove", [DONE]),
}


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize("name", AT_ONCE)
def test_text(name: str, daemon: FakeDaemon, ctl: Ctl, snapshot: Snapshot) -> None:
    words, command, reply = AT_ONCE[name]
    daemon.says(command, reply)
    outcome = ctl(*words)
    assert (outcome.exit, outcome.err) == (0, "")
    snapshot(name, outcome.out)


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize("name", STREAMS)
def test_text_of_streams(name: str, daemon: FakeDaemon, ctl: Ctl, snapshot: Snapshot) -> None:
    words, command, lines = STREAMS[name]
    daemon.says(command, *lines)
    outcome = ctl(*words)
    assert outcome.exit == 0
    snapshot(name, f"-- standard output --\n{outcome.out}-- standard error --\n{outcome.err}")


@pytest.mark.parametrize("name", AT_ONCE)
def test_json_is_one_document_of_the_wire(name: str, daemon: FakeDaemon, ctl: Ctl) -> None:
    words, command, reply = AT_ONCE[name]
    daemon.says(command, reply)
    outcome = ctl(*words, "--json")
    document = json.loads(outcome.out)
    assert document.items() >= {k: v for k, v in reply.items() if not isinstance(v, (list, dict))}.items()
    assert msgspec.convert(document, Line) == msgspec.convert(reply, Line)
    assert (outcome.exit, outcome.err) == (0, "")


@pytest.mark.parametrize("name", STREAMS)
def test_json_of_streams_is_one_object_per_line(name: str, daemon: FakeDaemon, ctl: Ctl) -> None:
    words, command, lines = STREAMS[name]
    daemon.says(command, *lines)
    outcome = ctl(*words, "--json")
    assert [json.loads(line)["type"] for line in outcome.out.splitlines()] == [line["type"] for line in lines]
    assert (outcome.exit, outcome.err) == (0, "")


@pytest.mark.parametrize("name", ["load", "unload", "engine-install", "engine-remove", "key-remove"])
def test_quiet_shows_no_progress(name: str, daemon: FakeDaemon, ctl: Ctl) -> None:
    words, command, lines = STREAMS[name]
    daemon.says(command, *lines)
    assert ctl(*words, "-q") == Outcome(0, "", "")


@pytest.mark.parametrize(
    ("words", "command", "fields"),
    [
        (["load", "m", "--keep-alive", "10m"], "load", {"model": "m", "keep_alive": "10m"}),
        (["load", "m", "--keep-alive", "-1"], "load", {"model": "m", "keep_alive": -1.0}),
        (["load", "m", "--keep-alive", "nan"], "load", {"model": "m", "keep_alive": "nan"}),
        (["load", "m"], "load", {"model": "m", "keep_alive": None}),
        (["gc", "--dry-run"], "gc", {"dry_run": True}),
        (["events", "-n", "5", "-f"], "events", {"lines": 5, "follow": True}),
        (["recommend", "qwen3:8b", "--all"], "recommend", {"model": "qwen3:8b", "every": True}),
        (["unload", "m", "--now"], "unload", {"model": "m", "now": True}),
        (["logs", "-n", "5", "-f", "m"], "logs", {"model": "m", "lines": 5, "follow": True}),
        (
            ["engine", "install", "vllm", "--version", "1", "--variant", "cpu"],
            "engine-install",
            {"name": "vllm", "version": "1", "variant": "cpu"},
        ),
        (
            ["engine", "remove", "vllm", "--version", "1", "--variant", "cpu", "--force"],
            "engine-remove",
            {"name": "vllm", "version": "1", "variant": "cpu", "force": True},
        ),
        (
            ["key", "new", "a", "--concurrent", "2", "--tokens-per-minute", "0"],
            "key-new",
            {"name": "a", "concurrent": 2, "tokens_per_minute": 0},
        ),
        (["key", "new", "a"], "key-new", {"name": "a", "concurrent": None, "tokens_per_minute": None}),
    ],
)
def test_options_become_fields(
    words: list[str], command: str, fields: dict[str, Any], daemon: FakeDaemon, ctl: Ctl
) -> None:
    answers = {
        "load": replies.instances(),
        "key-new": replies.KEY,
        "gc": replies.COLLECTED,
        "recommend": replies.OFFERS,
    }
    daemon.says(command, answers.get(command, DONE))
    assert ctl(*words).exit == 0
    assert daemon.asked == [(command, fields)]
    assert "Host: hyperllamad\r\n" in daemon.heads[0]


def test_a_modelfile_is_sent(daemon: FakeDaemon, ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    (tmp_path / "Modelfile").write_text("FROM ./x.gguf\nSYSTEM Be brief.\nPARAMETER top_k 3\nMESSAGE user Hi\n")
    daemon.says("create", DONE)
    assert ctl("create", "mine", "-f", str(tmp_path / "Modelfile")) == Outcome(0, "", "it is done\n")
    ((name, fields),) = daemon.asked
    assert name == "create"
    assert {key: value for key, value in fields.items() if value} == {
        "model": "mine",
        "path": str(tmp_path / "x.gguf"),
        "system": "Be brief.",
        "parameters": {"top_k": 3},
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_a_modelfile_that_is_wrong_is_not_sent(daemon: FakeDaemon, ctl: Ctl, tmp_path: Path) -> None:
    path = tmp_path / "Modelfile"
    missing = ctl("create", "mine", "-f", str(path))
    assert (missing.exit, missing.err) == (
        2,
        f"hyperllamactl: {path} cannot be read: No such file or directory\nname a Modelfile with -f\n",
    )
    path.write_text("FROM a\nSISTEM x\n")
    wrong = ctl("create", "mine", "-f", str(path))
    assert wrong.exit == 2
    assert wrong.err == f"hyperllamactl: {path}: line 2: 'SISTEM' is no instruction: did you mean SYSTEM?\n"
    assert daemon.asked == []


def test_a_modelfile_from_standard_input(daemon: FakeDaemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("FROM qwen3:8b\n"))
    daemon.says("create", DONE)
    assert ctl("create", "mine", "-f", "-").exit == 0
    assert daemon.asked[0][1]["base"] == "qwen3:8b"


def test_nothing_of_a_model_commands_the_terminal(daemon: FakeDaemon, ctl: Ctl) -> None:
    evil = "a\x1b]0;title\x07b\x1b[2Jc\r\x9bd\te\n\x1b[31mf"
    daemon.says("show", replies.DETAILS | {"system": evil})
    assert "a]0;titleb[2Jcd\te\n" in ctl("show", "m").out
    daemon.says("load", replies.progress("weights", evil), {"type": "done", "message": evil})
    outcome = ctl("load", "m")
    for text in (outcome.out, outcome.err):
        assert not {"\x07", "\r", "\x9b"} & set(text)
        assert text.count("\x1b") == text.count("\x1b[31m"), "colours do no harm"
