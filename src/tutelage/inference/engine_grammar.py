"""Whether llama.cpp keeps to a grammar: one that it can't compile it drops, and answers freely.

It says so in its log alone. So a grammar that is new gets one token to write, with a bias towards
one that no JSON begins with: if that is written, there is no grammar. Nothing else is checked here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from tutelage.inference.engine_base import Piece, Tell
from tutelage.inference.engine_payload import Reader
from tutelage.inference.engine_problem import RequestProblem

_OUTSIDE = "."  # begins no JSON
_BIAS = 1000.0
_KNOWN = 256  # grammars remembered

Complete = Callable[[dict[str, Any], Reader], None]


class Grammars:
    """The grammars that were seen to hold."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def require(self, payload: Mapping[str, Any], complete: Complete, tell: Tell) -> None:
        """Return if the payload's grammar holds, or it has none; raise RequestProblem if not."""
        grammar = payload.get("grammar")
        if grammar is None or self._knows(grammar):
            return
        reader = Reader(lambda piece: tell(Piece("")))
        one = {"max_tokens": 1, "temperature": 0.0, "logit_bias": [[_OUTSIDE, _BIAS]]}
        complete({k: v for k, v in payload.items() if k not in ("stop", "logprobs")} | one, reader)
        if reader.text.strip().startswith(_OUTSIDE):
            raise RequestProblem(
                "this engine can't enforce the JSON schema: nothing satisfies it, or it holds a "
                "format or a pattern that the engine does not know"
            )
        if reader.finish_reason is not None and reader.problem is None:
            self._add(grammar)

    def _knows(self, grammar: str) -> bool:
        with self._lock:
            known = grammar in self._held
            if known:
                self._held.move_to_end(grammar)
            return known

    def _add(self, grammar: str) -> None:
        with self._lock:
            self._held[grammar] = None
            if len(self._held) > _KNOWN:
                self._held.popitem(last=False)
