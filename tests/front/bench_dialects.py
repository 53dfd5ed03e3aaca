"""CPU time of each dialect's translation alone, beside Ollama's: `python -m tests.front.bench_dialects`.

Microseconds of CPU per token for a llama.cpp event, with one event a read (an idle machine) and 16 (a busy one).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hyperllamad.front import engine_wire
from hyperllamad.front.anthropic_replies import MessageReply
from hyperllamad.front.ollama_lines import ChatLines
from hyperllamad.front.openai_replies import ChatReply, CompletionReply
from hyperllamad.front.responses_replies import ResponsesReply
from hyperllamad.front.responses_requests import ResponsesRequest
from hyperllamad.front.sse import EventLines
from tests.front.scripted_engine import events, recording

ROUNDS = 100_000


def measure(tokens: Callable[[list[Any]], bytes], data: bytes, count: int) -> float:
    lines, block, decode = EventLines(), data * count, engine_wire.chunk
    began = time.process_time()
    for _ in range(ROUNDS // count):
        tokens([decode(payload) for payload in lines.feed(block)])
    return (time.process_time() - began) / ROUNDS * 1e6


def of_one(reply: Any) -> Callable[[list[Any]], bytes]:
    return lambda chunks: reply.tokens(0, chunks)


if __name__ == "__main__":
    token = next(event for event in events(recording("llama_cpp-chat")) if b" capital" in event)
    model = "smollm2:135m"
    dialects = {
        "ollama": lambda: ChatLines(model).tokens,
        "chat": lambda: of_one(ChatReply(model)),
        "completion": lambda: of_one(CompletionReply(model)),
        "responses": lambda: of_one(ResponsesReply(ResponsesRequest(model=model))),
        "anthropic": lambda: of_one(MessageReply(model)),
    }
    for name, begun in dialects.items():
        figures = ", ".join(f"{measure(begun(), token, count):.2f} us at {count} a read" for count in (1, 16))
        print(f"{name:>10}: {figures}")
