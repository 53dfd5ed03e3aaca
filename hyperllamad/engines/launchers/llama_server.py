"""Runs the HTTP server inside the xllamacpp wheel with llama-server's own options.

Executed by file path with the python of an engine home: only the standard library and xllamacpp may be imported here.
Options are the names llama-server gives them, of which OPTIONS and FLAGS are those understood.
"""

import argparse
import os
import signal
import sys
import threading
from typing import Any

OPTIONS = {  # option -> where xllamacpp keeps it; the type is that of the value there
    "--model": "model.path",
    "--mmproj": "mmproj.path",
    "--ctx-size": "n_ctx",
    "--parallel": "n_parallel",
    "--batch-size": "n_batch",
    "--ubatch-size": "n_ubatch",
    "--cache-ram": "cache_ram_mib",
    "--cache-reuse": "n_cache_reuse",
    "--threads": "cpuparams.n_threads",
    "--threads-batch": "cpuparams_batch.n_threads",
    "--n-gpu-layers": "n_gpu_layers",
    "--keep": "n_keep",
    "--chat-template": "chat_template",
    "--rope-freq-base": "rope_freq_base",
    "--rope-freq-scale": "rope_freq_scale",
}
FLAGS = {
    "--jinja": ("use_jinja", True),
    "--metrics": ("endpoint_metrics", True),
    "--embeddings": ("embedding", True),
    "--reranking": ("embedding", True),  # and the pooling, see _apply
    "--context-shift": ("ctx_shift", True),
    "--no-warmup": ("warmup", False),
    "--swa-full": ("swa_full", True),
}


def main() -> None:
    try:
        import xllamacpp  # noqa: PLC0415  # only the engine home has it

        params = xllamacpp.CommonParams()
        _apply(params, _arguments())
    except (ImportError, AttributeError) as failure:
        sys.exit(f"hyperllama launcher: this version of xllamacpp cannot be used: {failure}")
    try:
        _server = xllamacpp.Server(params)  # returns once it serves; serves for as long as the object lives
    except RuntimeError as failure:
        sys.exit(f"hyperllama launcher: {failure}")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    os._exit(0)  # an orderly end waits for every open stream, for ever if its client has stopped reading


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama_server", allow_abbrev=False)
    parser.add_argument("--host", required=True, help="path of a Unix socket, ending in .sock")
    parser.add_argument("--alias", default="")
    parser.add_argument(
        "--lora", action="append", default=[], help="path of a LoRA adapter; may be given several times"
    )
    for option in OPTIONS:
        parser.add_argument(option)
    for flag in FLAGS:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def _apply(params: Any, arguments: argparse.Namespace) -> None:
    params.hostnames = [arguments.host]
    params.ui, params.offline = False, True
    if arguments.lora:
        from xllamacpp import CommonAdapterLoraInfo  # noqa: PLC0415  # as in main

        params.lora_adapters = [CommonAdapterLoraInfo(path, 1.0) for path in arguments.lora]
    if arguments.alias:
        params.model_alias = {arguments.alias}
    for option, place in OPTIONS.items():
        if (text := _stated(arguments, option)) is not None:
            *path, name = place.split(".")
            holder = getattr(params, path[0]) if path else params
            try:
                value = type(getattr(holder, name))(text)
            except ValueError:
                sys.stderr.write(f"llama_server: error: argument {option}: invalid value: {text!r}\n")
                sys.exit(2)
            setattr(holder, name, value)
    for flag, (name, value) in FLAGS.items():
        if _stated(arguments, flag):
            setattr(params, name, value)
    if arguments.reranking:
        params.pooling_type = type(params.pooling_type).LLAMA_POOLING_TYPE_RANK


def _stated(arguments: argparse.Namespace, option: str) -> Any:
    return getattr(arguments, option.removeprefix("--").replace("-", "_"))


if __name__ == "__main__":
    main()
