"""The llama.cpp backend: one server with the base and every adapter, so a release costs an adapter.

All releases share the weights, the slots and their keys and values. llama.cpp takes adapters only
when a server is made, so a change of adapters makes a new one on the same mapped weights: what
runs goes on in the old server, which ends with its last request, and what comes goes to the new
one. A server in which nothing runs ends first, so that two are in memory only where they must be.
An adapter that is taken away leaves with the next change. Which slot a request gets stands in
engine_roster.py, how slots share a prompt's start in engine_starts.py, its words in
engine_payload.py.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import ModelError
from tutelage.inference.chat_template import ChatTemplate
from tutelage.inference.engine_base import Ending, Piece, Tell
from tutelage.inference.engine_grammar import Grammars
from tutelage.inference.engine_payload import Reader, Renderer, ending, job_of
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import ChatRequest
from tutelage.inference.engine_roster import Roster
from tutelage.inference.engine_server import LlamaServer, Sizes
from tutelage.inference.engine_starts import LEAST, SharedStarts
from tutelage.inference.gguf_header import read_header
from tutelage.inference.lora_gguf import ensure_apart
from tutelage.inference.tuned import read_tuned

_DEAD = 1  # adapters without a release that may stay loaded


class _Generation:
    """A server, its slots, and how many requests run in it."""

    def __init__(self, server: LlamaServer, slots: int) -> None:
        self.server = server
        self.roster = Roster(slots)
        self.running = 0


class LlamaCppBackend:
    """Serves a GGUF file. `slots` requests run at once, each of at most `context` tokens."""

    name = "llamacpp"

    def __init__(
        self,
        model: Path,
        *,
        cache: Path,
        threads: int = 1,
        slots: int = 4,
        context: int = 2048,
        specials: Sequence[str] = (),
    ) -> None:
        """`specials` are the control tokens to make inert in users' text."""
        trained = read_header(model).of_architecture("context_length")
        self.model = model
        self.cache = cache
        self.sizes = Sizes(threads, slots, min(context, int(trained)) if trained else context)
        self.render = Renderer(ChatTemplate.of_gguf(model), tuple(specials))
        self.grammars = Grammars()
        self._seats: Counter[Path | None] = Counter()
        self._current: _Generation | None = None
        self._starts: SharedStarts | None = None
        self._changing = threading.Lock()  # held while a server is made
        self._counting = threading.Condition()
        self._between = False  # there is no server for a moment: requests wait

    def open(self, adapter: Path | None) -> LlamaCppSeat:
        """Load the base (None) or the adapter in this PEFT folder.

        Raises ModelError for what llama.cpp can't apply: it would answer as another model.
        """
        if adapter is not None and (answerer := read_tuned(adapter).answerer):
            raise ModelError(
                f"llama.cpp can't answer by {answerer}",
                where=str(adapter),
                fix="Set deploy.backend: transformers",
            )
        return self.open_lora(ensure_apart(adapter, self.model, self.cache) if adapter else None)

    def open_lora(self, lora: Path | None) -> LlamaCppSeat:
        """Load the base (None) or a converted adapter."""
        with self._changing:
            loaded = self._current.server.loras if self._current else None
            if loaded is None or (lora is not None and lora not in loaded):
                self._change([*self._wanted(), *([lora] if lora else [])])
            self._seats[lora] += 1
        return LlamaCppSeat(self, lora)

    def close(self, lora: Path | None) -> None:
        """Let go of a release; the last one takes the server with it."""
        with self._changing:
            self._seats[lora] -= 1
            if self._seats[lora]:
                return
            del self._seats[lora]
            if self._starts:
                self._starts.forget(str(lora))
            if not self._seats:
                self._put(None)
            elif self._current and len(self._current.server.loras) - len(self._wanted()) > _DEAD:
                with contextlib.suppress(ModelError):  # the old server goes on answering
                    self._change(self._wanted())

    def end(self) -> None:
        """Let go of all releases."""
        with self._changing:
            self._seats.clear()
            self._put(None)

    @contextmanager
    def lease(self) -> Iterator[_Generation]:
        """Hold the current server while a request runs in it."""
        with self._counting:
            self._counting.wait_for(lambda: not self._between)
            generation = self._current
            if generation is None:
                raise RequestProblem("the release is being unloaded", status=503)
            generation.running += 1
        try:
            yield generation
        finally:
            with self._counting:
                generation.running -= 1
                last = generation.running == 0 and generation is not self._current
            if last:
                generation.server.stop()

    def bring(self, lora: Path | None, start: str, slot: _Held) -> None:
        """Let a slot hold the start of a prompt, if other slots have it or will want it."""
        if self._starts is not None:
            self._starts.bring(str(lora), start, slot)

    def _wanted(self) -> list[Path]:
        return [lora for lora in self._seats if lora is not None]

    def _change(self, loras: Sequence[Path]) -> None:
        """Put a server with these adapters in the place of the current one.

        If it can't be made, the adapters before stay; raises ModelError.
        """
        with self._counting:
            old = self._current
            self._between = old is not None and old.running == 0
        try:
            if old is not None and self._between:
                old.server.stop()
                self._current = None
            try:
                self._put(self._made(loras))
            except ModelError:
                if old is not None and self._current is None:
                    self._put(self._made(old.server.loras))
                raise
        finally:
            with self._counting:
                self._between = False
                self._counting.notify_all()

    def _made(self, loras: Sequence[Path]) -> _Generation:
        if self._starts is None:
            self._starts = SharedStarts(Path(tempfile.mkdtemp(prefix="tutelage-starts-")))
        server = LlamaServer(self.model, loras, self.sizes, self._starts.folder)
        return _Generation(server, self.sizes.slots)

    def _put(self, new: _Generation | None) -> None:
        """Let requests go to `new` from now on; the old one ends when nothing runs in it."""
        with self._counting:
            old, self._current = self._current, new
            idle = old is not None and old.running == 0
        if old is not None and idle:
            old.server.stop()
        if new is None and self._starts is not None:
            shutil.rmtree(self._starts.folder, ignore_errors=True)
            self._starts = None


class LlamaCppSeat:
    """One release: the base, or an adapter of it."""

    def __init__(self, backend: LlamaCppBackend, lora: Path | None) -> None:
        self.slots = backend.sizes.slots
        self._backend = backend
        self._lora = lora
        self._open = True

    def answer(self, request: ChatRequest, tell: Tell) -> Ending:
        """Stream the answer to `tell`; ends early when it returns True."""
        job = job_of(request, self._backend.render)
        reader = Reader(tell, calls=job.calls)
        with self._backend.lease() as generation:
            name = str(self._lora)
            taken = generation.roster.take(name, job.text, len(job.shared), lambda: tell(Piece("")))
            if taken is None:
                reader.stopped = True
                return ending(request, reader)
            slot = _Held(generation.server, taken.index, self._lora, taken.own, tell)
            try:
                if taken.held < len(job.shared) >= LEAST:
                    self._backend.bring(self._lora, job.shared, slot)
                payload, server = {**job.payload, "id_slot": taken.index}, generation.server
                self._backend.grammars.require(
                    payload, lambda one, reads: server.complete(one, self._lora, reads), tell
                )
                (server.chat if job.chat else server.complete)(payload, self._lora, reader)
            except (ValueError, RuntimeError) as error:
                raise RequestProblem(str(error)) from error
            finally:
                generation.roster.give(taken, job.text + reader.text, reader.cost)
        return ending(request, reader)

    def close(self) -> None:
        """Let go of the release; no request of it is running."""
        if self._open:
            self._open = False
            self._backend.close(self._lora)


@dataclass
class _Held:
    """A slot that a request holds, as SharedStarts moves keys and values in it."""

    server: LlamaServer
    index: int
    lora: Path | None
    own: bool  # its last request was this release's
    tell: Tell

    def compute(self, text: str) -> bool:
        reader = Reader(lambda piece: self.tell(Piece("")))
        payload = {"prompt": text, "max_tokens": 0, "cache_prompt": True, "id_slot": self.index}
        with contextlib.suppress(ValueError):  # the request itself will say it
            more = {"stream": True, "return_progress": True}
            self.server.complete({**payload, **more}, self.lora, reader)
            return not reader.stopped and reader.problem is None
        return False

    def save(self, name: str) -> None:
        self.server.save(self.index, name)

    def restore(self, name: str) -> None:
        """Read the file in; a slot that had another adapter would drop it at the next request."""
        if self.own or self.compute("."):
            self.server.restore(self.index, name)
