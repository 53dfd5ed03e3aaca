"""What a hub, a network, a disk and the child can do wrong, and the sentence for each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Semaphore
from typing import Any

import anyio
import msgspec
import pytest

from hyperllamad.core.errors import DiskFullError, HyperLlamaError, PullFailedError, RepositoryNotFoundError
from hyperllamad.store import pull
from hyperllamad.store.fetch_wire import Failure, Request
from tests.store.files import small_gguf
from tests.store.hub import Hub
from tests.store.pulling import MIB, NAME, Open, big_gguf, directory, wait_until


@pytest.mark.parametrize(
    ("where", "fault", "error", "words"),
    [
        ("api", {"status": 401}, PullFailedError, "does not accept the token"),
        ("api", {"status": 401, "error_code": "RepoNotFound"}, RepositoryNotFoundError, "no repository org/repo"),
        ("api", {"status": 403}, PullFailedError, "refuses access to org/repo"),
        ("api", {"status": 403, "error_code": "GatedRepo"}, PullFailedError, "org/repo is gated.*accept them at http"),
        ("api", {"status": 404}, RepositoryNotFoundError, "org/repo"),
        ("api", {"status": 404, "error_code": "RevisionNotFound"}, RepositoryNotFoundError, "does not exist"),
        ("api", {"status": 429}, PullFailedError, "too many requests"),
        ("api", {"status": 500}, PullFailedError, r"has a fault of its own \(500\)"),
        ("m.gguf", {"status": 403}, PullFailedError, "refuses access to org/repo/m.gguf"),
        ("m.gguf", {"status": 404}, RepositoryNotFoundError, "m.gguf does not exist"),
        ("m.gguf", {"status": 500}, PullFailedError, r"\(500\)"),
        ("m.gguf", {"corrupt": True}, PullFailedError, "digest mismatch, file must be downloaded again: want sha256:"),
        ("m.gguf", {"short": 50}, PullFailedError, "m.gguf came with"),
        ("LICENSE", {"corrupt": True}, PullFailedError, "digest mismatch"),
    ],
)
async def test_faults(  # noqa: PLR0917  # each is named by the table above
    hub: Hub, opened: Open, where: str, fault: dict[str, Any], error: type[HyperLlamaError], words: str
) -> None:
    hub.put("org/repo", {"m.gguf": small_gguf(), "LICENSE": b"free"})
    hub.fail(where, **fault, times=99)
    async with opened(HF_TOKEN="hf_verysecret") as store:
        with pytest.raises(error, match=words) as failure:
            await store.pull()
        assert failure.value.hint
        assert "secret" not in str(failure.value)
        assert store.listed() == []
        if where != "api":
            hub.faults.clear()
            await store.pull()
            assert store.listed() == ["hf.co/org/repo:latest"]


async def test_a_fault_does_not_wait_for_other_files(hub: Hub, opened: Open, tmp_path: Path) -> None:
    hub.put("org/repo", directory(tmp_path) | {"config.json": b"{" + b" " * 600 + b"}"})
    hub.gates["config.json"] = Semaphore(0)
    hub.fail("LICENSE", corrupt=True, times=99)
    async with opened() as store:
        with anyio.fail_after(20), pytest.raises(PullFailedError, match="org/repo/LICENSE"):
            await store.pull()


async def test_where_no_hub_is(hub: Hub, opened: Open) -> None:
    hub.put("org/repo", {"m.gguf": small_gguf()})
    for environ, words in (
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}, "cannot be reached|the proxy could not be used"),
    ):
        async with opened(**environ) as store:
            with pytest.raises(PullFailedError, match=words):
                await store.pull()


async def test_tokens(hub: Hub, opened: Open, tmp_path: Path) -> None:
    hub.put("org/repo", {"m.gguf": small_gguf()})
    hub.token = "hf_verysecret"
    (tmp_path / "hf_token").write_text("hf_verysecret\n")
    async with opened() as store:
        with pytest.raises(RepositoryNotFoundError):
            await store.pull()
    async with opened(CREDENTIALS_DIRECTORY=str(tmp_path)) as store:
        await store.pull()
        await store.library.delete(NAME)
    async with opened(HF_TOKEN="hf_verysecret") as store:
        await store.pull()


async def test_too_little_room(hub: Hub, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the first byte."""
    hub.put("org/repo", {"m.gguf": big_gguf()})
    request = pull.Request
    monkeypatch.setattr("hyperllamad.store.library.Request", lambda **fields: request(**{**fields, "reserve": 1 << 60}))
    async with opened() as store:
        with pytest.raises(DiskFullError, match=r"hf.co/org/repo:latest needs 1152921.5 TB, but .* are free in /"):
            await store.pull()
    assert hub.served["m.gguf"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
async def test_a_disk_that_fills_up(hub: Hub, opened: Open, tmp_path: Path) -> None:
    models = tmp_path / "state" / "models"
    models.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(models)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        content = big_gguf()
        hub.put("org/repo", {"m.gguf": content})
        gate = hub.gates["m.gguf"] = Semaphore(8)
        async with opened() as store, anyio.create_task_group() as tasks:

            async def fill() -> None:
                await wait_until(lambda: store.kept() > 0)
                (models / "other").write_bytes(bytes(3 * MIB))
                gate.release(1000)

            tasks.start_soon(fill)
            with pytest.raises(DiskFullError, match="the disk is full"):
                await store.pull()
            assert store.listed() == []
            kept = store.kept()
            (models / "other").unlink()
            await store.pull()
            assert store.listed() == ["hf.co/org/repo:latest"]
            assert hub.ranges["m.gguf"][-1] == kept > 0
    finally:
        subprocess.run(["umount", "-l", str(models)], check=True)


def test_the_daemon_never_loads_the_client() -> None:
    code = "import sys, hyperllamad.store.library; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def _in_place_of_the_child(root: Path, code: str) -> None:
    """Another program runs: the same interpreter with another module of that name."""
    package = root / "hyperllamad" / "store"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py"):
        path.write_text("")
    (package / "fetching.py").write_text(code)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(3)", "did not finish: it exited with 3"),
        ("import os; os.kill(os.getpid(), 9)", "did not finish: it was ended by signal 9"),
        ("print('noise', flush=True)", "said something that makes no sense"),
    ],
)
async def test_a_child_that_goes_wrong(opened: Open, tmp_path: Path, code: str, words: str) -> None:
    _in_place_of_the_child(tmp_path, code)
    async with opened(PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1") as store:
        with pytest.raises(PullFailedError, match=words):
            await store.pull()


def test_a_fault_of_the_child_is_told_with_where_it_stood() -> None:
    """But without the words of an error that we do not know: they may hold a signed address."""
    code = (
        "import sys; from hyperllamad.store import fetching, hub;"
        "hub.listing = lambda *_: {}['https://cdn.example/m?signature=' + 'sec' + 'ret']; sys.exit(fetching.main())"
    )
    asked = msgspec.json.encode(Request(name="m", repository="org/repo", target="/nowhere", store="/nowhere")) + b"\n"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(asked)
        child.stdin.flush()
        said = child.stdout.readline()
    failure = msgspec.json.decode(said, type=Failure)
    assert failure.message == "the download ended with a fault: KeyError"
    assert "in _pull" in failure.trace
    assert b"secret" not in said


async def test_a_fault_of_the_child_is_in_the_log(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failure = Failure(
        kind="PullFailedError", message="the download ended with a fault: KeyError", hint="", trace="here"
    )
    _in_place_of_the_child(tmp_path, f"print({msgspec.json.encode(failure).decode()!r}, flush=True)")
    async with opened(PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1") as store:
        with pytest.raises(PullFailedError, match="ended with a fault"):
            await store.pull()
    (record,) = (one for one in caplog.records if "ended with a fault" in one.getMessage())
    assert record.fields["trace"] == "here"  # type: ignore[attr-defined]
