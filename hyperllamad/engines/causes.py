"""From an exit code and the end of a log to a reason in plain words.  Pure; each engine brings its own rules.

A rule is a pattern with what it means.  The first rule that matches any line wins, so a table goes from the certain to
the vague.  Without a match the last exception of the innermost process that logged one is the reason.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import NamedTuple

from hyperllamad.engines.base import Explanation

LONGEST = 300  # characters of a line that is quoted


class Rule(NamedTuple):
    """`cause` is a whole sentence and may hold {title} and, as `hint`, {0}, {1}, ...: the groups of `pattern`."""

    pattern: str
    code: str
    cause: str
    hint: str = ""
    retry: bool = False


_LESS_MEMORY = "unload other models, or give this one a smaller `context` or `parallel`"
_MODEL_AGAIN = "the files are damaged or incomplete: fetch the model again"

# What any engine written in Python over CUDA may say; tried after its own rules.
COMMON = (
    Rule(
        r"CUDA out of memory|OutOfMemoryError: .*CUDA|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
        "gpu_memory",
        "the GPU's memory does not suffice",
        _LESS_MEMORY,
        retry=True,
    ),
    Rule(
        r"DefaultCPUAllocator: (?:not enough memory|can't allocate memory)|^MemoryError|: MemoryError|std::bad_alloc"
        r"|Cannot allocate memory",
        "host_memory",
        "the machine's memory does not suffice",
        _LESS_MEMORY,
        retry=True,
    ),
    Rule(r"No space left on device", "disk", "the disk is full", "make room, also in /dev/shm", retry=True),
    Rule(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old|libcuda\.so|no kernel image is"
        r" available|CUDA error: no CUDA-capable device|No CUDA GPUs are available",
        "driver",
        "the NVIDIA driver does not fit this engine or cannot be used",
        "update the driver, or install the engine's cpu variant",
    ),
    Rule(
        r"hyperllama launcher: (this version of .*)",
        "unsupported",
        "{0}",
        "install the version this release was made for: `hyperllamactl engine install NAME`",
    ),
    Rule(r"\[Errno 98\]|[Aa]ddress already in use", "address", "{title}'s socket was taken", retry=True),
    Rule(
        r"AF_UNIX path too long", "bad_argument", "the runtime directory's path is too long", "shorten `paths.runtime`"
    ),
    Rule(
        r"SafetensorError: (.*)",
        "weights",
        "the model's weights cannot be read: {0}",
        _MODEL_AGAIN,
    ),
    Rule(
        r"Failed to load tokenizer from \S+ |Couldn't instantiate the backend tokenizer|[Cc]an't load tokenizer for",
        "weights",
        "the model's tokenizer cannot be read",
        _MODEL_AGAIN,
    ),
    Rule(
        r"Unknown quantization method: ([^.\s]+)",
        "unsupported",
        "{title} does not know the quantisation {0}",
        "install a newer version of the engine, or fetch another quantisation of the model",
    ),
    Rule(
        r"JSONDecodeError|is not a valid JSON file",
        "weights",
        "a JSON file of the model cannot be read",
        _MODEL_AGAIN,
    ),
    Rule(
        r"Repo id must be in the form [^:]*: '([^']+)'|No such file or directory: '([^']+)'",
        "missing",
        "{0} does not exist",
        "it was moved or deleted; `hyperllamactl list` shows the models that are here",
    ),
    Rule(
        r"^(?:\(.*?\) )?(ModuleNotFoundError: .*|ImportError: .*|RuntimeError: operator .* does not exist)",
        "crash",
        "{title}'s installation is damaged: {0}",
        "remove it and install it again: `hyperllamactl engine remove NAME`, `hyperllamactl engine install NAME`",
    ),
    Rule(
        r"model type `(\S+?)` but Transformers does not recognize",
        "unsupported",
        '{title} does not know models of type "{0}"',
        "install a newer version of the engine, or choose another engine for the model",
    ),
    # pydantic's way of saying it, after everything that says more.
    Rule(r"^ +Value error, (.+?)(?: \[type=|$)", "unsupported", "{title} refuses the model or its arguments: {0}"),
)

_EXCEPTION = re.compile(r"^\s*((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt)): (.+)")
# Seen in every failed start; says only that somebody else failed.
_HOLLOW = re.compile(r"initialization failed|See (?:root cause|stack trace)|Failed core proc")
_PREFIX = re.compile(r"^\((?P<process>[\w-]+) pid=\d+\) (?:\w+ \d\d-\d\d [\d:]+ \[[^\]]+\] ?)?")


def explain(
    title: str, rules: Sequence[Rule], code: int, lines: Sequence[str], *, late: Sequence[Rule] = ()
) -> Explanation:
    """The reason by the first of `rules`, COMMON and `late` that matches, else by signal, else the last exception.

    `late` are lines that say only that a process died: whatever says why comes first.
    """
    for rule in (*rules, *COMMON, *late):
        for line in lines:
            if found := re.search(rule.pattern, line):
                said = [group for group in found.groups() if group is not None]
                return Explanation(
                    rule.code,
                    rule.cause.format(*(s[:LONGEST] for s in said), title=title),
                    rule.hint.format(*said),
                    rule.retry,
                )
    if code < 0:
        return _by_signal(title, -code)
    if reason := last_exception(lines):
        return Explanation("crash", f"{title} ended: {reason}", "`hyperllamactl logs` shows what it wrote")
    return Explanation("crash", f"{title} ended by itself with exit status {code}", retry=True)


def _by_signal(title: str, number: int) -> Explanation:
    if number == signal.SIGKILL:
        cause = f"{title} was killed, most likely because the machine ran out of memory"
        return Explanation("killed", cause, _LESS_MEMORY)
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
        return Explanation("told", f"{title} was told to end by somebody else ({name})")
    if number == signal.SIGILL:
        cause = f"{title} uses instructions this CPU does not have ({name})"
        return Explanation("unsupported", cause, "choose another engine for the model", retry=False)
    return Explanation("crash", f"{title} crashed ({name})", "`hyperllamactl logs` shows what it wrote")


def not_for_memory(title: str, found: Explanation) -> Explanation:
    """The same, once it is known that the kernel has killed nobody meanwhile: then it was somebody's wish."""
    if found.code != "killed":
        return found
    cause = f"{title} or a process of it was killed by somebody (SIGKILL): the machine did not run out of memory"
    return Explanation("killed", cause, "`hyperllamactl logs` shows what it wrote")


def last_exception(lines: Sequence[str]) -> str:
    """The last exception of the innermost process (workers before their parents); "" when there is none."""
    found: dict[str, str] = {}
    for line in lines:
        prefix = _PREFIX.match(line)
        text = line[prefix.end() :] if prefix else line
        if (exception := _EXCEPTION.match(text)) and not _HOLLOW.search(text):
            process = prefix["process"] if prefix else ""
            role = next((role for role in ("Worker", "EngineCore") if role in process), "")
            found[role] = f"{exception[2].strip()} ({exception[1].rsplit('.', 1)[-1]})"
    return next((found[role][:LONGEST] for role in ("Worker", "EngineCore", "") if role in found), "")
