"""A client in the middle of a long answer, for tests that take something away from it."""

from __future__ import annotations

import threading
import time

import ollama

COUNT = "1, 2, 3, 4, 5, 6, 7,"


class Stream(threading.Thread):
    """A client in the middle of a long answer."""

    def __init__(self, url: str, model: str, **options: object) -> None:
        super().__init__(daemon=True)
        self.url, self.model = url, model
        # Without a template the small model counts on and on; asked in a chat it may stop after a line.
        self.options = {"temperature": 0, "num_predict": 2000, **options}
        self.text = ""
        self.parts = 0
        self.error: Exception | None = None
        self.ended_at = 0.0
        self.flowing = threading.Event()

    def run(self) -> None:
        try:
            with ollama.Client(self.url, timeout=300) as client:
                asked = client.generate(self.model, COUNT, raw=True, stream=True, options=self.options)
                for part in asked:
                    self.text += part.response
                    self.parts += 1
                    if self.parts == 3:
                        self.flowing.set()
        except Exception as failure:
            self.error = failure
        self.ended_at = time.monotonic()
        self.flowing.set()
