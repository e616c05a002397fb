"""The llama.cpp backend: one small in-process server a release, the base weights mapped once.

Facts of xllamacpp 2026.10 this rests on (each has a test): adapters are given at construction only
and a request's unknown adapter id is answered by the base model, so a release gets a server of its
own and no adapter id ever crosses; every server maps the same GGUF, so a further release costs its
adapter, its keys and values and about 27 MB of buffers; construction holds the interpreter lock
(0.2-0.5 s for the demo model), so other releases pause but do not fail; a callback that returns
True ends the generation. Prompts are rendered here and sent as text: the chat endpoint's parser
changes answers (it drops leading white space, and in its pure mode the schema). Each server also
listens by itself: here on a Unix socket in a private folder, behind a random key.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError, ModelError
from tutelage.inference.base import Usage
from tutelage.inference.chat import neutralise
from tutelage.inference.chat_template import ChatTemplate
from tutelage.inference.engine_base import Ending, Piece, Tell
from tutelage.inference.engine_request import ChatRequest, RequestProblem
from tutelage.inference.engine_schema import answer_problem, tight
from tutelage.inference.gguf_header import read_header
from tutelage.inference.lora_gguf import ensure_apart
from tutelage.inference.tuned import read_tuned

_SOCKET_PATH = 100  # bytes; systems take 104 or 108, a longer one falls back to loopback


@dataclass
class Started:
    """A llama.cpp server, the key of its own listener, and the folder of its socket."""

    server: Any
    key: str
    private: Path

    def stop(self) -> None:
        """Stop the server and give its memory back."""
        self.server = None  # the last reference: its destructor joins the loop
        with contextlib.suppress(OSError):
            shutil.rmtree(self.private)


class LlamaCppBackend:
    """Serves a GGUF file. `context` is in tokens a slot; keys and values are allocated at once."""

    name = "llamacpp"

    def __init__(
        self,
        model: Path,
        *,
        cache: Path,
        threads: int = 1,
        slots: int = 2,
        context: int = 2048,
        specials: Sequence[str] = (),
    ) -> None:
        """`specials` are the control tokens to make inert in users' text."""
        trained = read_header(model).of_architecture("context_length")
        self.model = model
        self.cache = cache
        self.threads = threads
        self.slots = slots
        self.context = min(context, int(trained)) if trained else context
        self._render = _Renderer(ChatTemplate.of_gguf(model), tuple(specials))

    def open(self, adapter: Path | None) -> LlamaCppSeat:
        """Start a server for the base (None) or for the adapter in this PEFT folder.

        Raises ModelError for what llama.cpp can't apply: it would answer as another model.
        """
        if adapter is not None and (answerer := read_tuned(adapter).answerer):
            raise ModelError(
                f"llama.cpp can't answer by {answerer}",
                where=str(adapter),
                fix="Set deploy.backend: transformers",
            )
        lora = ensure_apart(adapter, self.model, self.cache) if adapter else None
        return self.open_lora(lora)

    def open_lora(self, lora: Path | None) -> LlamaCppSeat:
        """Start a server for the base (None) or for a converted adapter."""
        started = self.start(lora)
        return LlamaCppSeat(started.server, self.slots, started.private, self._render)

    def start(self, lora: Path | None) -> Started:
        """Start the server itself; raise ModelError if llama.cpp can't load the files."""
        import xllamacpp

        private = Path(tempfile.mkdtemp(prefix="tutelage-"))
        params = self._params(xllamacpp, private / "llama.sock")
        if lora:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        try:
            server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            shutil.rmtree(private, ignore_errors=True)
            raise ModelError(
                f"llama.cpp could not load the model{' with this adapter' if lora else ''}",
                where=str(lora or self.model),
                fix="Look at .tutelage/logs/engine.log, or set deploy.backend: transformers",
            ) from error
        return Started(server, params.api_keys[0], private)

    def _params(self, xllamacpp: Any, socket: Path) -> Any:
        params = xllamacpp.CommonParams()
        params.model.path = str(self.model)
        params.n_parallel = self.slots
        params.n_ctx = self.context * self.slots
        params.n_batch = 512
        params.n_ubatch = 128  # the compute buffer holds one row of logits a token of this
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
        params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP
        params.fit_params = False  # loads the model once more to guess at sizes set here
        params.warmup = False
        params.cache_ram_mib = 0  # prompts are cached in the slots; no second copy in memory
        params.verbosity = 1
        private = os.name == "posix" and len(os.fsencode(socket)) < _SOCKET_PATH
        params.hostnames = [str(socket) if private else "127.0.0.1"]
        params.api_keys = [secrets.token_urlsafe(32)]
        params.n_threads_http = 1
        params.endpoint_slots = params.ui = False
        return params


class LlamaCppSeat:
    """One release: a server with its own keys and values."""

    def __init__(self, server: Any, slots: int, private: Path, render: _Renderer) -> None:
        self._server = server
        self._render = render
        self._private = private
        self.slots = slots

    def answer(self, request: ChatRequest, tell: Tell) -> Ending:
        """Stream the answer to `tell`; ends early when it returns True."""
        reader = _Reader(tell)
        try:
            self._server.handle_completions(_payload(request, self._render), reader)
        except ValueError as error:
            raise RequestProblem(str(error)) from error
        if reader.problem:
            raise reader.problem
        _check_kept(request, reader)
        return Ending(reader.finish_reason, reader.usage)

    def close(self) -> None:
        """Stop the server and give its memory back."""
        self._server = None  # the last reference: its destructor joins the loop
        with contextlib.suppress(OSError):
            shutil.rmtree(self._private)


class _Reader:
    """Takes llama.cpp's chunks and keeps what ends an answer."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.finish_reason = "stop"
        self.usage = Usage()
        self.problem: RequestProblem | None = None
        self.texts: list[str] = []
        self.stopped = False

    def __call__(self, chunk: Any) -> bool:
        if "error" in chunk:
            self.problem = _problem(chunk["error"])
            return True
        if counts := chunk.get("usage"):
            cached = (counts.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self.usage = Usage(counts["prompt_tokens"], counts["completion_tokens"], cached)
        text, logprobs = "", ()
        for choice in chunk["choices"]:
            self.finish_reason = choice["finish_reason"] or self.finish_reason
            text = choice["text"]
            logprobs = tuple((choice["logprobs"] or {}).get("content") or ())
        self.texts.append(text)
        self.stopped = self.tell(Piece(text, logprobs))
        return self.stopped


def _check_kept(request: ChatRequest, reader: _Reader) -> None:
    """Raise if a finished answer breaks the schema: llama.cpp dropped it without a word."""
    schema = request.decoding.json_schema
    cut = reader.stopped or reader.finish_reason != "stop" or request.decoding.stop
    if schema is None or cut:
        return
    if problem := answer_problem(schema, "".join(reader.texts)):
        raise RequestProblem(
            f"the answer does not keep to the JSON schema ({problem}); simplify the schema",
            status=500,
            code="schema_not_kept",
        )


class _Renderer:
    """Writes the prompt, with control tokens made inert outside the project's own prompt."""

    def __init__(self, template: ChatTemplate, specials: Sequence[str]) -> None:
        self.template = template
        self.specials = specials

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return self.template.render([self._inert(message) for message in messages])
        except DataError as error:
            raise RequestProblem(str(error)) from error

    def _inert(self, message: Mapping[str, str]) -> Mapping[str, str]:
        """llama.cpp and transformers would obey a control token that a user spells out."""
        if message["role"] == "system":
            return message
        return {**message, "content": neutralise(message["content"], self.specials)}


def _payload(request: ChatRequest, render: _Renderer) -> dict[str, Any]:
    """Return the request in llama.cpp's words: no filter on sampling beyond what was asked."""
    import xllamacpp

    decoding = request.decoding
    payload: dict[str, Any] = {
        "prompt": render(request.messages),
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
        "seed": decoding.seed,
        "top_p": request.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "cache_prompt": True,
        "stream": True,
        "return_progress": True,  # a piece after each batch of the prompt: a chance to stop
        "stream_options": {"include_usage": True},
    }
    if decoding.stop:
        payload["stop"] = list(decoding.stop)
    if decoding.json_schema is not None:
        payload["grammar"] = xllamacpp.json_schema_to_grammar(tight(decoding.json_schema))
    if request.top_logprobs is not None:
        payload["logprobs"] = max(1, request.top_logprobs)
    return payload


def _problem(error: dict[str, Any]) -> RequestProblem:
    if error.get("type") == "exceed_context_size_error":
        message = (
            f"the prompt has {error['n_prompt_tokens']} tokens and the engine's context holds "
            f"{error['n_ctx']}; shorten it or raise --context"
        )
        return RequestProblem(message, code="context_length_exceeded")
    status = int(error.get("code") or 500)
    return RequestProblem(str(error.get("message")), status=status)
