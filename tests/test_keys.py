"""keys.py: the file, its mode, its errors; what is kept and what is not; changes while it is in use."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import hyperllamad.keys
from hyperllamad.config.load import load_config
from hyperllamad.core.errors import BadRequestError, ConfigError, InUseError, NoSuchKeyError
from hyperllamad.core.quota import Limits
from hyperllamad.keys import CREDENTIAL, KeyRing

SHA = hashlib.sha256(b"theirs").hexdigest()


def ring(root: Path, text: str = "", *, main: str = "", mode: int = 0o600, credential: str = "") -> KeyRing:
    """A ring over a file of `text`, none when it is empty."""
    environ = {"HOME": str(root)}
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/hyperllamad.toml").write_text(f"[keys]\nfile = '{root}/keys.toml'\n{main}")
    if text:
        (root / "keys.toml").write_text(text)
        (root / "keys.toml").chmod(mode)
    if credential:
        (root / "credentials").mkdir()
        (root / "credentials" / CREDENTIAL).write_text(credential)
        environ["CREDENTIALS_DIRECTORY"] = str(root / "credentials")
    return KeyRing(load_config(root / "etc", environ))


def test_by_default_the_file_lies_in_the_state_directory_and_nobody_is_asked(tmp_path: Path) -> None:
    loaded = load_config(tmp_path, {"HOME": str(tmp_path)})
    assert loaded.keys_file == loaded.paths.state / "keys.toml"
    assert not KeyRing(loaded).required


async def test_a_made_key_is_found_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    text = await keys.add("alice", concurrent=2)
    assert text.startswith("hl-") and len(text) > 40
    assert text != await keys.add("bob")
    found = keys.find(["nonsense", text])
    assert found is not None
    assert (found.name, found.limits) == ("alice", Limits(2, 0))
    written = (tmp_path / "keys.toml").read_text()
    assert text not in written and hashlib.sha256(text.encode()).hexdigest() in written
    assert (tmp_path / "keys.toml").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if "keys" in p.name] == ["keys.toml"], "no half-written file"


async def test_a_removed_key_is_refused_at_once(tmp_path: Path) -> None:
    keys, other = ring(tmp_path), ring(tmp_path)
    text = await keys.add("alice")
    assert other.find([text]), "another reader notices that the file has changed"
    await keys.remove("alice")
    assert keys.find([text]) is None and other.find([text]) is None
    with pytest.raises(NoSuchKeyError, match="no key called alice"):
        await keys.remove("alice")


async def test_names_that_are_taken_or_none_are_refused(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    await keys.add("a.b-C_1")
    with pytest.raises(InUseError, match="already"):
        await keys.add("a.b-C_1")
    for name in ("", "a b", "../x", "a\n", "x" * 65, "é"):
        with pytest.raises(BadRequestError, match="cannot be the name"):
            await keys.add(name)
    with pytest.raises(BadRequestError, match="negative"):
        await keys.add("n", concurrent=-1)


def test_keys_of_others_and_limits_that_are_stated(tmp_path: Path) -> None:
    text = f'[[key]]\nname = "a"\nkey = "ours"\n[[key]]\nname = "b"\nsha256 = "{SHA}"\nconcurrent = 0\nweight = 2\n'
    keys = ring(tmp_path, text, main="concurrent = 5\ntokens_per_minute = 100\n")
    a, b = keys.find(["ours"]), keys.find(["theirs"])
    assert a is not None and b is not None
    assert (a.name, a.limits) == ("a", Limits(5, 100))
    assert (b.name, b.limits) == ("b", Limits(0, 100))
    assert (a.weight, b.weight) == (1, 2)
    assert keys.find([SHA]) is None, "the hash is no key"
    assert keys.find([]) is keys.find([""]) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=f"others may read or change it.*{mode:04o}.*chmod 600 {tmp_path}/keys.toml"):
        _say(ring(tmp_path, '[[key]]\nname = "a"\nkey = "ours"\n', mode=mode))


def _say(keys: KeyRing) -> None:
    """Load, and raise the whole sentence."""
    try:
        keys.load()
    except ConfigError as failure:
        raise ConfigError(str(failure)) from failure


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[key]]\n", "`key.0.name` is missing"),
        ('[[key]]\nname = "a"\n', "the key a needs either `sha256` or `key`"),
        (f'[[key]]\nname = "a"\nkey = "x"\nsha256 = "{SHA}"\n', "the key a needs either `sha256` or `key`"),
        ('[[key]]\nname = "a"\nsha256 = "12"\n', "must be 64 hexadecimal digits"),
        ('[[key]]\nname = "a"\nkey = 918273\n', "`key.0.key` is not shown, but a text was expected"),
        ('[[key]]\nname = "a"\nkey = "x"\ntokens_per_minute = -1\n', "a limit of the key a is negative"),
        ('[[key]]\nname = "a"\nkey = "x"\nweight = 0\n', "the weight of the key a is 0"),
        ('[[key]]\nname = "a b"\nkey = "x"\n', "cannot be the name of a key"),
        ('[[key]]\nname = "a"\nkey = "x"\n' * 2, "two keys are called a"),
        ('[[key]]\nname = "a"\nkye = "x"\n', "unknown key `key.0.kye`"),
        ("[[key\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_without_showing_a_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ring(tmp_path, text).load()
    assert str(caught.value).startswith(str(tmp_path / "keys.toml"))
    assert says in str(caught.value)
    assert "918273" not in str(caught.value)


def test_a_file_that_becomes_wrong_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ring(tmp_path, '[[key]]\nname = "a"\nkey = "ours"\n')
    assert keys.find(["ours"])
    (tmp_path / "keys.toml").chmod(0o644)
    with caplog.at_level(logging.DEBUG):
        caplog.clear()  # whether the first reading was recorded depends on the tests before this one
        assert keys.find(["ours"]) and keys.find(["ours"])
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "stay as they were" in caplog.text
    (tmp_path / "keys.toml").unlink()
    assert keys.find(["ours"]) is None, "a file that is taken away takes its keys with it"


async def test_a_credential_counts_as_well_and_cannot_be_changed(tmp_path: Path) -> None:
    keys = ring(tmp_path, credential='[[key]]\nname = "fixed"\nkey = "from systemd"\n')
    text = await keys.add("mine")
    assert [key.name for key in keys.all()] == ["fixed", "mine"]
    assert keys.find(["from systemd"]) and keys.find([text])
    with pytest.raises(InUseError, match="comes from the credential"):
        await keys.remove("fixed")
    with pytest.raises(InUseError, match="already"):
        await keys.add("fixed")
    assert "from systemd" not in (tmp_path / "keys.toml").read_text()


async def test_a_directory_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "hyperllamad.toml").write_text("[keys]\nfile = '/proc/no/keys.toml'\n")
    keys = KeyRing(load_config(tmp_path, {"HOME": str(tmp_path)}))
    with pytest.raises(ConfigError, match=r"/proc/no/keys\.toml: cannot be written: No such file"):
        await keys.add("a")


async def test_a_reload_in_the_middle_of_a_change_loses_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, fresh = ring(tmp_path), ring(tmp_path)
    disk = SlowDisk(monkeypatch)
    made: dict[str, str] = {}

    async def make(name: str) -> None:
        made[name] = await keys.add(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make, "before")
        await anyio.to_thread.run_sync(disk.asked.acquire)
        keys.take(fresh)
        tasks.start_soon(make, "after")
        await anyio.wait_all_tasks_blocked()
        disk.done.release(2)
    assert [found.name if (found := keys.find([made[name]])) else "" for name in ("before", "after")] == [
        "before",
        "after",
    ]


async def test_a_reload_that_names_another_file_takes_the_key_that_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    keys, fresh = ring(tmp_path), ring(tmp_path / "other", main="required = true\nconcurrent = 3\n")
    disk = SlowDisk(monkeypatch)
    made: list[str] = []

    async def make() -> None:
        made.append(await keys.add("alice"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        await anyio.to_thread.run_sync(disk.asked.acquire)
        keys.take(fresh)
        disk.done.release(2)
    found = keys.find(made)
    assert found is not None and found.limits == Limits(3, 0)
    assert keys.required
    assert "alice" in (tmp_path / "other/keys.toml").read_text()


class SlowDisk:
    """Each write says that it is asked for, and waits until it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.done = threading.Semaphore(0), threading.Semaphore(0)
        write = hyperllamad.keys._write

        def slowly(*given: Any) -> None:
            self.asked.release()
            self.done.acquire()
            write(*given)

        monkeypatch.setattr("hyperllamad.keys._write", slowly)
