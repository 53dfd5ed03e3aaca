"""Which GPUs may be used: driver late, silent, gone; GPUs lost, ailing, back.  The readings are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hyperllamad.core.gpu_health import FATAL_XIDS, SILENCE, GpuHealth, GpuNews, Verdict, Xid
from hyperllamad.core.machine import Capability, Gpu, GpuFault, Gpus

GIB = 1 << 30
ONE = Gpu(0, "GPU-a", "L4", Capability(8, 9), 24 * GIB, 23 * GIB, GIB)
TWO = Gpu(1, "GPU-b", "L4", Capability(8, 9), 24 * GIB, 23 * GIB, GIB)
BOTH = Gpus((ONE, TWO))
LOST = Gpus((TWO,), problem="GPU 0: gone", faults=(GpuFault(0, "it has fallen off the bus"),))
SILENT = Gpus(problem="the NVIDIA driver does not answer within 5 s", silent=True)
NO_DRIVER = Gpus(problem="no NVIDIA driver")


def words(news: list[GpuNews]) -> list[str]:
    return [str(one) for one in news]


@pytest.fixture
def health() -> GpuHealth:
    made = GpuHealth()
    assert words(made.read(BOTH, 0)) == ["GPU 0 (L4) can be used", "GPU 1 (L4) can be used"]
    assert made.read(BOTH, 0) == []
    return made


def verdict(health: GpuHealth, *, expected: bool = True, nodes: bool = True, library: bool = True) -> Verdict:
    return health.verdict(expected=expected, nodes=nodes, library=library)


def test_a_lost_gpu_is_told_once_and_is_back_when_it_answers(health: GpuHealth) -> None:
    assert words(health.read(LOST, 0)) == ["GPU 0 (L4) is not used: it has fallen off the bus"]
    assert health.read(LOST, 0) == []
    assert [gpu.uuid for gpu in health.problems] == ["GPU-a"]
    assert verdict(health) == Verdict("cuda"), "there is another"
    assert words(health.read(BOTH, 0)) == ["GPU 0 (L4) can be used"]


def test_one_that_is_not_even_counted_any_more(health: GpuHealth) -> None:
    assert words(health.read(Gpus((TWO,)), 0)) == [
        "GPU 0 (L4) is not used: the NVIDIA driver does not show it any more"
    ]


def test_a_driver_that_is_unloaded_takes_all_with_it(health: GpuHealth) -> None:
    gone = Gpus(problem="the NVIDIA driver is not loaded")
    assert len(health.read(gone, 0)) == 2
    found = verdict(health)
    assert found.device == "cpu"
    assert found.missing == ("GPU 0 (L4): the NVIDIA driver is not loaded; GPU 1 (L4): the NVIDIA driver is not loaded")
    assert len(health.read(BOTH, 0)) == 2


def test_a_silence_is_nothing_but_a_long_one(health: GpuHealth) -> None:
    for now in (0, 0, 5, SILENCE - 1):
        assert health.read(SILENT, now) == []
        assert health.unsure
        assert verdict(health) == Verdict("cuda")
    assert health.read(BOTH, SILENCE) == []
    assert not health.unsure
    assert health.read(SILENT, SILENCE) == []
    assert len(health.read(SILENT, 2 * SILENCE)) == 2
    assert "does not answer" in verdict(health).missing
    assert len(health.read(BOTH, 2 * SILENCE)) == 2


def test_silence_of_a_driver_whose_gpus_nobody_has_seen() -> None:
    health = GpuHealth()
    assert health.read(SILENT, 0) == []
    assert not health.unsure
    assert "does not answer" in verdict(health).missing


@pytest.mark.parametrize("number", sorted(FATAL_XIDS))
def test_an_error_that_only_a_reset_mends(health: GpuHealth, number: int) -> None:
    (news,) = health.report(Xid("GPU-b", number))
    assert news.problem == f"Xid {number}: {FATAL_XIDS[number]}"
    assert health.report(Xid("GPU-b", number)) == []
    assert health.read(BOTH, 0) == [], "that it can be read proves nothing, where the driver does not say more"
    assert words(health.read(Gpus((ONE,)), 0)) == [], "it was not used before either"
    assert words(health.read(BOTH, 0)) == ["GPU 1 (L4) can be used"], "it was away, and was started anew"


@pytest.mark.parametrize("number", [13, 31, 43, 45, 94, 154])
def test_errors_of_one_program_are_no_matter_of_the_gpu(health: GpuHealth, number: int) -> None:
    assert health.report(Xid("GPU-b", number)) == []
    assert health.problems == ()


def test_an_error_of_a_gpu_that_nobody_knows(health: GpuHealth) -> None:
    assert health.report(Xid("", 79)) == health.report(Xid("GPU-z", 79)) == []


@pytest.mark.parametrize(("asked", "words_"), [(1, "a reset of it"), (2, "a restart of the machine"), (4, "a reset")])
def test_the_driver_says_what_is_left_to_be_done(health: GpuHealth, asked: int, words_: str) -> None:
    (news,) = health.read(Gpus((replace(ONE, recovery=asked), TWO)), 0)
    assert words_ in news.problem
    (news,) = health.read(Gpus((replace(ONE, recovery=0), TWO)), 0)
    assert news.problem == ""


def test_an_error_is_over_when_the_driver_asks_for_nothing(health: GpuHealth) -> None:
    health.report(Xid("GPU-a", 48))
    assert health.read(Gpus((replace(ONE, recovery=1), TWO)), 0) == []
    assert health.problems[0].problem.startswith("Xid 48"), "the first cause is the one that is told"
    assert words(health.read(Gpus((replace(ONE, recovery=0), TWO)), 0)) == ["GPU 0 (L4) can be used"]


def test_peers_alone_may_need_to_be_drained(health: GpuHealth) -> None:
    assert health.read(Gpus((replace(ONE, recovery=3), TWO)), 0) == []


@pytest.mark.parametrize(
    ("nodes", "library", "seen", "expected", "answer"),
    [
        (False, False, NO_DRIVER, False, Verdict("cpu")),
        (False, False, NO_DRIVER, True, Verdict("cpu", "no NVIDIA driver")),
        (True, False, NO_DRIVER, True, Verdict("cuda")),  # a container without the management library
        (True, True, Gpus(problem="updated"), True, Verdict("cpu", "updated")),
        (True, True, Gpus(problem="updated"), False, Verdict("cpu")),
        (True, True, BOTH, False, Verdict("cuda")),
    ],
)
def test_what_models_may_count_on(nodes: bool, library: bool, seen: Gpus, expected: bool, answer: Verdict) -> None:
    health = GpuHealth()
    health.read(seen, 0)
    assert verdict(health, expected=expected, nodes=nodes, library=library) == answer


def test_before_anything_was_read_device_files_are_believed() -> None:
    assert verdict(GpuHealth(), nodes=True) == Verdict("cuda")
    assert verdict(GpuHealth(), nodes=False) == Verdict("cpu", "no GPU is found")
