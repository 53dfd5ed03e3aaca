"""Runs vLLM's API server with its own options: `python vllm_serve.py [--wait SOCKET] --model ...`.

With --wait it first imports all that serving needs, then listens on SOCKET for one line of JSON, {"argv": [options],
"env": {name: value}}, answers "going", and serves as if it had been started with them: a start whose imports are paid.
CUDA is not touched before that, so engine processes can be forked and inherit what was imported.  Executed by file path
with the python of an engine home: only the standard library and vLLM may be imported here.
"""

import contextlib
import gc
import importlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

WAITING = "hyperllama launcher: waiting"  # the line that says that the imports are done
SERVERS = (  # the server and its options, where newer versions keep them and where older ones do
    ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.launchers.cli_args"),
    ("vllm.entrypoints.openai.api_server", "vllm.entrypoints.openai.cli_args"),
)
EARLY = (  # what a start would import later, mostly in its engine process; what a version lacks is left out
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "transformers.models.llama.configuration_llama",
    "triton",
    "xgrammar",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_worker",
    "vllm.model_executor.models.llama",
)


def main() -> None:
    waits = sys.argv[1:2] == ["--wait"]
    try:
        server, options = _server()
        parser = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
        run = importlib.import_module("uvloop").run
        serve, make_parser, check = server.run_server, options.make_arg_parser, options.validate_parsed_serve_args
    except (ImportError, AttributeError) as failure:
        sys.exit(f"hyperllama launcher: this version of vLLM cannot be used: {failure}")
    if waits:
        _import_early()
        sys.argv[1:] = _wait_for_orders(sys.argv[2])
    arguments = make_parser(parser(prog="vllm_serve", description="vLLM's API server")).parse_args()
    check(arguments)
    run(serve(arguments))


def _server() -> tuple[Any, Any]:
    """Its modules; raises ImportError when it has neither pair of them."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module(SERVERS[0][0]), importlib.import_module(SERVERS[0][1])
    return importlib.import_module(SERVERS[1][0]), importlib.import_module(SERVERS[1][1])


def _import_early() -> None:
    for name in EARLY:
        with contextlib.suppress(Exception):  # whatever is wrong with it, the start itself will tell, and better
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # forked processes then share these pages for good


def _wait_for_orders(path: str) -> list[str]:
    """The options; the environment is changed as told."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        sys.stdout.write(f"{WAITING}\n")
        sys.stdout.flush()
        connection, _ = listener.accept()
    Path(path).unlink()
    with connection, connection.makefile("rwb") as stream:
        told = json.loads(stream.readline())
        stream.write(b"going\n")
    os.environ.update(told["env"])
    return list(told["argv"])


if __name__ == "__main__":
    main()
