"""A logged call as rows of the store, and a record with its feedback as a row of a file.

What is stored is redacted, and its side of the split comes from the same keyed hash as that of
requests of the gateway. It touches neither files nor the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.artifact import content_hash, utc_now
from tutelage.core.config import Splits
from tutelage.core.errors import DataError
from tutelage.core.example import Example, normalise
from tutelage.core.output import OutputFormat
from tutelage.data.split import private_name, side_of
from tutelage.feedback.log_formats.calls import facts_of
from tutelage.feedback.log_formats.facts import Facts
from tutelage.feedback.signals import Declared, read_feedback
from tutelage.serving.records.record_texts import cleaned, kept_user, record_texts
from tutelage.serving.records.request_log import Redactor, safe_text
from tutelage.store.records import IMPORTED, RecordRow, SignalRow

_ID_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")


@dataclass(frozen=True)
class Intake:
    """What a project does with a call: its deployment, side, redaction, and signals."""

    deployment: str
    split_key: bytes
    splits: Splits
    redact: Redactor
    output: OutputFormat
    declared: Mapping[str, Declared]

    def rows(self, call: Example) -> tuple[dict[str, Any], tuple[dict[str, Any], ...], str | None]:
        """Return the record, its signals, and why feedback on it could not be read, if so."""
        facts = facts_of(call)
        record = record_id(call, facts)
        group = facts.group or facts.user or normalise(call.input_text)
        answer = call.messages[-1]
        calls = (answer.model_extra or {}).get("tool_calls") or ()
        said = self._said(answer.content, facts)
        turns, response = record_texts(call.context, said, calls, self.redact)
        row: dict[str, Any] = {
            "id": record,
            "deployment": self.deployment,
            "release": (facts.model or "unknown")[:64],
            "rollout": None,
            "step": None,
            "arm": IMPORTED,
            "user": self.user(facts.user),
            "key_name": None,
            "split": side_of(self.split_key, safe_text(group), self.splits),
            "group_key": private_name(self.split_key, safe_text(group)),
            "messages": turns,
            "response": response,
            "finish_reason": facts.finish_reason[:16],
            "status": facts.status,
            "error": self._clean(facts.error) if facts.error else None,
            "latency_ms": facts.latency_ms,
            "first_token_ms": facts.first_token_ms,
            "prompt_tokens": facts.prompt_tokens,
            "completion_tokens": facts.completion_tokens,
            "checks": {},
            "at": facts.at or utc_now(),
        }
        signals, problem = self._signals(record, facts)
        return row, signals, problem

    def _said(self, answer: str, facts: Facts) -> str:
        """Return the answer in the project's form: other tools keep a label by itself."""
        label = answer.strip()
        alone = label in self.output.labels and not facts.own
        return self.output.render(label) if alone else answer

    def user(self, user: str | None) -> str | None:
        """Return the user as the log keeps it: hashed if it is long or the redactor objects."""
        return None if user is None else kept_user(safe_text(user), self.redact, self.split_key)

    def _clean(self, text: str) -> str:
        return self.redact(safe_text(text))

    def _signals(self, record: str, facts: Facts) -> tuple[tuple[dict[str, Any], ...], str | None]:
        rows: list[dict[str, Any]] = []
        problem = None
        for given in facts.feedback:
            body = {"record_id": record, "at": facts.at.isoformat() if facts.at else None}
            body |= cleaned(given, self.redact)
            if isinstance(given.get("author"), str):
                body["author"] = self.user(given["author"])
            try:
                rows += read_feedback(body, self.output, None, self.declared).rows
            except DataError as error:
                problem = problem or error.sentence()
        return tuple(rows), problem


def record_id(call: Example, facts: Facts) -> str:
    """Return the call's own id, so that later feedback finds it; else a hash of what it says.

    A call that is imported twice has the same id both times.
    """
    own = facts.id
    if own and len(own) <= 64 and not set(own) - _ID_CHARS:
        return own if not own.isdigit() else f"log-{own}"
    told = [own, call.id, facts.user, facts.at.isoformat() if facts.at else None]
    return f"log-{content_hash(told)[:32]}"


def record_line(record: RecordRow, signals: Sequence[SignalRow]) -> dict[str, Any]:
    """Return a record with its feedback as one row; `logs import` reads it back as it was."""
    return {
        "id": record.id,
        "at": record.at.isoformat(),
        "deployment": record.deployment,
        "release": record.release,
        "arm": record.arm,
        "user": record.user,
        "key": record.key_name,
        "side": record.split,
        "status": record.status,
        "finish_reason": record.finish_reason,
        "error": record.error,
        "latency_ms": record.latency_ms,
        "first_token_ms": record.first_token_ms,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "messages": record.messages,
        "response": record.response,
        "feedback": [
            {"kind": s.kind, "value": s.value["value"], "author": s.author, "at": s.at.isoformat()}
            for s in sorted(signals, key=lambda s: (s.at, s.kind, s.key))
        ],
    }


def chat_line(messages: Sequence[Mapping[str, Any]], answer: str, prompt: str = "") -> Any:
    """Return a row as OpenAI's fine-tuning takes it; `prompt` goes before rows without a system."""
    turns = [dict(turn) for turn in messages]
    if prompt and not any(turn["role"] == "system" for turn in turns):
        turns.insert(0, {"role": "system", "content": prompt})
    return {"messages": [*turns, {"role": "assistant", "content": answer}]}
