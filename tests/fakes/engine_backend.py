"""An engine backend without a model: it echoes, and waits when told to."""

from __future__ import annotations

import threading
from pathlib import Path

from tutelage.core.errors import ModelError
from tutelage.inference.base import Usage
from tutelage.inference.engine_base import Ending, Piece, Tell
from tutelage.inference.engine_request import ChatRequest


class EchoBackend:
    """Opens seats that answer with the adapter's name and the last message, word by word."""

    name = "echo"

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.opened: list[Path | None] = []
        self.closed: list[Path | None] = []
        self.ended = False
        self.running = 0
        self.most = 0
        self.go = threading.Event()
        self.go.set()

    def open(self, adapter: Path | None) -> EchoSeat:
        if adapter is not None and adapter.name == "broken":
            raise ModelError("the adapter is broken", where=str(adapter), fix="Train it again")
        self.opened.append(adapter)
        return EchoSeat(self, adapter)

    def end(self) -> None:
        self.ended = True


class EchoSeat:
    def __init__(self, backend: EchoBackend, adapter: Path | None) -> None:
        self.backend, self.adapter, self.slots = backend, adapter, backend.slots
        self.stopped = False

    def answer(self, request: ChatRequest, tell: Tell) -> Ending:
        self.backend.running += 1
        self.backend.most = max(self.backend.most, self.backend.running)
        try:
            name = self.adapter.name if self.adapter else "base"
            words = f"{name}: {request.messages[-1]['content']}".split(" ")
            for place, word in enumerate(words):
                while not self.backend.go.wait(0.01):
                    if tell(Piece("")):
                        self.stopped = True
                        return Ending("stop", Usage())
                tell(Piece(word if place == 0 else f" {word}"))
            return Ending("stop", Usage(3, len(words), 1))
        finally:
            self.backend.running -= 1

    def close(self) -> None:
        self.backend.closed.append(self.adapter)
