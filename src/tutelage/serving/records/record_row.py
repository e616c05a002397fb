"""The record of one request as the log keeps it: redacted, without texts where none are kept."""

from __future__ import annotations

from typing import Any

from tutelage.core.artifact import utc_now
from tutelage.data.split import private_name
from tutelage.serving.hooks import Ask, Outcome
from tutelage.serving.records.record_texts import kept_user
from tutelage.serving.records.request_log import safe_text
from tutelage.serving.state import GatewayState


def record_row(
    state: GatewayState,
    ask: Ask,
    outcome: Outcome,
    messages: list[dict[str, Any]],
    said: str,
    *,
    texts: bool,
) -> dict[str, Any]:
    """Return the row; `messages` and `said` are redacted already, and empty without `texts`."""
    clean, error = state.redactor, outcome.error
    return {
        "id": ask.record,
        "deployment": ask.deployment,
        "release": ask.release,
        "rollout": ask.rollout,
        "step": ask.step,
        "arm": ask.arm,
        "user": _user(ask.user, state, texts=texts),
        "key_name": ask.key,
        "split": state.side(ask.group),
        "group_key": private_name(state.split_key, ask.group),
        "messages": messages,
        "response": said,
        "finish_reason": outcome.finish_reason[:16] or "error",
        "status": outcome.status,
        "error": clean(error) if error else error,
        "latency_ms": outcome.latency_ms,
        "first_token_ms": outcome.first_token_ms,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "entropy": outcome.entropy,
        "checks": {
            name: {**check, "why": clean(check["why"])} for name, check in outcome.checks.items()
        },
        "at": utc_now(),
    }


def _user(user: str | None, state: GatewayState, *, texts: bool) -> str | None:
    """Return the user as the log keeps it; hashed where no texts are kept."""
    if not user:
        return user
    user, key = safe_text(user), state.split_key
    return kept_user(user, state.redactor, key) if texts else private_name(key, user)
