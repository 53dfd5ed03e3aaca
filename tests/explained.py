"""`python -m tests.explained`: writes docs/decisions.md, whose examples are what the commands print.

A daemon over three tiny models and memory for two; the commands are run against it, and their output is the page.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.daemon import Daemon, daemon
from tests.store.tiny_llama import TinyLlama

PAGE = Path(__file__).parents[1] / "docs" / "decisions.md"
MEMORY = 700  # MiB: two fit as they are estimated, three do not
CONTEXTS = {"small": 8192, "medium": 65536, "large": 98304, "huge": 1 << 20}

HEAD = """\
# Why a model is where it is

<!-- Written by `python -m tests.explained`: every block below is what the command printed. -->

Every decision of the daemon is kept with everything it was made from (the last thousand of them), and is a line of its
log. `placed`, `waits`, `refused`: what became of a request whose model was not ready. `evicted`, `slept`, `woken`,
`unloaded`: what became of a model. `restarted`, `failed`: what a crash led to.

With `--json` each decision has its `inputs` (the devices, what everybody held, who might leave) and its `outcome`,
which follows from them alone: the tests make every recorded decision again and compare.

The models here are tiny and the machine may use {memory} MiB for them (`fleet.memory`), so that two have room.
"""


def shown(running: Daemon, *words: str) -> str:
    done = running.ctl(*words, check=False)
    return f"```\n$ hyperllamactl {' '.join(words)}\n{done.stdout.rstrip()}\n```\n"


def page(running: Daemon) -> str:
    parts = [HEAD.format(memory=MEMORY)]
    parts += ["## What would happen\n", "A plan measures and decides, and changes nothing.\n"]
    parts.append(shown(running, "plan", "load", "small"))
    running.ctl("load", "small")
    running.ctl("load", "medium")
    parts += ["With two models loaded, a third one has to send one away; a fourth one is too large for the machine:\n"]
    parts += [shown(running, "plan", "load", "large"), shown(running, "plan", "load", "huge")]
    running.ctl("load", "large")
    running.ctl("load", "huge", check=False)
    parts += ["## What happened to one model\n", shown(running, "why", "small"), shown(running, "why", "huge")]
    parts += ["## Everything that was decided\n", "`-f` goes on printing.\n", shown(running, "events")]
    return "\n".join(parts)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="explained-") as directory:
        path = Path(directory, "tiny.gguf")
        path.write_bytes(TinyLlama().gguf(llama__context_length=1 << 20))
        plain = {"path": str(path), "engine": "llama_cpp", "parallel": 2}
        models = {name: {**plain, "context": context} for name, context in CONTEXTS.items()}
        with daemon(models, main=f'[fleet]\nmemory = "{MEMORY}MiB"\n') as running:
            PAGE.write_text(page(running), encoding="utf-8")


if __name__ == "__main__":
    main()
