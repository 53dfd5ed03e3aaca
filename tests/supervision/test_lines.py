"""Bytes into lines: whole, bounded, printable."""

from __future__ import annotations

import random
import tracemalloc

from hyperllamad.supervision.lines import LONGEST, LineSplitter


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.close()


def test_lines_come_whole_however_the_bytes_come() -> None:
    text = "first line\nüñîçødé 模型\n\n  indented\r\nlast"
    expected = ["first line", "üñîçødé 模型", "  indented", "last"]
    data = text.encode()
    rng = random.Random(1)
    cut_inside_a_character = 0
    for _ in range(200):
        at = sorted(rng.sample(range(len(data)), 3))
        cut_inside_a_character += any(data[i] & 0xC0 == 0x80 for i in at)
        assert split(*(data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True))) == expected
    assert cut_inside_a_character > 20


def test_a_progress_bar_is_many_lines() -> None:
    assert split(b"10%\r20%\r", b"\n30%") == ["10%", "20%", "30%"]


def test_invalid_utf8_is_replaced() -> None:
    assert split(b"a\xff\xfeb\n") == ["a\ufffd\ufffdb"]


def test_colours_and_titles_go_and_other_controls_are_shown() -> None:
    assert split(b"\x1b[32mINFO\x1b[0m ok\x1b]0;title\x07 \x07bell\ttab\n") == ["INFO ok \ufffdbell\ttab"]


def test_a_long_line_is_cut_and_marked() -> None:
    lines = split(b"x" * (3 * LONGEST), b"y" * 100, b"\nnext\n")
    assert lines == ["x" * LONGEST + " [...]", "next"]
    assert split(b"x" * LONGEST + b"\n") == ["x" * LONGEST]


def test_a_line_without_end_takes_no_memory() -> None:
    splitter = LineSplitter()
    tracemalloc.start()
    for _ in range(10 << 4):
        assert splitter.feed(b"z" * (1 << 16)) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert splitter.close() == ["z" * LONGEST + " [...]"]
