"""Lines of answers as the wire carries them, for the scripted daemon."""

from __future__ import annotations

from typing import Any

NOW = 1_700_000_000.0

READY = {
    "name": "smollm2:135m",
    "id": "4f2a9c01b7de",
    "engine": "llama_cpp",
    "state": "ready",
    "size": 271_000_000,
    "processor": "100% CPU",
    "context": 8192,
    "parallel": 4,
    "running": 2,
    "waiting": 1,
    "since": NOW - 60,
    "until": NOW + 290,
    "pid": 4242,
}
PINNED = {
    "name": "qwen3:8b",
    "id": "c6eb396dbd59",
    "engine": "vllm",
    "state": "ready",
    "size": 9_600_000_000,
    "size_gpu": 9_600_000_000,
    "processor": "100% GPU",
    "context": 32768,
    "until": None,
    "restarts": 1,
}
STARTING = {"name": "gemma4:latest", "id": "9a1f00000000", "engine": "max", "state": "starting", "phase": "weights"}
LEAVING = {**READY, "name": "old:latest", "state": "draining", "running": 1, "waiting": 0}
FAILED = {
    "name": "llama3.1:8b",
    "id": "77b200000000",
    "engine": "max",
    "state": "failed",
    "restarts": 4,
    "cause": "the GPU has 8 GiB, the model needs 16 GiB",
}
ALL = [PINNED, READY, STARTING, LEAVING, FAILED]

MODEL = {
    "name": "smollm2:135m",
    "id": "4f2a9c01b7de",
    "size": 91_700_000,
    "modified_at": NOW - 3 * 86400,
    "format": "gguf",
    "family": "llama",
    "parameter_size": "134.52M",
    "quantization": "Q4_1",
    "engine": "llama_cpp",
}
UNSERVED = {
    **MODEL,
    "name": "odd:latest",
    "format": "safetensors",
    "size": 1_300_000_000,
    "modified_at": NOW - 70,
    "quantization": "",
    "engine": "",
    "problem": "no installed engine knows OddForCausalLM",
}
DETAILS = {
    "type": "model_details",
    "model": MODEL,
    "path": "/srv/models/smollm2.gguf",
    "architecture": "llama",
    "context_length": 8192,
    "embedding_length": 576,
    "capabilities": ["completion", "tools"],
    "system": "Be brief.\nBe kind.",
    "parameters": {"temperature": 0.2},
    "license": "Apache License\nVersion 2.0\n",
}
STATUS = {
    "type": "status_report",
    "version": "0.1.0",
    "pid": 77,
    "started_at": NOW - 3 * 3600,
    "url": "http://127.0.0.1:11434",
    "config": "/etc/hyperllama",
    "engines": ["llama_cpp-0.3-cpu", "vllm-0.32.0-cpu"],
    "models": 3,
    "requests": 2,
    "waiting": 1,
    "memory": 61_000_000,
    "prepared": {"vllm-0.32.0-cpu": 812_000_000},
    "instances": [READY],
}
ENGINES = [
    {
        "name": "llama_cpp",
        "title": "llama.cpp",
        "version": "0.3",
        "variant": "cpu",
        "id": "llama_cpp-0.3-cpu",
        "size": 40_000_000,
        "installed_at": NOW - 86400 * 2,
        "installed": True,
        "in_use": True,
    },
    {"name": "llama_cpp", "title": "llama.cpp", "variant": "system", "id": "llama_cpp-system", "installed": True},
    {"name": "vllm", "title": "vLLM", "variants": ["cpu", "cuda"]},
]
KEYS = {
    "type": "keys",
    "keys": [
        {"name": "alice", "concurrent": 4, "tokens_per_minute": 20000, "created_at": NOW - 3600},
        {"name": "monitoring", "fixed": True},
    ],
    "required": True,
    "file": "/var/lib/hyperllama/keys.toml",
}
KEY = {"type": "key_made", "name": "alice", "key": "hl-0123456789", "required": True}


def instances(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"type": "instances", "instances": list(rows)}


def progress(phase: str, detail: str = "", *, done: int = 0, total: int = 0, elapsed: float = 0.0) -> dict[str, Any]:
    return {"type": "progress", "phase": phase, "detail": detail, "done": done, "total": total, "elapsed": elapsed}


def failed(code: str) -> dict[str, Any]:
    return {"type": "failed", "code": code, "message": f"it is {code}", "hint": "try this"}


MACHINE = {
    "type": "machine_report",
    "gpus": [
        {
            "index": 0,
            "uuid": "GPU-1",
            "name": "NVIDIA L4",
            "capability": "8.9",
            "total": 24_000_000_000,
            "free": 14_000_000_000,
            "ours": 9_000_000_000,
            "bandwidth": 300_000_000_000,
            "processes": 2,
        }
    ],
    "driver": "580.159.04",
    "cuda": "13.0",
    "gpu_problem": "GPU 1: the GPU must be reset before it can be used",
    "processor": "AMD EPYC",
    "cores": 16,
    "features": ["avx2", "fma"],
    "memory": 64_000_000_000,
    "available": 51_500_000_000,
    "engines": [],
}
NO_GPU = {"type": "machine_report", "gpu_problem": "no NVIDIA driver", "cores": 2, "memory": 8_000_000_000}
OFFER = {
    "name": "qwen3:8b-fp8",
    "model": "qwen3:8b",
    "repository": "Qwen/Qwen3-8B-FP8",
    "kind": "fp8",
    "engine": "vllm",
    "device": "cuda",
    "need": 11_500_000_000,
    "room": 21_000_000_000,
    "fits": True,
    "single": 18.13,
    "together": 634.0,
    "why": "compute capability 8.9 computes in fp8",
    "context": 40960,
}
GATED = {**OFFER, "name": "llama3.1:70b-awq", "model": "llama3.1:70b", "kind": "awq", "context": 131072, "gated": True}
GATED |= {"fits": False, "why": "it needs about 50.2 GB, and 21.0 GB are free", "single": 2.3, "together": 0.0}
OFFERS = {"type": "recommendations", "offers": [OFFER, GATED]}
COLLECTED = {
    "type": "collected",
    "items": [
        {"path": "/var/lib/hyperllama/models/.x.partial", "size": 4_700_000_000, "reason": "a download nobody wanted"},
        {"path": "/var/lib/hyperllama/models/.blobs/sha256-00", "size": 12, "reason": "an uploaded file"},
    ],
    "freed": 4_700_000_012,
    "dry_run": True,
}


DECISION = {
    "type": "decision",
    "at": NOW,
    "what": "evicted",
    "model": "smollm2:135m",
    "instance": "abababababab-0123456789ab",
    "why": "qwen3:8b needs its room",
    "inputs": {"type": "Question", "places": 3},
    "outcome": {"type": "Placed"},
}
WHY = {"type": "why_report", "model": "smollm2:135m", "instances": [READY], "decisions": [DECISION]}
PLACED = {**DECISION, "what": "placed", "model": "qwen3:8b", "why": "fits into GPU 0, once another has left"}
PLAN = {
    "type": "load_plan",
    "model": "qwen3:8b",
    "engine": "vllm",
    "outcome": "fits",
    "why": "after others have left",
    "need": {"weights": 16_400_000_000, "kv_cache": 4_000_000_000, "overhead": 1_900_000_000},
    "shares": [{"gpu": 0, "size": 22_300_000_000}],
    "leaving": [
        {"model": "gemma3:12b", "how": "sleeps", "requests": 2, "seconds": 0.6},
        {"model": "smollm2:135m", "how": "unloads", "requests": 0, "seconds": 12.3},
    ],
    "seconds": 41.0,
}
NEVER = {"type": "load_plan", "model": "qwen3:32b", "engine": "vllm", "outcome": "never"}
NEVER |= {"why": "needs 70.1 GiB, GPU 0 can free 16.0 GiB"}


def fetched(*files: tuple[str, int, int], elapsed: float = 1.0) -> dict[str, Any]:
    """A line of progress of several files: name, bytes that are here, all of them."""
    parts = [{"name": name, "done": done, "total": total} for name, done, total in files]
    sums = {key: sum(part[key] for part in parts) for key in ("done", "total")}
    return {"type": "progress", "phase": "pulling", "elapsed": elapsed, "files": parts, **sums}
