"""The transformers backend: the reference, for models without a GGUF file or without xllamacpp.

One base model in memory, many PEFT adapters. Requests that wait for the same adapter are answered
in one static batch by a single worker thread; text comes whole at the end, not word by word.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.example import Message
from tutelage.inference.base import Completion, Decoding, Prompt
from tutelage.inference.chat import neutralise
from tutelage.inference.engine_base import Ending, Piece, Tell
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import ChatRequest
from tutelage.inference.engine_schema import answer_problem
from tutelage.inference.tuned import read_tuned

_GATHER_S = 0.005  # how long the first request waits for others to share its batch
_PROBE = Prompt((Message(role="user", content="."),), Decoding(max_tokens=1))


@dataclass
class _Job:
    adapter: Path | None
    prompt: Prompt
    done: Future[Completion] = field(default_factory=Future)


class TransformersBackend:
    """Answers with a generator that can change its adapter (TransformersGenerator)."""

    name = "transformers"

    def __init__(
        self, generator: Any, batch_size: int = 8, *, specials: Sequence[str] = ()
    ) -> None:
        """`specials` are the control tokens to make inert in users' text."""
        self.slots = batch_size
        self._specials = tuple(specials)
        self._generator = generator
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._adapter: Path | None = None
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    def open(self, adapter: Path | None) -> TransformersSeat:
        """Return a seat; one token is written now, so a broken adapter fails here."""
        self._ask(_Job(adapter, _PROBE))
        picks = adapter is not None and bool(read_tuned(adapter).answerer)
        return TransformersSeat(
            adapter, self._ask, 2 * self.slots, picks=picks, specials=self._specials
        )

    def end(self) -> None:
        """Its memory goes with the process."""

    def _ask(self, job: _Job) -> Completion:
        self._jobs.put(job)
        return job.done.result()

    def _work(self) -> None:
        waiting: list[_Job] = []
        while True:
            if not waiting:
                waiting.append(self._jobs.get())
                time.sleep(_GATHER_S)
            while not self._jobs.empty():
                waiting.append(self._jobs.get())
            adapter = waiting[0].adapter
            batch = [job for job in waiting if job.adapter == adapter][: self.slots]
            waiting = [job for job in waiting if job not in batch]
            self._answer(adapter, batch)

    def _answer(self, adapter: Path | None, batch: list[_Job]) -> None:
        try:
            if adapter != self._adapter:
                self._generator.set_adapter(adapter)
                self._adapter = adapter
            completions = self._generator.generate([job.prompt for job in batch])
        except Exception as error:  # handed to each request, which raises it
            for job in batch:
                job.done.set_exception(error)
            return
        for job, completion in zip(batch, completions, strict=True):
            job.done.set_result(completion)


class TransformersSeat:
    """One release of the shared model."""

    def __init__(
        self,
        adapter: Path | None,
        ask: Callable[[_Job], Completion],
        slots: int,
        *,
        picks: bool = False,
        specials: tuple[str, ...] = (),
    ) -> None:
        """`picks`: it answers with one of its labels, so a JSON schema can be kept to."""
        self.slots, self._picks = slots, picks
        self._specials = specials
        self._adapter = adapter
        self._ask = ask

    def answer(self, request: ChatRequest, tell: Tell) -> Ending:
        """Answer as part of a batch; a batch that has begun is not stopped."""
        _check(request, self._picks)
        completion = self._ask(_Job(self._adapter, Prompt(self._turns(request), request.decoding)))
        schema = request.decoding.json_schema
        if schema is not None and (problem := answer_problem(schema, completion.text)):
            raise RequestProblem(f"no label can be written as the JSON schema asks ({problem})")
        tell(Piece(completion.text))
        return Ending(completion.finish_reason, completion.usage)

    def _turns(self, request: ChatRequest) -> tuple[Message, ...]:
        return tuple(
            Message(role=turn["role"], content=turn["content"])
            if turn["role"] == "system"
            else Message(role=turn["role"], content=neutralise(turn["content"], self._specials))
            for turn in request.messages
        )

    def close(self) -> None:
        """Nothing to free: the base stays, the adapter's weights are small."""


def _check(request: ChatRequest, picks: bool) -> None:
    unsupported = {
        "response_format": request.decoding.json_schema is not None and not picks,
        "tools": request.tools is not None,
        "logprobs": request.top_logprobs is not None,
        "top_p": request.top_p != 1.0,
        "presence_penalty": request.presence_penalty != 0.0,
        "frequency_penalty": request.frequency_penalty != 0.0,
    }
    for name, asked in unsupported.items():
        if asked:
            message = f"the transformers backend can't honour {name}; the llama.cpp backend can"
            raise RequestProblem(message)
