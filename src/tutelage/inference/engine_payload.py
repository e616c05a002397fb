"""Writes one request in llama.cpp's words and reads its chunks; starts no server.

Prompts are rendered here and sent as text: the chat endpoint's parser changes answers (it drops
leading white space, and in its pure mode the schema). A request with tools does go through it:
llama.cpp writes the grammar of the calls and parses them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.errors import DataError
from tutelage.inference.base import Usage
from tutelage.inference.chat import neutralise
from tutelage.inference.chat_template import ChatTemplate
from tutelage.inference.engine_base import Ending, Piece, Tell
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import ChatRequest
from tutelage.inference.engine_schema import answer_problem, tight
from tutelage.inference.engine_tools import Tools

_MARK = "\ue000"  # a character for private use: stands where a user's text begins


class Renderer:
    """Writes the prompt, with control tokens made inert outside the project's own prompt."""

    def __init__(self, template: ChatTemplate, specials: Sequence[str]) -> None:
        self.template = template
        self.specials = specials

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt; raise RequestProblem if the template refuses the turns."""
        try:
            return self.template.render([self.inert(message) for message in messages])
        except DataError as error:
            raise RequestProblem(str(error)) from error

    def shared(self, messages: Sequence[Mapping[str, Any]], prompt: str) -> str:
        """Return the start of `prompt` that every request with this system message begins with."""
        if messages[0]["role"] != "system":
            return ""
        try:
            text = self.template.render([messages[0], {"role": "user", "content": _MARK}])
        except DataError:
            return ""
        start = text.partition(_MARK)[0]
        return start if prompt.startswith(start) else ""

    def inert(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the turn as text: llama.cpp would obey a control token that a user spells out."""
        if message["role"] == "system":
            return message
        return {key: value if key == "role" else self.safe(value) for key, value in message.items()}

    def safe(self, value: Any) -> Any:
        """Return `value` with every text in it neutralised."""
        if isinstance(value, str):
            return neutralise(value, self.specials)
        if isinstance(value, Mapping):
            return {self.safe(key): self.safe(part) for key, part in value.items()}
        return [self.safe(part) for part in value] if isinstance(value, list | tuple) else value


def completion(request: ChatRequest, prompt: str) -> dict[str, Any]:
    """Return the request for a rendered prompt."""
    import xllamacpp

    payload = {"prompt": prompt, **_sampling(request)}
    if request.decoding.json_schema is not None:
        grammar = xllamacpp.json_schema_to_grammar(tight(request.decoding.json_schema))
        payload["grammar"] = grammar
    if request.top_logprobs is not None:
        payload["logprobs"] = max(1, request.top_logprobs)
    return payload


def chat(request: ChatRequest, tools: Tools, render: Renderer) -> dict[str, Any]:
    """Return the request for llama.cpp's own chat template, with tools.

    Raises RequestProblem where llama.cpp would leave the tools out without a word.
    """
    if not render.template.knows_tools:
        raise RequestProblem("this model's chat template has no place for tools")
    payload = {"messages": [render.inert(turn) for turn in request.messages], **_sampling(request)}
    if tools.functions:
        payload["tools"] = render.safe(list(tools.functions))
        payload["tool_choice"] = tools.choice
        payload["parallel_tool_calls"] = tools.parallel
    if request.top_logprobs is not None:
        payload |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs)}
    if request.decoding.json_schema is not None:
        schema = {"name": "answer", "schema": tight(request.decoding.json_schema)}
        payload["response_format"] = {"type": "json_schema", "json_schema": schema}
    return payload


def chat_text(payload: Mapping[str, Any]) -> str:
    """Return a text that two chat requests share as far as their prompts do."""
    return json.dumps([payload.get("tools"), payload["messages"]], ensure_ascii=False)


def _sampling(request: ChatRequest) -> dict[str, Any]:
    """Return the decoding, with no filter on sampling beyond what was asked."""
    decoding = request.decoding
    payload: dict[str, Any] = {
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
    return payload


class Reader:
    """Takes llama.cpp's chunks, of a completion or of a chat, and keeps what ends an answer."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.finish_reason: str | None = None
        self.usage = Usage()
        self.problem: RequestProblem | None = None
        self.texts: list[str] = []
        self.stopped = False

    def __call__(self, chunk: Any) -> bool:
        """Pass a chunk on; True ends the generation."""
        if "error" in chunk:
            self.problem = problem_of(chunk["error"])
            return True
        if counts := chunk.get("usage"):
            cached = (counts.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self.usage = Usage(counts["prompt_tokens"], counts["completion_tokens"], cached)
        piece = Piece("")
        for choice in chunk["choices"]:
            self.finish_reason = choice["finish_reason"] or self.finish_reason
            delta = choice.get("delta") or {}
            piece = Piece(
                choice.get("text") or delta.get("content") or "",
                tuple((choice.get("logprobs") or {}).get("content") or ()),
                tuple(delta.get("tool_calls") or ()),
            )
        self.texts.append(piece.text)
        self.stopped = self.tell(piece)
        return self.stopped

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.texts)

    @property
    def cost(self) -> float:
        """What was computed, in written tokens: four of a prompt take about as long as one."""
        new = self.usage.prompt_tokens - self.usage.cached_tokens
        return new / 4 + max(self.usage.completion_tokens, sum(map(bool, self.texts)))


def ending(request: ChatRequest, reader: Reader) -> Ending:
    """Return how an answer ended; raise RequestProblem if it failed, broke off or is not as asked.

    A schema is looked at once more: llama.cpp drops one that it can't enforce without a word.
    """
    if reader.problem:
        raise reader.problem
    if reader.finish_reason is None and not reader.stopped:
        raise RequestProblem("the answer broke off", status=500, code="broken_off")
    whole = reader.finish_reason == "stop" and not reader.stopped and not request.decoding.stop
    schema = request.decoding.json_schema
    if schema is not None and whole and (problem := answer_problem(schema, reader.text)):
        raise RequestProblem(
            f"the answer does not keep to the JSON schema ({problem}); simplify the schema",
            status=500,
            code="schema_not_kept",
        )
    return Ending(reader.finish_reason or "stop", reader.usage)


def problem_of(error: Mapping[str, Any]) -> RequestProblem:
    """Return what llama.cpp's error means to the client."""
    if error.get("type") == "exceed_context_size_error":
        message = (
            f"the prompt has {error['n_prompt_tokens']} tokens and the engine's context holds "
            f"{error['n_ctx']}; shorten it or raise deploy.context"
        )
        return RequestProblem(message, code="context_length_exceeded")
    status = int(error.get("code") or 500)
    return RequestProblem(str(error.get("message")), status=status)
