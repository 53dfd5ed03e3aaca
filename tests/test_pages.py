"""Memory in huge pages: where one could lie, and that the kernel puts it there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hyperllamad import pages
from tests.daemon import daemon, eventually

MIB = 1 << 20


def mapping(begin: int, size: int, used: int, name: str = "", *, rights: str = "rw-p", file: str = "00:00 0") -> str:
    head = f"{begin:x}-{begin + size:x} {rights} 00000000 {file} {' ' * 20}{name}".rstrip()
    return f"{head}\nSize: {size >> 10} kB\nRss: {used >> 10:>16} kB\nVmFlags: rd wr mr mw me ac\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (mapping(4 * MIB, 6 * MIB, 6 * MIB, "[heap]"), [4 * MIB, 6 * MIB, 8 * MIB]),
        (mapping(5 * MIB, 4 * MIB, 4 * MIB), [6 * MIB]),  # what lies at the edges of another page is not ours alone
        (mapping(5 * MIB, 2 * MIB, 2 * MIB), []),
        (mapping(4 * MIB, 2 * MIB, 1 * MIB), [4 * MIB]),
        (mapping(4 * MIB, 8 * MIB, 1 * MIB), []),  # a thread's stack
        (mapping(4 * MIB, 2 * MIB, 2 * MIB, "[stack]"), []),
        (mapping(4 * MIB, 2 * MIB, 2 * MIB, rights="r-xp"), []),
        (mapping(4 * MIB, 2 * MIB, 2 * MIB, "/lib/libc.so", file="fe:00 339380"), []),
        (mapping(4 * MIB, 2 * MIB, 2 * MIB) + mapping(8 * MIB, 2 * MIB, 2 * MIB, rights="rw-s"), [4 * MIB]),
    ],
)
def test_where_one_could_lie(text: str, found: list[int]) -> None:
    assert list(pages.windows(text.splitlines())) == found


FILL = """
from hyperllamad import pages
held = [bytes(900) for _ in range(30_000)]
def huge():
    with open("/proc/self/smaps_rollup") as text:
        return next(int(line.split()[1]) << 10 for line in text if line.startswith("AnonHugePages:"))
before = huge()
gathered = pages.gather()
assert all(one == bytes(900) for one in held)
print(gathered, huge() - before)
"""


def kernel_can() -> bool:
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)  # "6.1.0-rc1", too
    assert version is not None
    recent = (int(version[1]), int(version[2])) >= (6, 1)
    return recent and pages.SETTING.exists() and "[never]" not in pages.SETTING.read_text()


def test_what_is_in_memory_is_in_huge_pages_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, check=True, timeout=60)
    told, seen = map(int, done.stdout.split())
    assert told == seen
    assert (seen >= 8 * MIB) == kernel_can()


@pytest.mark.skipif(not kernel_can(), reason="this kernel makes no huge pages on demand")
def test_a_daemon_has_its_memory_there() -> None:
    with daemon({}) as running:
        assert running.process is not None
        rollup = Path(f"/proc/{running.process.pid}/smaps_rollup")

        def huge() -> int:
            found = (line.split() for line in rollup.read_text().splitlines())
            return next(int(words[1]) << 10 for words in found if words[0] == "AnonHugePages:")

        eventually(lambda: huge() >= 8 * MIB, within=20, what="memory in huge pages")


@pytest.mark.parametrize("setting", ["always madvise [never]\n", None])
def test_who_does_not_want_it_or_has_none_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str | None
) -> None:
    path = tmp_path / "enabled"
    if setting is not None:
        path.write_text(setting)
    monkeypatch.setattr(pages, "SETTING", path)
    assert pages.gather() == 0
