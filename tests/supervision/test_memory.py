"""How much memory there is: /proc/meminfo, and the limits of control groups around us."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.supervision import memory

KIB = 1024


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (groups / "system.slice/hl.service").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\n")
    (proc / "self/cgroup").write_text("0::/system.slice/hl.service\n")
    return proc, groups


def limit(group: Path, most: str, current: int, cache: int) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{current}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")


def test_without_limits(roots: tuple[Path, Path]) -> None:
    limit(roots[1] / "system.slice/hl.service", "max", 5, 5)
    assert memory.read(*roots) == (1000 * KIB, 600 * KIB)


def test_the_narrowest_limit_holds(roots: tuple[Path, Path]) -> None:
    limit(roots[1] / "system.slice", str(500 * KIB), 300 * KIB, 100 * KIB)
    limit(roots[1] / "system.slice/hl.service", str(800 * KIB), 10 * KIB, 0)
    assert memory.read(*roots) == (500 * KIB, 300 * KIB)


def test_a_limit_beyond_the_machine(roots: tuple[Path, Path]) -> None:
    limit(roots[1], str(1 << 60), 0, 0)
    assert memory.read(*roots) == (1000 * KIB, 600 * KIB)


def test_a_group_over_its_limit(roots: tuple[Path, Path]) -> None:
    limit(roots[1] / "system.slice/hl.service", str(10 * KIB), 20 * KIB, 0)
    assert memory.read(*roots) == (10 * KIB, 0)


def test_nobody_says(tmp_path: Path) -> None:
    assert memory.read(tmp_path, tmp_path) == (0, 0)
    (tmp_path / "meminfo").write_text("rubbish\n")
    assert memory.read(tmp_path, tmp_path) == (0, 0)


def test_this_machine() -> None:
    total, available = memory.read()
    assert 0 < available <= total
