"""What feedback means: the declared signals, their direction, and how one is read and kept.

A signal's key makes a repeated delivery the same row; of several from one author the newest counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import content_hash, utc_now
from tutelage.core.errors import DataError, did_you_mean
from tutelage.core.output import OutputFormat
from tutelage.store.base import Store
from tutelage.store.records import SignalRow

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_RECORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LONGEST = 100_000  # characters of an edit or a comment


@dataclass(frozen=True)
class Declared:
    """A signal that has a meaning: `direction` is 1 if more is better, -1 if worse, 0 neither."""

    name: str
    direction: int
    explicit: bool
    meaning: str


DECLARED = {
    signal.name: signal
    for signal in (
        Declared("rating", 1, True, "0 (bad) to 1 (good)"),
        Declared("edit", 0, True, "what the answer should have been: a label"),
        Declared("comment", 0, True, "free text"),
        Declared("resolved", 1, False, "the matter ended with this answer"),
        Declared("accepted", 1, False, "the answer was used as it was"),
        Declared("copied", 1, False, "the answer was copied"),
        Declared("escalated", -1, False, "a person had to take over"),
        Declared("retried", -1, False, "the same thing was asked again"),
        Declared("abandoned", -1, False, "the user gave up"),
    )
}
IMPLICIT = tuple(name for name, signal in DECLARED.items() if not signal.explicit)


@dataclass(frozen=True)
class Feedback:
    """One checked delivery: its rows, and names that no signal is declared for."""

    record: str
    rows: tuple[dict[str, Any], ...]
    undeclared: tuple[str, ...] = ()


def read_feedback(
    body: Mapping[str, Any], output: OutputFormat, author: str | None = None
) -> Feedback:
    """Return the signals in a request body; raise DataError naming what is wrong.

    `author` is who delivered it; a body's own `author` (the expert) goes before it.
    """
    record = body.get("record_id") or body.get("response_id")
    if not isinstance(record, str) or not _RECORD.fullmatch(record):
        raise DataError(
            "'record_id' (or 'response_id') is missing or is not an id",
            fix="Send the `id` of the response that the feedback is about",
        )
    values = _values(body, output)
    if not values:
        raise DataError(
            "there is no feedback in the body", fix="Send rating, edit, comment or signals"
        )
    given = body.get("author")
    author = given[:128] if isinstance(given, str) and given else author
    at = _time(body.get("at"))
    rows = tuple(_row(record, name, value, author, at) for name, value in values.items())
    undeclared = tuple(name for name in values if name not in DECLARED)
    return Feedback(record, rows, undeclared)


def _values(body: Mapping[str, Any], output: OutputFormat) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if body.get("rating") is not None:
        found["rating"] = _rating(body["rating"])
    if body.get("edit") is not None:
        found["edit"] = _edit(body["edit"], output)
    if body.get("comment") is not None:
        found["comment"] = _text("comment", body["comment"])
    signals = body.get("signals")
    if isinstance(signals, list):
        signals = {name: True for name in signals if isinstance(name, str)}
    if signals is not None and not isinstance(signals, dict):
        raise DataError("'signals' is not an object", fix='Send {"resolved": true}')
    for name, value in (signals or {}).items():
        found[_signal_name(name)] = _signal_value(name, value)
    return found


def _rating(value: Any) -> float:
    words = {"up": 1.0, "good": 1.0, "down": 0.0, "bad": 0.0}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if isinstance(value, (int, float)) and 0 <= value <= 1:
        return float(value)
    raise DataError(
        f"'rating' is {value!r}",
        fix="Send up, down, true, false or a number from 0 (bad) to 1 (good)",
    )


def _edit(value: Any, output: OutputFormat) -> str:
    """Return the corrected answer in the form the model is taught; a bare label is rendered."""
    text = _text("edit", value)
    if text.strip() in output.labels:
        return output.render(text.strip())
    problem = output.parse(text).problem
    if problem is None:
        return text
    label = next(iter(output.labels), "...")
    hint = did_you_mean(text.strip(), output.labels)
    raise DataError(f"'edit' can't be used: {problem}", fix=f"{hint}Send {output.render(label)}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name!r} is not text", fix="Send a string that is not empty")
    if len(value) > _LONGEST:
        raise DataError(f"{name!r} is longer than {_LONGEST} characters", fix="Shorten it")
    return value


def _signal_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(
            f"{str(name)[:40]!r} is not a signal's name",
            fix=f"Use small letters, digits and _; declared are {', '.join(IMPLICIT)}",
        )
    if name in DECLARED and DECLARED[name].explicit:
        raise DataError(f"{name!r} is not an implicit signal", fix=f"Send it beside: {name!r}: ...")
    return name


def _signal_value(name: str, value: Any) -> Any:
    if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 256):
        return value
    raise DataError(f"the value of {name!r} is not plain", fix="Send true, false, a number or text")


def _time(value: Any) -> datetime:
    if value is None:
        return utc_now()
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise DataError(
            f"'at' is {value!r}", fix="Send a time such as 2026-03-01T12:00:00+00:00"
        ) from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(at, utc_now())  # a client's fast clock must not outrank later feedback


def _row(record: str, name: str, value: Any, author: str | None, at: datetime) -> dict[str, Any]:
    declared = DECLARED.get(name)
    return {
        "key": content_hash([record, name, value, author]),
        "record": record,
        "kind": name,
        "explicit": bool(declared and declared.explicit),
        "value": {"value": value},
        "author": author,
        "at": at,
    }


def newest(rows: Sequence[SignalRow]) -> dict[tuple[str, str], SignalRow]:
    """Return the signal that counts for each (record, kind): the newest, whoever sent it."""
    found: dict[tuple[str, str], SignalRow] = {}
    for row in sorted(rows, key=lambda r: (r.at, r.key)):
        found[row.record, row.kind] = row
    return found


def read_signals(store: Store, kinds: Sequence[str] = ()) -> dict[tuple[str, str], SignalRow]:
    """Return the signals that count, of these kinds or of all."""
    query = select(SignalRow)
    if kinds:
        query = query.where(SignalRow.kind.in_(kinds))
    with store.session() as session:
        return newest(list(session.scalars(query)))
