"""What a row of a log says besides question and answer: id, time, user, counts, feedback.

The conversation is read by data/readers; here are the fields beside it, by the names under which
Latitude v1, Langfuse, OpenPipe, OpenAI and plain tables keep them. Nothing is guessed: what a row
doesn't say stays unset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tutelage.data.readers.turns import Unusable, as_text
from tutelage.feedback.signals import IMPLICIT

_ID = (
    "recordid", "responseid", "requestid", "documentlogid", "observationid", "outputid", "id",
    "spanid", "uuid", "logid", "traceid",
)  # fmt: skip
_AT = ("at", "timestamp", "createdat", "starttime", "requestedat", "created", "time", "date",
       "outputcreated", "responsecreated")  # fmt: skip
_END = ("endtime", "receivedat", "completedat")
_USER = ("user", "userid", "enduser", "enduserid", "customerid", "metadatauser", "metadatauserid",
         "inputuser", "requestuser", "tagsuserid", "tagsuser")  # fmt: skip
_GROUP = ("groupid", "group", "sessionid", "conversationid", "threadid", "customidentifier",
          "metadatagroup", "metadatasessionid", "tagsgroup")  # fmt: skip
_MODEL = ("release", "model", "providedmodelname", "modelname", "modelid", "outputmodel",
          "responsemodel", "inputmodel", "requestmodel")  # fmt: skip
_ASKED = ("prompttokens", "inputtokens", "usageprompttokens", "usageinputtokens", "usageinput",
          "usagedetailsinput", "outputusageprompttokens", "responseusageprompttokens")  # fmt: skip
_ANSWERED = (
    "completiontokens", "outputtokens", "usagecompletiontokens", "usageoutputtokens",
    "usageoutput", "usagedetailsoutput", "outputusagecompletiontokens",
    "responseusagecompletiontokens",
)  # fmt: skip
_MS = ("latencyms", "durationms", "duration", "responsetimems")  # Latitude's duration is in ms
_SECONDS = ("latency", "latencyseconds", "durationseconds")  # Langfuse's latency is in seconds
_FIRST_MS, _FIRST_SECONDS = ("firsttokenms", "timetofirsttokenms"), ("timetofirsttoken",)
_FINISH = ("finishreason",)
_STATUS = ("status", "statuscode", "httpstatus")
_ERROR = ("error", "errormessage", "statusmessage")
_RATING = ("rating", "userrating", "feedbackrating", "userfeedback", "thumbs", "thumb", "feedback")
_EDIT = ("edit", "correction", "corrected", "correctedoutput", "idealoutput", "ideal")
_COMMENT = ("comment", "feedbackcomment", "usercomment")
_NESTED = ("usage", "usagedetails", "metadata", "input", "output", "request", "response", "tags",
           "body")  # fmt: skip
_YES, _NO = ("true", "yes"), ("false", "no")
_LATEST_S = 32_503_680_000  # the year 3000: a larger number is milliseconds


@dataclass(frozen=True)
class Facts:
    """What one logged call says of itself. `feedback` are bodies as POST /v1/feedback takes them.

    Times in milliseconds; tokens are counts. `own`: it is a record that Tutelage wrote.
    """

    id: str | None = None
    at: datetime | None = None
    user: str | None = None
    group: str | None = None
    model: str | None = None
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int = 200
    finish_reason: str = "stop"
    error: str | None = None
    feedback: tuple[dict[str, Any], ...] = ()
    own: bool = False


@dataclass(frozen=True)
class Names:
    """Fields that the user named, and how ratings are scaled: 1 to `scale`, unset 0 to 1."""

    user: str | None = None
    group: str | None = None
    id: str | None = None
    scale: float | None = None
    timed: bool = True  # whether the time counts: a row with an unreadable one is then no use
    own_group: str | None = None  # the project's group column, taken where a log has it
    signals: tuple[str, ...] = IMPLICIT  # columns that are signals
    texts: tuple[str, ...] = ()  # those of them that are text, whatever they look like
    seen: dict[str, bool] = field(default_factory=dict)  # named fields that some row had


def read_facts(fields: Mapping[str, Any], names: Names) -> Facts:
    """Return what a row says beside its conversation; raise Unusable for a time that is none."""
    flat = _flatten(fields)
    at = _time(_first(flat, _AT)) if names.timed else None
    status = _status(flat)
    return Facts(
        id=_named(fields, names, "id") or _short(_first(flat, _ID)),
        at=at,
        user=_named(fields, names, "user") or _short(_first(flat, _USER)),
        group=_named(fields, names, "group")
        or _short(fields.get(names.own_group or ""))
        or _short(_first(flat, _GROUP)),
        model=_short(_first(flat, _MODEL)),
        latency_ms=_latency(flat, at),
        first_token_ms=_milliseconds(flat, _FIRST_MS, _FIRST_SECONDS),
        prompt_tokens=_count(_first(flat, _ASKED)),
        completion_tokens=_count(_first(flat, _ANSWERED)),
        status=status,
        finish_reason=_short(_first(flat, _FINISH)) or "stop",
        error=_short(_first(flat, _ERROR)) if status >= 400 else None,
        feedback=tuple(_feedback(fields, flat, names)),
        own={"deployment", "arm", "side"} <= fields.keys(),
    )


def _named(fields: Mapping[str, Any], names: Names, what: str) -> str | None:
    name = getattr(names, what)
    if name is None:
        return None
    names.seen[name] = names.seen.get(name, False) or name in fields
    return _short(fields.get(name))


def _flatten(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields by folded names, those inside known objects under both names joined."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        folded = _fold(name)
        flat.setdefault(folded, value)
        if folded in _NESTED:
            _add_nested(flat, folded, _opened(value))
    return flat


def _add_nested(flat: dict[str, Any], folded: str, value: Any) -> None:
    if not isinstance(value, dict):
        return
    inner = value.get("body") if isinstance(value.get("body"), dict) else value
    for name, part in (inner or {}).items():
        flat.setdefault(folded + _fold(name), part)
        if _fold(name) == "usage" and isinstance(part, dict):
            for deeper, count in part.items():
                flat.setdefault(f"{folded}usage{_fold(deeper)}", count)


def _fold(name: Any) -> str:
    return "".join(char for char in str(name).lower() if char.isalnum())


def _opened(value: Any) -> Any:
    """Return a value that a table holds as JSON."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _first(flat: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((flat[name] for name in names if flat.get(name) not in (None, "", [], {})), None)


def _short(value: Any) -> str | None:
    text = as_text(value).strip() if value not in (None, "") else ""
    return text[:2000] or None


def _number(value: Any, below: float = 1e12) -> float | None:
    try:
        found = float(str(value).replace(",", ""))
    except (TypeError, ValueError):
        return None
    return found if 0 <= found < below else None


def _count(value: Any) -> int:
    return int(_number(value) or 0)


def _milliseconds(
    flat: Mapping[str, Any], ms: Iterable[str], seconds: Iterable[str]
) -> float | None:
    found = _number(_first(flat, ms))
    if found is not None:
        return found
    found = _number(_first(flat, seconds))
    return None if found is None else found * 1000


def _latency(flat: Mapping[str, Any], at: datetime | None) -> float:
    found = _milliseconds(flat, _MS, _SECONDS)
    if found is None and at is not None:
        end = _time(_first(flat, _END))
        found = (end - at).total_seconds() * 1000 if end is not None else None
    return max(0.0, found or 0.0)


def _time(value: Any) -> datetime | None:
    """Return a time given as ISO 8601, or as seconds or milliseconds since 1970."""
    if value in (None, ""):
        return None
    seconds = _number(value, _LATEST_S * 1000) if not isinstance(value, datetime) else None
    try:
        if seconds is not None:
            at = datetime.fromtimestamp(seconds if seconds < _LATEST_S else seconds / 1000, UTC)
        else:
            at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        raise Unusable("D2-S10", f"the time {str(value)[:40]!r} is not ISO 8601") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _status(flat: Mapping[str, Any]) -> int:
    found = _number(_first(flat, _STATUS))
    if found is not None and 100 <= found < 600:
        return int(found)
    failed = str(flat.get("level", "")).upper() == "ERROR" or bool(_first(flat, ("error",)))
    return 500 if failed else 200


def _feedback(
    fields: Mapping[str, Any], flat: Mapping[str, Any], names: Names
) -> Iterable[dict[str, Any]]:
    """Yield the feedback on a row as bodies for feedback/signals.py, which checks them."""
    own = _opened(flat.get("feedback"))
    if isinstance(own, list):  # Tutelage's own export
        yield from (_own(one) for one in own if isinstance(one, dict) and "kind" in one)
        flat = {name: value for name, value in flat.items() if name != "feedback"}
    body: dict[str, Any] = {}
    if (rating := _first(flat, _RATING)) is not None:
        body["rating"] = _rating(rating, names.scale)
    if (comment := _first(flat, _COMMENT)) is not None:
        body["comment"] = as_text(comment)
    if (edit := _edit(flat)) is not None:
        body["edit"] = as_text(edit)
    signals = {
        name: as_text(value) if name in names.texts else _plain(value)
        for name, value in fields.items()
        if name in names.signals and value not in (None, "")
    }
    for name, value in _scores(_opened(flat.get("scores"))):
        if name in ("rating", "userfeedback", "userrating", "thumbs"):
            body.setdefault("rating", _rating(value, names.scale))
        else:
            signals.setdefault(name, value)
    if signals:
        body["signals"] = signals
    if body:
        yield body


def _edit(flat: Mapping[str, Any]) -> Any:
    """Return the corrected answer. Beside an output, an expected output is one."""
    found = _first(flat, _EDIT)
    if found is None and flat.get("output") not in (None, "", []):
        found = _first(flat, ("expectedoutput",))
    return found


def _own(one: Mapping[str, Any]) -> dict[str, Any]:
    kind, value = str(one["kind"]), one.get("value")
    told = {key: one[key] for key in ("author", "at") if one.get(key)}
    explicit = kind in ("rating", "edit", "comment")
    return {**told, **({kind: value} if explicit else {"signals": {kind: value}})}


def _scores(value: Any) -> Iterable[tuple[str, Any]]:
    """Yield (name, value) of Langfuse's scores: a list of objects, or values by name."""
    if isinstance(value, dict):
        value = [{"name": name, "value": one} for name, one in value.items()]
    for one in value if isinstance(value, list) else ():
        if not isinstance(one, dict) or one.get("name") in (None, ""):
            continue
        given = one.get("value", one.get("stringValue"))
        given = given[-1] if isinstance(given, list) and given else given
        name = "".join(c if c.isalnum() else "_" for c in str(one["name"]).lower()).strip("_")
        folded = _fold(name)
        if given not in (None, ""):
            yield (folded if folded in ("userfeedback", "userrating") else name[:32]), _plain(given)


def _rating(value: Any, scale: float | None) -> Any:
    """Return a rating as feedback takes it: up, down, or 0 to 1; numbers are scaled from 1."""
    if isinstance(value, str):
        word = value.strip().lower()
        named = {"positive": "up", "negative": "down", "thumbs_up": "up", "thumbs_down": "down",
                 "👍": "up", "👎": "down", "true": "up", "false": "down"}  # fmt: skip
        if word in named or word in ("up", "down", "good", "bad"):
            return named.get(word, word)
    number = _number(value) if not isinstance(value, bool) else float(value)
    if number is None:
        return value
    return (number - 1) / (scale - 1) if scale is not None else number


def _plain(value: Any) -> Any:
    """Return a signal's value: truth or a number where a table holds them as text."""
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in _YES or word in _NO:
        return word in _YES
    return value if (number := _number(word)) is None else number
