"""What feedback means: the declared signals, their direction, and how one is read and kept.

A signal's key makes a repeated delivery the same row; of several from one author the newest counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import content_hash, utc_now
from tutelage.core.config_feedback import Feedback as Settings
from tutelage.core.config_feedback import Signal, SignalKind
from tutelage.core.errors import DataError, did_you_mean, nearest
from tutelage.core.output import OutputFormat
from tutelage.store.base import Store
from tutelage.store.records import SignalRow

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
EDIT = "edit"
OWN_FIELDS = ("rating", EDIT, "comment")  # of a delivery, not among its signals
_RECORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_AUTHOR = 128  # characters of a name
_LONGEST = 100_000  # characters of an edit or a comment
_MOST = 100  # signals of one delivery
_MISSPELT = 0.85  # how like a field's name another one is that must have been meant for it


@dataclass(frozen=True)
class Declared:
    """A signal that has a meaning: `direction` is 1 if more is better, -1 if worse, 0 neither.

    `weight` is its share in the score of an answer beside the others. A number counts from 0 at
    `low` to 1 at `high`.
    """

    name: str
    direction: int
    explicit: bool
    meaning: str
    weight: float = 1.0
    kind: SignalKind = "flag"
    low: float = 0.0
    high: float = 1.0


def _seen(name: str, direction: int, meaning: str, kind: SignalKind = "flag") -> Declared:
    """Return a signal that nobody gave on purpose: it weighs half of one that somebody gave."""
    high = _SECONDS if kind == "seconds" else 1.0
    return Declared(name, direction, False, meaning, _IMPLICIT_WEIGHT, kind, high=high)


_IMPLICIT_WEIGHT = 0.5
_SECONDS = 60.0  # from which on a length of time counts whole
DECLARED = {
    signal.name: signal
    for signal in (
        Declared("rating", 1, True, "0 (bad) to 1 (good)", kind="number"),
        Declared("edit", -1, True, "what the answer should have been: a label", kind="text"),
        Declared("comment", 0, True, "free text", kind="text"),
        _seen("resolved", 1, "the matter ended with this answer"),
        _seen("accepted", 1, "the answer was used as it was"),
        _seen("copied", 1, "the answer was copied"),
        _seen("escalated", -1, "a person had to take over"),
        _seen("retried", -1, "the same thing was asked again"),
        _seen("abandoned", -1, "the user gave up"),
        _seen("time_to_next", 0, "seconds until the user's next request", "seconds"),
    )
}
IMPLICIT = tuple(name for name, signal in DECLARED.items() if not signal.explicit)
_DIRECTIONS = {"up": 1, "down": -1, "none": 0}


def declare(config: Settings) -> dict[str, Declared]:
    """Return the signals of a project by name: the built-in ones and those it declares."""
    found = dict(DECLARED)
    for name, given in config.signals.items():
        found[name] = _declared(name, given, DECLARED.get(name))
    return found


def _declared(name: str, given: Signal, built_in: Declared | None) -> Declared:
    explicit = bool(given.explicit)
    kind = given.kind or (built_in.kind if built_in else "flag")
    base = built_in or Declared(
        name, 0 if kind == "text" else 1, explicit, "declared in tutelage.yaml",
        1.0 if explicit else _IMPLICIT_WEIGHT,
    )  # fmt: skip
    low, high = given.between or (0.0, _SECONDS if kind == "seconds" else 1.0)
    return replace(
        base,
        kind=kind,
        direction=_DIRECTIONS[given.direction] if given.direction else base.direction,
        explicit=base.explicit if given.explicit is None else explicit,
        weight=base.weight if given.weight is None else given.weight,
        low=low,
        high=high,
    )


@dataclass(frozen=True)
class Feedback:
    """One checked delivery: its rows, and names that no signal is declared for."""

    record: str
    rows: tuple[dict[str, Any], ...]
    undeclared: tuple[str, ...] = ()


def read_feedback(
    body: Mapping[str, Any],
    output: OutputFormat,
    author: str | None = None,
    declared: Mapping[str, Declared] = DECLARED,
) -> Feedback:
    """Return the signals in a request body; raise DataError naming what is wrong.

    `author` is who delivered it; a body's own `author` (the expert) goes before it.
    """
    record = _record(body)
    _require_places(body, declared)
    values = _values(body, output, declared)
    if not values:
        raise DataError(
            "there is no feedback in the body", fix="Send rating, edit, comment or signals"
        )
    author = _author(body.get("author")) or author
    at = _time(body.get("at"))
    undeclared = tuple(name for name in values if name not in declared)
    rows = tuple(
        signal_row(record, name, value, author, at, explicit=_explicit(name, declared))
        for name, value in values.items()
    )
    return Feedback(record, rows, undeclared)


def _require_places(body: Mapping[str, Any], declared: Mapping[str, Declared]) -> None:
    """Raise DataError for a signal that stands beside `signals`, and for a misspelt field."""
    for name in body:
        if name in declared and name not in OWN_FIELDS:
            raise DataError(
                f"{name!r} is one of the signals", fix=f'Send it as {{"signals": {{"{name}": …}}}}'
            )
        near = nearest(name.lower(), [*OWN_FIELDS, "signals"], cutoff=_MISSPELT)
        if near is not None and near != name:
            raise DataError(f"there is no field {name!r}", fix=f"Send it as {near!r}")


def _record(body: Mapping[str, Any]) -> str:
    """Return the record's id, under either of its names."""
    given = (body.get("record_id"), body.get("response_id"))
    names = {name for name in given if isinstance(name, str) and name}
    if len(names) > 1:
        raise DataError("'record_id' and 'response_id' name two records", fix="Send one of the two")
    record = next(iter(names), "")
    if not _RECORD.fullmatch(record):
        raise DataError(
            "'record_id' (or 'response_id') is missing or is not an id",
            fix="Send the `id` of the response that the feedback is about",
        )
    return record


def _author(given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise DataError(f"'author' is {_shown(given)}", fix="Send a name, or leave it out")
    return given[:_AUTHOR] if given else None


def _explicit(name: str, declared: Mapping[str, Declared]) -> bool:
    return name in declared and declared[name].explicit


def _values(
    body: Mapping[str, Any], output: OutputFormat, declared: Mapping[str, Declared]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if body.get("rating") is not None:
        found["rating"] = _rating(body["rating"])
    if body.get("edit") is not None:
        found["edit"] = _edit(body["edit"], output)
    if body.get("comment") is not None:
        found["comment"] = _text("comment", body["comment"])
    for name, value in _named(body.get("signals")).items():
        _require_name(name, declared)
        found[name] = _signal_value(name, value, declared.get(name))
    return found


def _named(signals: Any) -> dict[str, Any]:
    """Return the values of the signals by name; a list says that each of them happened."""
    if signals is None:
        return {}
    if isinstance(signals, (dict, list)) and len(signals) > _MOST:
        raise DataError(
            f"'signals' holds {len(signals):,}", fix=f"Send at most {_MOST} of them at once"
        )
    if isinstance(signals, dict):
        return dict(signals)
    if isinstance(signals, list) and all(isinstance(name, str) for name in signals):
        return dict.fromkeys(signals, True)
    raise DataError("'signals' is not an object", fix='Send {"resolved": true}, or a list of names')


def _rating(value: Any) -> float:
    words = {"up": 1.0, "good": 1.0, "down": 0.0, "bad": 0.0}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if isinstance(value, (int, float)) and 0 <= value <= 1:
        return float(value)
    raise DataError(
        f"'rating' is {_shown(value)}",
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


def _require_name(name: Any, declared: Mapping[str, Declared]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        known = ", ".join(n for n in declared if n not in OWN_FIELDS)
        raise DataError(
            f"{str(name)[:40]!r} is not a signal's name",
            fix=f"Use small letters, digits and _; declared are {known}",
        )
    if name in OWN_FIELDS:
        raise DataError(f"{name!r} is not one of the signals", fix="Send it beside `signals`")


def _signal_value(name: str, value: Any, rule: Declared | None) -> Any:
    """Return the value if it is of the kind that is declared; raise DataError."""
    if rule is not None:
        fits, wanted = _KINDS[rule.kind]
        if not fits(value):
            raise DataError(f"the value of {name!r} is {_shown(value)}", fix=f"Send {wanted}")
    elif not (_is_flag(value) or _is_number(value) or _is_short_text(value)):
        raise DataError(
            f"the value of {name!r} is not plain", fix="Send true, false, a number or text"
        )
    return value


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST
    )  # NaN compares as false


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (_is_number(value) and value >= 0)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _SHORT


_LARGEST = 1e15  # beyond which a number of a signal is no measurement
_SHORT = 256  # characters of a signal that is text
_KINDS: dict[SignalKind, tuple[Callable[[Any], bool], str]] = {
    "flag": (_is_flag, "true, false, or how often it happened"),
    "number": (_is_number, "a number"),
    "seconds": (_is_seconds, "a number of seconds, 0 or more"),
    "text": (_is_short_text, f"text of at most {_SHORT} characters"),
}


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "not plain"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _time(value: Any) -> datetime:
    if value is None:
        return utc_now()
    try:
        at = datetime.fromisoformat(value)
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"'at' is {_shown(value)}", fix="Send a time such as 2026-03-01T12:00:00+00:00"
        ) from None
    return min(at, utc_now())  # a client's fast clock must not outrank later feedback


def signal_row(
    record: str, name: str, value: Any, author: str | None, at: datetime, *, explicit: bool
) -> dict[str, Any]:
    """Return a signal as the store keeps it."""
    return {
        "key": content_hash([record, name, value, author]),
        "record": record,
        "kind": name,
        "explicit": explicit,
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
