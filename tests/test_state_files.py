"""Every file the daemon keeps, cut at every byte, as a power cut may leave it: each start copes, and says what it lost.

All are written whole or not at all (to a new name, then renamed); this is about disks that break even that promise.
They are: an engine's home and which home is current, what was learned, variants of models, the API keys, where a pulled
model came from, and in the runtime directory who lives in a place and what it printed.  A model's own files are not
state of ours: what is wrong with those is told when it is listed or loaded (tests/real/bad_models.py).
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.core.errors import ConfigError, HyperLlamaError
from hyperllamad.core.models import HOST, Key, Placement, Share
from hyperllamad.engines.base import Host
from hyperllamad.engines.homes import CURRENT, FILE, Homes
from hyperllamad.keys import KeyRing
from hyperllamad.store import fetching
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.fetch_wire import ORIGIN, Origin, Part
from hyperllamad.store.variants import Variants
from hyperllamad.supervision import orphans, place, procfs
from hyperllamad.supervision.learned import Learned
from hyperllamad.supervision.procfs import Identity
from tests.engines import samples
from tests.engines.test_homes import make
from tests.store.files import small_gguf


def cut(file: Path, look: Callable[[], object]) -> int:
    """Call `look` with the file cut at every byte, and whole again at the end; how many cuts."""
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        look()
    file.write_bytes(whole)
    look()
    return len(whole)


def test_the_home_of_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    home = make(Homes(tmp_path, {}), samples.home("vllm"))
    seen: set[int] = set()
    assert cut(tmp_path / home.id / FILE, lambda: seen.add(len(Homes(tmp_path, {}).all()))) > 100
    assert seen == {0, 1}, "there is none, or the whole one"
    assert Homes(tmp_path, {}).all() == (home,)


def test_which_home_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    homes = Homes(tmp_path, {})
    old = make(homes, samples.home("vllm", version="1.0"), at=1)
    new = make(homes, samples.home("vllm", version="2.0"), at=2)
    homes.use(old)
    seen = []
    assert cut(tmp_path / CURRENT, lambda: seen.append(Homes(tmp_path, {}).current("vllm"))) > 10
    assert set(seen) == {old, new}, "without the file the newest is"
    assert seen[-1] == old


def test_what_was_learned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, key = tmp_path / "learned.json", Key("d" * 64, "s" * 12)
    learned = Learned(file)
    learned.memory(key, HOST, Placement((Share(HOST, -1, 1 << 30, 1 << 20, 0),)), {HOST: 5 << 20})
    learned.save()
    known = learned.about(key, HOST)
    assert known.memory == 5 << 20
    with caplog.at_level(logging.WARNING):
        seen = []
        assert cut(file, lambda: seen.append(Learned(file).about(key, HOST))) > 50
    assert seen[-1] == known
    assert all(lesson.memory in {0, known.memory} for lesson in seen)
    assert "learned.json" in caplog.text


def test_a_variant_of_a_model(tmp_path: Path) -> None:
    loaded = load_config(tmp_path / "etc", {"HOME": str(tmp_path)})
    model = loaded.paths.models / "tiny@q4" / "x.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(small_gguf())

    def catalog() -> Catalog:
        return Catalog(loaded.paths, loaded.models, ())

    Variants(catalog()).copy("tiny:q4", "mine")
    (file,) = (path for path in loaded.paths.state.rglob("*") if path.is_file() and path != model)
    broken, whole = 0, 0

    def look() -> None:
        nonlocal broken, whole
        found = catalog()
        assert found.resolve("tiny:q4").path == str(model), "other models are untouched"
        try:
            assert found.resolve("mine").path == str(model)
            whole += 1
        except HyperLlamaError as failure:
            broken += 1
            assert str(failure)

    assert cut(file, look) > 20
    assert broken
    assert whole


async def test_the_api_keys(tmp_path: Path) -> None:
    """Nobody is let in by half a key, and a start says which file is wrong."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hyperllamad.toml").write_text("[keys]\nrequired = true\n")
    loaded = load_config(tmp_path / "etc", {"HOME": str(tmp_path)})
    ring = KeyRing(loaded)
    ring.load()
    text = await ring.add("alice")
    outcomes: set[str] = set()

    def look() -> None:
        fresh = KeyRing(loaded)
        try:
            fresh.load()
        except ConfigError as failure:
            assert str(ring.file) in str(failure)
            assert text not in str(failure)
            outcomes.add("refused")
        else:
            outcomes.add("known" if fresh.find([text]) else "unknown")

    assert cut(ring.file, look) > 50
    assert outcomes == {"refused", "known", "unknown"}
    assert KeyRing(loaded).find([text]) is not None


async def test_who_lives_in_a_place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that cannot read it still removes the place, and takes nobody for an engine who is none.

    The sweep sees only two processes, ours and a stranger's: so it takes no time to have one for every byte.
    """
    runtime = tmp_path_factory.mktemp("r")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            seen = [found for pid in (os.getpid(), stranger.pid) if (found := procfs.process(pid)) is not None]
            monkeypatch.setattr(procfs, "processes", lambda: iter(seen))
            where = place.make(runtime, runtime / "cache", Host())
            place.record(where, Identity(stranger.pid, 1), Identity(1 << 22, 1))  # its number, from before
            place.note(where, place.Stand("m", ("m:latest",), "d" * 64, "s" * 12, None))
            whole = (place.directory(where) / "leader").read_bytes()
            place.remove(place.directory(where))
            for length in range(len(whole) + 1):
                where = place.make(runtime, runtime / "cache", Host())
                (place.directory(where) / "leader").write_bytes(whole[:length])
                assert (place.read(place.directory(where)) is None) is (length < len(whole))
            assert await orphans.sweep(runtime) == 0
            assert list(place.root(runtime).iterdir()) == []
            assert stranger.poll() is None
            assert length > 200
        finally:
            stranger.kill()


def test_what_an_engine_printed_before_a_restart(tmp_path: Path) -> None:
    lines = [(1.5, "loading"), (2.5, "ready \u00e9")]
    where = place.make(tmp_path, tmp_path / "cache", Host())
    seen = []

    def look() -> None:
        left = file.read_bytes()
        seen.append(place.kept_lines(where))
        file.write_bytes(left)  # it is read once, and taken away

    file = place.directory(where) / "log"
    place.keep_lines(where, lines)
    assert cut(file, look) > 30
    assert seen[-1] == lines
    assert seen[:-1] == [[]] * (len(seen) - 1)


def test_where_a_pulled_model_came_from(tmp_path: Path) -> None:
    """Without it the files are fetched again, or found by another model: never taken for what they are not."""
    content = b"weights"
    part = Part(path="a.gguf", size=len(content), check="sha256:" + hashlib.sha256(content).hexdigest())
    model = tmp_path / "tiny@main"
    model.mkdir()
    (model / part.path).write_bytes(content)
    file = model / ORIGIN
    file.write_bytes(msgspec.json.encode(Origin(repository="org/tiny", commit="c" * 40, files=(part,))))
    seen = []
    assert cut(file, lambda: seen.append(fetching.installed(tmp_path))) > 100
    assert seen[-1] == {part.check: model / part.path}
    assert seen[:-1] == [{}] * (len(seen) - 1)
