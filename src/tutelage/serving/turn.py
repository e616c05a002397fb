"""One chat request and what is known of it: what the engine is asked, checks, its record.

It touches neither sockets nor the engine; chat.py moves it along.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tutelage.core.example import Message, normalise
from tutelage.inference.chat import as_dicts, conversation, inert_value
from tutelage.serving.access.accounts import likely_prompt_tokens, likely_tokens
from tutelage.serving.access.keys import Caller
from tutelage.serving.guards.checking import INLINE, Checking
from tutelage.serving.hooks import Ask, Outcome, tell_finished
from tutelage.serving.records.log_policy import keeps_texts
from tutelage.serving.records.record_row import record_row
from tutelage.serving.records.record_texts import answer_text, record_texts
from tutelage.serving.records.request_log import keep, safe_text
from tutelage.serving.records.wavering import token_entropy
from tutelage.serving.router import Pick
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.upstream import Answer, Piece
from tutelage.serving.wire.wire import HttpError
from tutelage.serving.wire.wire_request import ChatRequest
from tutelage.serving.wire.wire_tools import merge_calls, words_of

_SECRET = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key"))
_MOST_ANSWER = 8 * 2**20  # characters
_JOIN = 64  # pieces


class _Shown(Mapping[str, str]):
    """A client's headers without those that hold what only it may know."""

    __slots__ = ("_sent",)

    def __init__(self, sent: Mapping[str, str]) -> None:
        self._sent = sent

    def __getitem__(self, name: str) -> str:
        if name in _SECRET:
            raise KeyError(name)
        return self._sent[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._sent if name not in _SECRET)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass
class Turn:
    """One request on its way, and what its record will hold."""

    state: GatewayState
    asked: ChatRequest
    pick: Pick
    caller: Caller
    record: str
    started: float
    sent: Mapping[str, str] = field(default_factory=dict)  # the client's headers
    parts: list[str] = field(default_factory=list)  # of the answer's text
    pieces: int = 0  # that brought text or calls
    calls: list[dict[str, Any]] = field(default_factory=list)  # of tools, whole
    finish_reason: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    first_token_ms: float | None = None
    logged: bool = False
    ask: Ask | None = None  # what hooks see; None without hooks
    logprobs: list[Any] = field(default_factory=list)  # of tokens, where the client asked for them

    def __post_init__(self) -> None:
        """Make what the guards say of it."""
        pick = self.pick
        flagged = self.state.telemetry.flags_of(pick.deployment, pick.profile.id, pick.arm)
        self.checking = Checking(self.pick.profile.guards, self.asked.messages, flagged)
        self._size = 0  # characters of the answer so far
        self._joined = 0  # parts at the front that hold many pieces each
        self._cleaned: tuple[list[dict[str, Any]], str] | None = None  # the record's texts

    @property
    def text(self) -> str:
        """The answer so far; as JSON with its calls of tools, if there are any."""
        return answer_text("".join(self.parts), self.calls)

    @property
    def fingerprint(self) -> str:
        """Which release answered, as OpenAI's `system_fingerprint`."""
        return f"fp_{self.pick.profile.id[:12]}"

    @cached_property
    def group(self) -> str:
        """What keeps this row on one side of the split."""
        return group_of(self.asked, self.state.project.data.splits.group)

    async def admit(self) -> None:
        """Let the hooks see the request; raise HttpError if one, or the release, refuses it."""
        self._require_possible()
        if self.state.hooks:
            self.ask = self._ask()
            for hook in self.state.hooks:
                await hook.admit(self.ask)

    def _ask(self) -> Ask:
        pick, asked = self.pick, self.asked
        return Ask(
            record=self.record,
            deployment=pick.deployment,
            release=pick.profile.id,
            arm=pick.arm,
            rollout=pick.rollout,
            step=pick.step,
            key=self.caller.name,
            role=self.caller.role,
            user=asked.user,
            group=self.group,
            stream=asked.stream,
            messages=asked.messages,
            max_tokens=self.max_tokens,
            body=self.engine_body,
            started=self.started,
            headers=_Shown(self.sent),
            release_name=pick.profile.name,
            tuned=pick.profile.adapter is not None,
        )

    @property
    def max_tokens(self) -> int:
        """Tokens the answer may have: as asked for, capped by the release."""
        most = self.pick.profile.max_tokens
        return min(self.asked.max_tokens or most, most)

    def engine_body(self) -> dict[str, Any]:
        """Return the request as the engine gets it."""
        asked, profile = self.asked, self.pick.profile
        turns = conversation(asked.messages, profile.prompt, profile.specials)
        body = {**profile.settings, "messages": as_dicts(turns), "max_tokens": self.max_tokens}
        stop = [*profile.stop, *asked.stop]
        if stop:
            body["stop"] = stop
        if asked.response_format and not profile.has_schema:
            body["response_format"] = asked.response_format
        if asked.seed is not None:
            body.setdefault("seed", asked.seed)
        if asked.passed:
            body.update(asked.passed)
            if asked.has_tools:
                body["tools"] = inert_value(asked.passed["tools"], profile.specials)
        return body

    def headers(self) -> dict[str, str]:
        """Return which release answered, and which parameters its decoding overrode."""
        asked, profile = self.asked, self.pick.profile
        ignored = list(asked.ignored)
        if asked.seed is not None and "seed" in profile.settings:
            ignored.append("seed")
        if asked.response_format and profile.has_schema:
            ignored.append("response_format")
        found = {
            "x-request-id": self.record,
            "x-tutelage-release": profile.id[:12],
            "x-tutelage-arm": self.pick.arm,
        }
        if ignored:
            found["x-tutelage-ignored"] = ",".join(ignored)
        if self.ask is not None:
            found.update(self.ask.reply_headers)
        return found

    def _require_possible(self) -> None:
        """Raise HttpError 400 for what this release can't do."""
        if self.asked.has_tools and self.pick.profile.has_schema:
            raise HttpError(
                400,
                "This model answers in a JSON form of its own and can't call tools.",
                code="unsupported_parameter",
                param="tools",
            )

    async def check_request(self) -> None:
        """Let the guards see the request; raise HttpError if one blocks it."""
        why = await self.checking.request()
        if why is not None:
            raise HttpError(400, f"The request was blocked: {why}.", code="request_blocked")

    async def check_response(self) -> None:
        """Let the guards see the answer; raise HttpError if one blocks it."""
        said = "\n".join(filter(None, ["".join(self.parts), words_of(self.calls)]))
        why = await self.checking.answer(said, self.finish_reason)
        if why is not None:
            raise answer_blocked(why)

    def take(self, piece: Piece | Answer) -> None:
        """Add what the engine said; raise HttpError 502 if it never stops."""
        self.usage = piece.usage or self.usage
        self.finish_reason = piece.finish_reason or self.finish_reason
        if piece.logprobs:
            self.logprobs += piece.logprobs.get("content") or []
        if not (piece.text or piece.tool_calls):
            return
        if self.first_token_ms is None and isinstance(piece, Piece):
            self.first_token_ms = (time.perf_counter() - self.started) * 1000
        self.pieces += 1
        self.parts.append(piece.text)
        if len(self.parts) - self._joined >= _JOIN:  # a small string takes ten times its text
            self.parts[self._joined :] = ["".join(self.parts[self._joined :])]
            self._joined += 1
        self._size += len(piece.text)
        if piece.tool_calls:
            self._size += merge_calls(self.calls, piece.tool_calls)
        if self._size > _MOST_ANSWER:
            raise HttpError(502, "The engine's answer is too long.", code="engine_error")

    async def end(self, status: int, error: str | None = None) -> None:
        """Do what `log` does; long texts are redacted in a thread, so that others do not wait."""
        if not self.logged and self._takes_long():
            self._cleaned = await asyncio.to_thread(self._texts)
        self.log(status, error)

    def _takes_long(self) -> bool:
        """Return whether it takes long to redact the texts of the record, if it has any."""
        if self.state.redactor is keep or not keeps_texts(self.state.project.deploy, self.record):
            return False
        more = sum(len(str(turn.model_extra)) for turn in self.asked.messages if turn.model_extra)
        return self._size + self.checking.size + more > INLINE

    def log(self, status: int, error: str | None = None) -> None:
        """Count the request, tell the hooks and queue its record, once."""
        if self.logged:
            return
        self.logged = True
        outcome = self._outcome(status, error)
        pick = self.pick
        self.state.telemetry.finished(
            (pick.deployment, pick.profile.id, pick.arm),
            status,
            outcome.latency_ms,
            self.first_token_ms,
            (outcome.prompt_tokens, outcome.completion_tokens),
        )
        ask = self.ask or self._ask()
        self.state.log.record(self._row(ask, outcome))
        tell_finished(self.state.hooks, ask, outcome)

    def _outcome(self, status: int, error: str | None) -> Outcome:
        asked, answered = self._tokens()
        return Outcome(
            status=status,
            error=error,
            text=self.text,
            finish_reason=self.finish_reason,
            prompt_tokens=asked,
            completion_tokens=answered,
            latency_ms=(time.perf_counter() - self.started) * 1000,
            first_token_ms=self.first_token_ms,
            checks=self.checking.notes,
            entropy=token_entropy(self.logprobs) if self.logprobs else None,
        )

    def _tokens(self) -> tuple[int, int]:
        """Return the tokens asked and answered: the engine's count, else what is likely."""
        if self.usage or not self.pieces:
            usage = self.usage
            return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        streamed = self.first_token_ms is not None
        asked = likely_prompt_tokens(self.asked.messages, self.pick.profile.prompt)
        return asked, self.pieces if streamed else likely_tokens(self._size)

    def _row(self, ask: Ask, outcome: Outcome) -> dict[str, Any]:
        """Return the record, redacted; without texts if the project's log keeps none of it."""
        texts = keeps_texts(self.state.project.deploy, self.record)
        messages, said = (self._cleaned or self._texts()) if texts else ([], "")
        return record_row(self.state, ask, outcome, messages, said, texts=texts)

    def _texts(self) -> tuple[list[dict[str, Any]], str]:
        """Return the turns and the answer so far as the record keeps them, redacted."""
        said = "".join(self.parts)
        return record_texts(self.asked.messages, said, self.calls, self.state.redactor)


def answer_blocked(why: str) -> HttpError:
    """Return the error for an answer that a guard holds back."""
    return HttpError(422, f"The answer was held back: {why}.", code="answer_blocked")


def group_of(asked: ChatRequest, field_name: str | None) -> str:
    """Return what keeps a row on one side of the split: the group, the user or the input.

    The group is `metadata.group`, or the metadata field that tutelage.yaml's splits.group names.
    """
    for name in (field_name, "group"):
        value = asked.metadata.get(name) if name else None
        if isinstance(value, (str, int)):
            return safe_text(str(value))
    if asked.user:
        return safe_text(asked.user)
    return input_group(asked.messages)


def input_group(messages: Sequence[Message]) -> str:
    """Return the normalised text of the user's side, the group of a row without one."""
    return normalise(safe_text("\n".join(m.content for m in messages if m.role != "system")))
