"""Sizes and times in Ollama's words, tables, colours, the progress line."""

from __future__ import annotations

import io
import re

import pytest

from hyperllamactl import render
from hyperllamactl.protocol.base import Failed, FilePart, Progress
from hyperllamactl.protocol.daemon import StatusReport
from hyperllamactl.talk import Talk, painter

DAY = 86400


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1500, "1.5 KB"),
        (91_700_000, "91 MB"),
        (9_600_000_000, "9.6 GB"),
        (17_400_000_000, "17 GB"),
        (1_300_000_000_000, "1.3 TB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert render.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "Less than a second"),
        (1.2, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (299, "4 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (2 * DAY, "2 days"),
        (13.9 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (731 * DAY, "2 years"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert render.duration(seconds) == shown


def test_moment() -> None:
    assert render.moment(100.0, 40.0) == "About a minute from now"
    assert render.moment(40.0, 100.0) == "About a minute ago"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0s"), (9.96, "10.0s"), (12.7, "12s"), (64, "1m04s"), (3720, "1h02m")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert render.clock(seconds) == shown


@pytest.mark.parametrize(("done", "shown"), [(0, "  0%"), (1, " 25%"), (4, "100%"), (9, "100%")])
def test_bar_never_leaves_its_frame(done: int, shown: str) -> None:
    bar = render.bar(done, 4, 8)
    assert len(bar) == 15
    assert bar.endswith(shown)


def test_colour_does_not_change_the_columns() -> None:
    rows = [("a", "ready", "x"), ("b", "failed", "y")]

    def paint(text: str, kind: str) -> str:
        return f"<{kind}>{text}</>"

    painted = render.table(("NAME", "STATE", "Z"), rows, paint, ["ready", "failed"])
    assert painted.splitlines() == ["NAME  STATE   Z", "a     <ready>ready </>  x", "b     <failed>failed</>  y"]


# -- standard error ----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_where_they_are_wanted() -> None:
    assert painter(Terminal(), {})("x", "ready") == "\x1b[32mx\x1b[0m"
    assert painter(Terminal(), {})("x", "starting") == "\x1b[33mx\x1b[0m"
    for stream, environ in ((Terminal(), {"NO_COLOR": "1"}), (Terminal(), {"TERM": "dumb"}), (io.StringIO(), {})):
        assert painter(stream, environ)("x", "ready") == "x"


def test_a_terminal_has_one_line_that_is_written_over_and_taken_away() -> None:
    terminal = Terminal()
    talk = Talk(terminal)
    talk.progress(Progress(phase="weights", elapsed=1))
    talk.progress(Progress(phase="weights", elapsed=2))
    talk.say("ready")
    talk.clear()
    assert terminal.getvalue() == "\rweights  1.0s\x1b[K\rweights  2.0s\x1b[K\r\x1b[Kready\n"


def test_the_line_is_cut_to_the_terminal() -> None:
    terminal = Terminal()
    Talk(terminal).progress(Progress(phase="x" * 200))
    assert terminal.getvalue() == "\r" + "x" * 79 + "\x1b[K"


def screen(text: str) -> list[str]:
    """What a terminal shows of it: carriage returns, new lines, moves up, and erasing to the end of line or screen."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[\d*[AKJ]|\r|\n|[^\x1b\r\n]+", text):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece.endswith("A") and piece.startswith("\x1b"):
            row -= int(piece[2:-1])
        elif piece.startswith("\x1b"):
            lines[row] = lines[row][:column]
            lines = lines[: row + 1] if piece.endswith("J") else lines
        else:
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return lines


def fetched(*parts: tuple[str, int, int]) -> Progress:
    files = [FilePart(name=name, done=done, total=total) for name, done, total in parts]
    return Progress(phase="pulling", files=files, done=sum(f.done for f in files), total=sum(f.total for f in files))


def test_a_bar_for_each_file_and_one_for_all() -> None:
    terminal = Terminal()
    talk = Talk(terminal)
    talk.progress(Progress(phase="pulling manifest"))
    talk.progress(fetched(("a", 1, 4), ("bb", 0, 4)))
    assert screen(terminal.getvalue()) == [
        "a   [#####---------------]  25%  4 B",
        "bb  [--------------------]   0%  4 B",
        "0 of 2 files  [##------------------]  12%  1 B of 8 B  0.0s",
    ]
    talk.progress(fetched(("a", 4, 4), ("bb", 2, 4)))
    assert screen(terminal.getvalue()) == [
        "bb  [##########----------]  50%  4 B",
        "1 of 2 files  [###############-----]  75%  6 B of 8 B  0.0s",
    ]
    talk.say("it is here")
    assert screen(terminal.getvalue()) == ["it is here", ""]
    talk.warn("one more thing")
    assert screen(terminal.getvalue()) == ["it is here", "warning: one more thing", ""]


def test_more_files_than_the_terminal_has_lines() -> None:
    shown = render.transfer(fetched(*((f"{number}", 1, 4) for number in range(100))), 5)
    assert [line.partition("  ")[0] for line in shown] == ["0", "1", "2", "97 more files", "0 of 100 files"]
    assert len(render.transfer(fetched(("x", 1, 4)), 1)) == 2  # the count of files, and the total
    assert render.transfer(fetched(("empty", 0, 0)), 9) == ["total  [####################] 100%  0 B of 0 B  0.0s"]


def test_elsewhere_each_step_is_a_line() -> None:
    file = io.StringIO()
    talk = Talk(file)
    for elapsed, phase in enumerate(["starting", "weights", "weights", "warming"]):
        talk.progress(Progress(phase=phase, elapsed=elapsed))
    talk.fail(Failed(code="x", message="no", hint="try"))
    assert file.getvalue() == "starting  0.0s\nweights  1.0s\nwarming  3.0s\nhyperllamactl: no\ntry\n"


def test_a_gpu_that_is_not_used_is_named_in_status() -> None:
    why = "GPU 0 (NVIDIA L4) is not used: Xid 79: it has fallen off the bus"
    report = StatusReport(
        version="0.1.0", pid=7, started_at=0.0, url="http://x", config="/etc/x", gpu_problems=[why, "another"]
    )
    (line,) = [line for line in render.status(report, 0.0).splitlines() if line.startswith("GPU:")]
    assert line.removeprefix("GPU:").strip() == f"{why}; another"
    quiet = StatusReport(version="0.1.0", pid=7, started_at=0.0, url="http://x", config="/etc/x")
    assert "GPU:" not in render.status(quiet, 0.0)
