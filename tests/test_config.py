"""The configuration: defaults, files, Ollama's environment, and errors that say file, key, found and expected."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from hyperllamad.config.load import load_config
from hyperllamad.config.tables import EngineTable, File, Server
from hyperllamad.config.values import parse_host
from hyperllamad.connections import Bounds
from hyperllamad.core.errors import ConfigError

SHIPPED = Path(__file__).parent.parent / "etc/hyperllama"


def write(directory: Path, text: str, name: str = "hyperllamad.toml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return directory


def refused(directory: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(directory, {"HOME": "/h"})
    return caught.value.message


def test_without_files_everything_has_a_default(tmp_path: Path) -> None:
    loaded = load_config(tmp_path, {"HOME": "/h"})
    assert loaded.server.address == ("127.0.0.1", 11434)
    assert loaded.fleet.keep_alive_seconds == 300
    assert loaded.paths.state == Path("/h/.local/state/hyperllama")
    assert loaded.paths.admin_socket == Path("/h/.local/state/hyperllama/run/admin.sock")


def test_xdg_directories_are_used(tmp_path: Path) -> None:
    loaded = load_config(tmp_path, {"HOME": "/h", "XDG_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s"})
    assert (loaded.paths.runtime, loaded.paths.state) == (Path("/r/hyperllama"), Path("/s/hyperllama"))


def test_memory_is_stated_as_sizes_or_left_to_the_machine(tmp_path: Path) -> None:
    assert load_config(tmp_path, {"HOME": "/h"}).fleet.sleep_memory_bytes is None
    text = '[fleet]\nmemory = "2GiB"\ngpu_overhead = "1GB"\nsleep_memory = "0"\nspread = true\npinned = ["a", "b:3b"]\n'
    fleet = load_config(write(tmp_path, text), {"HOME": "/h"}).fleet
    assert (fleet.memory_bytes, fleet.gpu_overhead_bytes, fleet.sleep_memory_bytes) == (2 << 30, 10**9, 0)
    assert (fleet.spread, fleet.pinned) == (True, ("a", "b:3b"))


def test_ollamas_words_for_gpus_keep_their_meaning(tmp_path: Path) -> None:
    set_by_user = {"HOME": "/h", "OLLAMA_GPU_OVERHEAD": "1073741824", "OLLAMA_SCHED_SPREAD": "1"}
    fleet = load_config(tmp_path, set_by_user).fleet
    assert (fleet.gpu_overhead_bytes, fleet.spread) == (1 << 30, True)
    fleet = load_config(tmp_path, {"HOME": "/h", "OLLAMA_GPU_OVERHEAD": "much", "OLLAMA_SCHED_SPREAD": "0"}).fleet
    assert (fleet.gpu_overhead_bytes, fleet.spread) == (0, False)


def test_the_shipped_file_names_every_key_with_its_default() -> None:
    text = (SHIPPED / "hyperllamad.toml").read_text()
    stated = tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    defaults = msgspec.to_builtins(File())
    assert stated == {
        table: {k: list(v) if isinstance(v, tuple) else v for k, v in keys.items()} for table, keys in defaults.items()
    }
    assert tomllib.loads(text) == {table: {} for table in defaults}, "shipped as is it must change nothing"


def test_a_bare_number_is_seconds_and_a_negative_keep_alive_for_ever(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, "[fleet]\nkeep_alive = '-1'\nstop_timeout = '3'\n"), {"HOME": "/h"})
    assert (loaded.fleet.keep_alive_seconds, loaded.fleet.stop_timeout_seconds) == (float("inf"), 3)


def test_engine_and_model_files(tmp_path: Path) -> None:
    write(tmp_path, 'version = "0.32.0"\nmemory = "2GiB"\n', "engines.d/vllm.toml")
    write(
        tmp_path,
        'name = "tiny"\npath = "/m/tiny.gguf"\ncontext = 2048\n[parameters]\ntemperature = 0\n',
        "models.d/tiny.toml",
    )
    loaded = load_config(tmp_path, {"HOME": "/h"})
    assert loaded.engine_table("vllm").memory_bytes == 2 << 30
    assert loaded.engine_table("max") == EngineTable()
    assert loaded.model[0].parameters == {"temperature": 0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fleet]\nmax_queue = 'many'\n", "`fleet.max_queue` is 'many', but a whole number was expected"),
        ("[fleet]\nmax_que = 1\n", "unknown key `fleet.max_que`"),
        ("[flet]\n", "unknown key `flet`"),
        ("[server]\norigins = ['a', 5]\n", "`server.origins.1` is 5, but a text was expected"),
        ("[fleet]\nkeep_alive = '5d'\n", '`fleet.keep_alive`: time: unknown unit "d" in duration "5d"'),
        ("[fleet]\nmax_queue = -1\n", "`fleet.max_queue` is -1, but a whole number >= 0 was expected"),
        ("[server]\nheader_timeout = '0'\n", '`server.header_timeout`: "0" is no time to wait'),
        ("[server]\nunread_timeout = 'soon'\n", "`server.unread_timeout`: time: invalid duration"),
        ("[server]\nunread_timeout_wanted = 'soon'\n", "`server.unread_timeout_wanted`: time: invalid duration"),
        ("[fleet\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_found_and_expected(tmp_path: Path, text: str, says: str) -> None:
    message = refused(write(tmp_path, text))
    assert message.startswith(str(tmp_path / "hyperllamad.toml"))
    assert says in message


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("engines.d/vllm.toml", "memory_max = 'much'", "vllm.toml: `memory_max`: not a size"),
        (
            "engines.d/vllm.toml",
            "cpu_weight = 20000",
            "`cpu_weight` is 20000, but a whole number <= 10000 was expected",
        ),
        ("models.d/m.toml", "name = 'm'\ncontext = -1", "`context` is -1, but a whole number >= 0 was expected"),
        ("engines.d/vllm.toml", "env = {A = 'a secret', B = 1}", "one of the values in `env` is not what was expected"),
        ("models.d/m.toml", "name = 'm'\ntasks_max = -1", "`tasks_max` is -1, but a whole number >= 0 was expected"),
        ("models.d/m.toml", "name = 'm'\nquantize = 'int4'", "`quantize` is 'int4', which it cannot be: see the"),
        ("models.d/m.toml", "name = 'm'\nmemory_max = '1 parsec'", "`memory_max` of `m`: not a size"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, file: str, text: str, says: str) -> None:
    message = refused(write(tmp_path, text, file))
    assert says in message
    assert "a secret" not in message


def test_connections_are_bounded_by_the_descriptors_unless_stated(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nheader_timeout = '3s'\nunread_timeout = '0'\n")
    assert load_config(tmp_path, {"HOME": "/h"}).server.bounds(20_256) == Bounds(10_000, 256, 3.0, 75.0, 0.0)
    write(tmp_path, "[server]\nmax_connections = 5\nconnections_per_address = 0\n")
    assert load_config(tmp_path, {"HOME": "/h"}).server.bounds(20_256) == Bounds(5, 0, 10.0, 75.0, 120.0)
    assert Server().bounds(64).connections == 16, "a few even then"
    assert Server().unread_wanted == 10.0


def test_engines_end_with_the_daemon_unless_stated(tmp_path: Path) -> None:
    assert load_config(tmp_path, {"HOME": "/h"}).fleet.adopt_within_seconds == 0
    write(tmp_path, "[fleet]\nadopt_within = '1m30s'\n")
    assert load_config(tmp_path, {"HOME": "/h"}).fleet.adopt_within_seconds == 90
    assert "`fleet.adopt_within`" in refused(write(tmp_path, "[fleet]\nadopt_within = 'soon'\n"))


def test_a_model_file_without_a_name_is_refused(tmp_path: Path) -> None:
    assert "the key `name` is missing" in refused(write(tmp_path, "context = 1\n", "models.d/x.toml"))


def test_ollamas_environment_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nhost = ':1'\n[fleet]\nmax_queue = 7\n")
    environ = {
        "HOME": "/h",
        "OLLAMA_HOST": '"0.0.0.0:8080"',
        "OLLAMA_ORIGINS": "http://a, http://b*",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "2",
        "OLLAMA_MAX_QUEUE": "many",
        "OLLAMA_CONTEXT_LENGTH": "8192",
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_LOAD_TIMEOUT": "0",
        "OLLAMA_DEBUG": "1",
    }
    loaded = load_config(tmp_path, environ)
    assert loaded.server.address == ("0.0.0.0", 8080)
    assert loaded.server.origins == ("http://a", "http://b*")
    assert loaded.fleet.keep_alive_seconds == float("inf")
    assert (loaded.fleet.max_loaded_models, loaded.fleet.max_queue) == (2, 7)
    assert (loaded.models.context, loaded.models.parallel) == (8192, 4)
    assert loaded.fleet.load_timeout_seconds == float("inf")
    assert loaded.server.debug


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0", ("0.0.0.0", 11434)),
        ("", ("127.0.0.1", 11434)),
        (":8080", ("", 8080)),
        ("example.org:1", ("example.org", 1)),
        ("http://example.org", ("example.org", 80)),
        ("https://example.org/path", ("example.org", 443)),
        ("http://example.org:9/x", ("example.org", 9)),
        ("[::1]:5", ("::1", 5)),
        ("[::]", ("::", 11434)),
        ("::1", ("::1", 11434)),
        ("host:99999", ("host", 11434)),
        ("host:bad", ("host", 11434)),
    ],
)
def test_hosts_in_every_form_ollama_takes(text: str, address: tuple[str, int]) -> None:
    assert parse_host(text) == address


def test_what_is_prepared_where(tmp_path: Path) -> None:
    (tmp_path / "engines.d").mkdir()
    for stated, expected in (("auto", (False, True)), ("on", (True, True)), ("off", (False, False))):
        (tmp_path / "engines.d" / "vllm.toml").write_text(f'prepare = "{stated}"\n')
        table = load_config(tmp_path, {"HOME": "/h"}).engine_table("vllm")
        assert (table.prepares("cpu"), table.prepares("cuda")) == expected
    (tmp_path / "engines.d" / "vllm.toml").write_text('prepare = "yes"\n')
    with pytest.raises(ConfigError, match=r"vllm.toml: `prepare` is 'yes', which it cannot be"):
        load_config(tmp_path, {"HOME": "/h"})
