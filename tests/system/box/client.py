"""A client from outside: the official Python client of Ollama, run on the box's network."""

from __future__ import annotations

import sys

import ollama


def main(model: str) -> None:
    client = ollama.Client(host="http://127.0.0.1:11434")
    assert model in [found.model for found in client.list().models], "it is listed"
    question = [{"role": "user", "content": "What is the capital of France?"}]
    options = {"temperature": 0, "num_predict": 24}
    whole = client.chat(model=model, messages=question, options=options)
    parts = [part.message.content for part in client.chat(model=model, messages=question, options=options, stream=True)]
    assert len(parts) > 3, parts
    assert "".join(map(str, parts)).strip()
    assert str(whole.message.content).strip()
    assert whole.eval_count, whole
    assert client.ps().models[0].model == model
    print(whole.message.content)


if __name__ == "__main__":
    main(sys.argv[1])
