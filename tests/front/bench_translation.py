"""CPU time of the translation alone: an engine's bytes in, Ollama's lines out, no socket and no loop.

`python -m tests.front.bench_translation`; prints microseconds of CPU per token for each engine's form of an event,
with one event a read (an idle machine) and with 16 (a busy one).
"""

from __future__ import annotations

import time

from hyperllamad.front import engine_wire
from hyperllamad.front.ollama_lines import ChatLines
from hyperllamad.front.sse import EventLines
from tests.front.scripted_engine import events, recording

ROUNDS = 100_000


def measure(data: bytes, count: int) -> float:
    """Microseconds of CPU per event, for `count` events a read."""
    lines, chat, block = EventLines(), ChatLines("smollm2:135m"), data * count
    decode = engine_wire.chunk
    began = time.process_time()
    for _ in range(ROUNDS // count):
        chat.tokens([decode(payload) for payload in lines.feed(block)])
    return (time.process_time() - began) / ROUNDS * 1e6


if __name__ == "__main__":
    for engine in ("llama_cpp", "vllm", "max"):
        token = next(event for event in events(recording(f"{engine}-chat")) if b" capital" in event)
        figures = ", ".join(f"{measure(token, count):.2f} us at {count} a read" for count in (1, 16))
        print(f"{engine:>10}: {figures} ({len(token)} bytes an event)")
