"""Reads a judge's reply: the whole of it must be the JSON that was asked for, or it is no verdict.

Nothing is searched for inside a longer text: a judge may quote an answer, and an answer may hold
what looks like a verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n```", re.S)
_THOUGHT = re.compile(r"<think>.*</think>", re.S)
_LONGEST_REASON = 2000  # characters of a reason that are kept


def read_reply(text: str, field: str, allowed: Sequence[str]) -> tuple[str, str]:
    """Return (outcome, reason) of a reply.

    A leading <think> block and one code fence around everything are taken off; nothing else is
    forgiven. Raises ValueError that says what is wrong.
    """
    body = text.strip()
    if body.startswith("<think>"):
        body = _THOUGHT.sub("", body, count=1).strip()
    whole = _FENCE.fullmatch(body)
    if whole:
        body = whole[1].strip()
    if not body:
        raise ValueError("the reply is empty")
    try:
        value = json.loads(body, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("the reply is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"the reply is not the JSON that was asked for ({error})") from error
    if not isinstance(value, dict) or set(value) != {"reason", field}:
        raise ValueError(f"the reply does not hold just `reason` and `{field}`")
    reason, given = value["reason"], value[field]
    if not isinstance(reason, str) or isinstance(given, (bool, float, list, dict)):
        raise ValueError(f"`reason` or `{field}` is of another type")
    if str(given) not in allowed:
        raise ValueError(f"`{field}` is {str(given)[:40]!r}, not one of {', '.join(allowed)}")
    return str(given), reason[:_LONGEST_REASON]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; a key that stands there twice is an error, not a choice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
