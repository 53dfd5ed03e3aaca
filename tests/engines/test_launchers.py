"""Our few lines that run inside an engine home, against stand-ins for the engines."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hyperllamad.engines import llama_cpp, vllm
from hyperllamad.engines import max as modular
from hyperllamad.engines.launchers import vllm_serve

XLLAMACPP = """
import json
class Part:
    def __init__(self, **values): self.__dict__.update(values)
class CommonParams(Part):
    def __init__(self):
        super().__init__(
            model=Part(path=""), mmproj=Part(path=""), cpuparams=Part(n_threads=-1), cpuparams_batch=Part(n_threads=-1),
            n_ctx=0, n_parallel=1, n_batch=2048, n_ubatch=512, cache_ram_mib=8192, n_cache_reuse=0, n_gpu_layers=-1,
            n_keep=0, lora_adapters=[],
            chat_template="", rope_freq_base=0.0, rope_freq_scale=0.0, use_jinja=False, warmup=True, ui=True,
            endpoint_metrics=False, embedding=False, ctx_shift=False, swa_full=False, hostnames=["127.0.0.1"])
def CommonAdapterLoraInfo(path, scale):
    return [path, scale]
class Server:
    def __init__(self, params):
        if params.model.path == "/broken":
            raise RuntimeError("Failed to init server")
        shown = {k: v.__dict__ if isinstance(v, Part) else v for k, v in params.__dict__.items() if k != "model_alias"}
        print(json.dumps(shown | {"alias": sorted(getattr(params, "model_alias", []))}), flush=True)
        self.serves = True
    serves = False
    def __del__(self):
        import time
        time.sleep(60 * self.serves)  # as the real one, while a client does not read its stream
"""
MAX = """
def validate_port_is_free(port): raise ValueError("taken")
def fastapi_config(app, server_settings): return Config()
class Config: uds = None
"""
COMMAND = """
import sys
import max._entrypoints.cli.serve.serve_api_and_model_worker as server
def main():
    print(sys.argv[1:], server.fastapi_config(app=1, server_settings=2).uds, server.validate_port_is_free(8000))
"""


def start(launcher: Path, modules: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(launcher), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PYTHONPATH": str(modules)},
    )


def run(launcher: Path, modules: Path, *arguments: str) -> tuple[int, str]:
    with start(launcher, modules, *arguments) as process:
        output, _ = process.communicate(timeout=30)
    return process.returncode, output


def test_llama_server_options_reach_the_wheel_and_a_signal_ends_it(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text(XLLAMACPP)
    options = "--host /x.sock --model /m.gguf --alias m --ctx-size 4096 --parallel 4 --threads 3 --rope-freq-base 1e4"
    options += " --lora /a.gguf --lora /b.gguf"
    flags = "--jinja --metrics --no-warmup --cache-ram 1024"
    with start(llama_cpp.LAUNCHER, tmp_path, *options.split(), *flags.split()) as process:
        assert process.stdout
        shown = json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(10) in {0, -15}  # -15: before it had time to say what shall happen at the signal
    assert shown["hostnames"] == ["/x.sock"]
    assert (shown["model"]["path"], shown["alias"]) == ("/m.gguf", ["m"])
    assert (shown["n_ctx"], shown["n_parallel"], shown["cpuparams"]["n_threads"]) == (4096, 4, 3)
    assert (shown["rope_freq_base"], shown["cache_ram_mib"]) == (10000.0, 1024)
    assert (shown["use_jinja"], shown["endpoint_metrics"], shown["warmup"]) == (True, True, False)
    assert shown["lora_adapters"] == [["/a.gguf", 1.0], ["/b.gguf", 1.0]]
    assert (shown["embedding"], shown["ui"], shown["offline"]) == (False, False, True)


@pytest.mark.parametrize(
    ("source", "arguments", "code", "words"),
    [
        (XLLAMACPP, ["--model", "/broken"], 1, "hyperllama launcher: Failed to init server"),
        (XLLAMACPP, ["--nonsense"], 2, "error: unrecognized arguments: --nonsense"),
        (XLLAMACPP, ["--ctx-size", "many"], 2, "error: argument --ctx-size: invalid value: 'many'"),
        ("", ["--model", "/m"], 1, "hyperllama launcher: this version of xllamacpp cannot be used"),
    ],
)
def test_what_the_llama_launcher_cannot_do(
    source: str, arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "xllamacpp.py").write_text(source)
    returned, output = run(llama_cpp.LAUNCHER, tmp_path, "--host", "/x.sock", *arguments)
    assert returned == code
    assert words in output
    assert llama_cpp.ENGINE.explain_exit(returned, output.splitlines()).retry is (arguments == ["--model", "/broken"])


def put_max(root: Path, server: str) -> None:
    package = root / "max" / "_entrypoints" / "cli" / "serve"
    package.mkdir(parents=True)
    (package / "serve_api_and_model_worker.py").write_text(server)
    (root / "max" / "_entrypoints" / "pipelines.py").write_text(COMMAND)


def test_max_is_put_on_a_socket(tmp_path: Path) -> None:
    put_max(tmp_path, MAX)
    code, output = run(modular.LAUNCHER, tmp_path, "/x.sock", "serve", "--model", "m")
    assert (code, output) == (0, "['serve', '--model', 'm'] /x.sock 8000\n")


@pytest.mark.parametrize("server", ["", MAX.replace("def fastapi_config", "def other")])
def test_a_max_that_looks_different_is_refused_in_plain_words(server: str, tmp_path: Path) -> None:
    put_max(tmp_path, server)
    code, output = run(modular.LAUNCHER, tmp_path, "/x.sock", "serve")
    found = modular.ENGINE.explain_exit(code, output.splitlines())
    assert (found.code, found.retry) == ("unsupported", False)
    assert "cannot be put on a Unix socket" in found.cause


def test_no_max_at_all(tmp_path: Path) -> None:
    code, output = run(modular.LAUNCHER, tmp_path, "/x.sock", "serve")
    assert code == 1
    assert "No module named 'max'" in output


# -- vLLM ------------------------------------------------------------------------------------------------------------

OPTIONS = """
import argparse
def make_arg_parser(parser):
    parser.add_argument("--model")
    return parser
def validate_parsed_serve_args(args): print("checked", flush=True)
"""
SERVER = """
import os
async def run_server(args): print(WHERE, args.model, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
"""
UVLOOP = "import asyncio; run = asyncio.run"
NEWER, OLDER = "vllm/entrypoints/launchers", "vllm/entrypoints/openai"


def put_vllm(root: Path, layout: str) -> None:
    """A vLLM that keeps its server where newer or older versions do."""
    server, options = {
        NEWER: (f"{NEWER}/api_server/entry.py", f"{NEWER}/cli_args.py"),
        OLDER: (f"{OLDER}/api_server.py", f"{OLDER}/cli_args.py"),
    }[layout]
    files = {
        server: f"WHERE = {layout.rpartition('/')[2]!r}{SERVER}",
        options: OPTIONS,
        "vllm/utils/argparse_utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
        "vllm/v1/engine/core.py": "print('core', flush=True)",
        "vllm/v1/engine/async_llm.py": "raise RuntimeError('something is wrong with it')",
        "uvloop.py": UVLOOP,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("layout", [NEWER, OLDER])
def test_vllm_s_server_is_found_where_its_version_keeps_it(layout: str, tmp_path: Path) -> None:
    put_vllm(tmp_path, layout)
    code, output = run(vllm.LAUNCHER, tmp_path, "--model", "/m")
    assert (code, output.splitlines()) == (0, ["checked", f"{layout.rpartition('/')[2]} /m None"])


def test_vllm_prepared_waits_for_its_orders(tmp_path: Path) -> None:
    put_vllm(tmp_path, NEWER)
    path = tmp_path / "go.sock"
    with start(vllm.LAUNCHER, tmp_path, "--wait", str(path)) as process:
        assert process.stdout
        # What it needs later is imported by now, and what cannot be imported does not keep it from waiting.
        assert [process.stdout.readline().strip() for _ in range(2)] == ["core", vllm_serve.WAITING]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            orders = {"argv": ["--model", "/late"], "env": {"CUDA_VISIBLE_DEVICES": "1"}}
            client.sendall(json.dumps(orders).encode() + b"\n")
            assert client.recv(16) == b"going\n"
        assert process.stdout.read().splitlines() == ["checked", "launchers /late 1"]
        assert process.wait(10) == 0
    assert not path.exists()


def test_a_prepared_vllm_that_nobody_needs_ends_at_a_signal(tmp_path: Path) -> None:
    put_vllm(tmp_path, NEWER)
    with start(vllm.LAUNCHER, tmp_path, "--wait", str(tmp_path / "go.sock")) as process:
        assert process.stdout
        assert [process.stdout.readline().strip() for _ in range(2)][1] == vllm_serve.WAITING
        process.terminate()
        assert process.wait(10) == -15


def test_a_vllm_that_looks_different_is_refused_in_plain_words(tmp_path: Path) -> None:
    put_vllm(tmp_path, OLDER)
    (tmp_path / OLDER / "api_server.py").write_text("")
    code, output = run(vllm.LAUNCHER, tmp_path, "--model", "/m")
    found = vllm.ENGINE.explain_exit(code, output.splitlines())
    assert (code, found.code, found.retry) == (1, "unsupported", False)
    assert "this version of vLLM cannot be used" in found.cause


def test_no_vllm_at_all(tmp_path: Path) -> None:
    code, output = run(vllm.LAUNCHER, tmp_path, "--model", "/m")
    assert code == 1
    assert "No module named 'vllm'" in output


PINS = """
class Block:
    def __init__(self, size, tag): self.handle, self.tag = (0, size, 0, 0), tag
class CuMemAllocator:
    pointer_to_data = {1: Block(5, "weights"), 2: Block(7, "kv_cache"), 3: Block(11, "weights")}
    get_instance = classmethod(lambda cls: cls)
"""
TORCH = """
uint8 = "bytes"
def empty(size, dtype, pin_memory): print("pinned", size, dtype, pin_memory, flush=True)
"""
PROGRAM = """
import vllm_worker
worker = vllm_worker.Sleeper()
print(worker.hyperllama_pin())
worker.hyperllama_pinning.join(10)
print(worker.hyperllama_pinned())
"""


def test_host_memory_for_sleep_is_pinned_as_the_weights_lie(tmp_path: Path) -> None:
    put_vllm(tmp_path, NEWER)
    allocator = tmp_path / "vllm" / "device_allocator" / "cumem.py"
    allocator.parent.mkdir()
    allocator.write_text(PINS)
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "program.py").write_text(PROGRAM)
    shutil.copy(vllm.LAUNCHER.with_name("vllm_worker.py"), tmp_path)
    code, output = run(tmp_path / "program.py", tmp_path)
    said = sorted(output.splitlines())
    assert code == 0, output
    assert said[0].startswith("hyperllama: pinned 16 bytes of host memory in ")
    assert said[1:] == ["pinned 11 bytes True", "pinned 5 bytes True", "{'bytes': 16}", "{'done': True}"]
