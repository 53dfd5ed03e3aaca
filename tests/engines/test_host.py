"""What engines are told about the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperllamad.config.tables import EnginesTable
from hyperllamad.engines import host


@pytest.mark.parametrize(("text", "bfloat16"), [
    ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", False),
    ("processor : 0\nflags\t\t: fpu avx512_bf16 amx_bf16\nflags\t: none\n", True),
    ("processor : 0\nFeatures\t: fp asimd bf16\n", True),
    ("", False),
])  # fmt: skip
def test_bfloat16(text: str, bfloat16: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    found = host.read(EnginesTable(telemetry=True), cpuinfo)
    assert (found.bfloat16, found.telemetry, found.hub_access) == (bfloat16, True, False)
    assert found.cpus


def test_no_cpuinfo(tmp_path: Path) -> None:
    assert not host.read(EnginesTable(), tmp_path / "none").bfloat16


def test_device(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert host.device(tmp_path, {}) == "cpu"
    (tmp_path / "nvidia0").touch()
    assert host.device(tmp_path, {}) == "cuda"
    assert host.device(tmp_path, {"CUDA_VISIBLE_DEVICES": "0"}) == "cuda"
    assert host.device(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}) == "cpu"
    assert host.device(tmp_path, {"CUDA_VISIBLE_DEVICES": "-1"}) == "cpu"
