"""Writes one request in llama.cpp's words and reads its chunks; starts no server.

Prompts are rendered here and sent as text: the chat endpoint's parser changes answers (it drops
leading white space, and in its pure mode the schema). A request whose model may call a tool does go
through it, because llama.cpp knows how each model writes a call. A call that must be made is ours.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import DataError
from tutelage.inference.base import Usage
from tutelage.inference.chat import inert_value
from tutelage.inference.chat_template import ChatTemplate
from tutelage.inference.engine_base import Ending, Piece, Tell
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import ChatRequest
from tutelage.inference.engine_schema import answer_problem, tight
from tutelage.inference.engine_tools import Tools, call_of, call_schema

_MARK = "\ue000"  # a character for private use: stands where a user's text begins


class Renderer:
    """Writes the prompt, with control tokens made inert outside the project's own prompt."""

    def __init__(self, template: ChatTemplate, specials: Sequence[str]) -> None:
        self.template = template
        self.specials = tuple(specials)

    def __call__(self, messages: Sequence[Mapping[str, Any]], tools: Tools | None = None) -> str:
        """Return the prompt; raise RequestProblem if the template refuses the turns."""
        try:
            return self.template.render([self._turn(m) for m in messages], self._functions(tools))
        except DataError as error:
            raise RequestProblem(str(error)) from error

    def shared(
        self, messages: Sequence[Mapping[str, Any]], prompt: str, tools: Tools | None = None
    ) -> str:
        """Return the start of `prompt` that every request with this system message begins with."""
        if messages[0]["role"] != "system":
            return ""
        turns = [messages[0], {"role": "user", "content": _MARK}]
        try:
            text = self.template.render(turns, self._functions(tools))
        except DataError:
            return ""
        start = text.partition(_MARK)[0]
        return start if prompt.startswith(start) else ""

    def _functions(self, tools: Tools | None) -> list[Any]:
        return [self.safe(tool) for tool in tools.functions] if tools else []

    def _turn(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the turn as templates want it: what a call is given is an object, not its text."""
        turn = dict(self.inert(message))
        if "tool_calls" in turn:
            turn["tool_calls"] = [_opened(call) for call in turn["tool_calls"]]
        return turn

    def inert(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the turn as text: llama.cpp would obey a control token that a user spells out."""
        if message["role"] == "system":
            return message
        return {key: value if key == "role" else self.safe(value) for key, value in message.items()}

    def safe(self, value: Any) -> Any:
        """Return `value` with every text in it neutralised."""
        return inert_value(value, self.specials)


@dataclass(frozen=True)
class Job:
    """A request in llama.cpp's words. `text` is what slots compare, `shared` begins many texts."""

    text: str
    payload: dict[str, Any]
    shared: str = ""
    chat: bool = False  # for llama.cpp's chat endpoint
    calls: bool = False  # what is written is a tool call


def job_of(request: ChatRequest, render: Renderer) -> Job:
    """Return what llama.cpp is to do.

    Raises RequestProblem where it would leave something out without a word.
    """
    tools = request.tools
    if tools is not None and not render.template.knows_tools:
        raise RequestProblem("this model's chat template has no place for tools")
    if tools is not None and tools.choice != "required":
        payload = _chat(request, tools, render)
        text = json.dumps([payload.get("tools"), payload["messages"]], ensure_ascii=False)
        return Job(text, payload, chat=True)
    text = render(request.messages, tools)
    shared = render.shared(request.messages, text, tools)
    schema = request.decoding.json_schema if tools is None else call_schema(tools)
    return Job(text, _completion(request, text, schema), shared, calls=tools is not None)


def _completion(request: ChatRequest, prompt: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    import xllamacpp

    payload = {"prompt": prompt, **_sampling(request)}
    if schema is not None:
        payload["grammar"] = xllamacpp.json_schema_to_grammar(tight(schema))
    if request.top_logprobs is not None:
        payload["logprobs"] = max(1, request.top_logprobs)
    return payload


def _chat(request: ChatRequest, tools: Tools, render: Renderer) -> dict[str, Any]:
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


def _opened(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    with contextlib.suppress(ValueError):
        function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


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

    def __init__(self, tell: Tell, *, calls: bool = False) -> None:
        """`calls`: the text is a tool call, told as one at its end."""
        self.tell = tell
        self.calls = calls
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
        self.stopped = self.tell(Piece("") if self.calls else piece)
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
    if reader.calls and (call := call_of(reader.text)):
        reader.tell(Piece("", tool_calls=(call,)))
        return Ending("tool_calls", reader.usage)
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
