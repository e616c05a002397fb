"""Rows of log exports: Latitude, Langfuse, OpenPipe, and stored chat completions of OpenAI.

The forms are those of Latitude v1's CSV of logs and of spans, Langfuse's export of traces and
observations (CSV, JSON, JSON lines, and the download of one trace), OpenPipe's request logs, and
of chat.completion objects joined with their request. Entries that are no answered model call are
left out with a note, not an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tutelage.core.example import Message
from tutelage.data.readers.reading import Clues, Fields, Reading, Shape
from tutelage.data.readers.turns import Unusable, as_text, read_turns, said

SKIPPED = "D1-L01"
_LANGFUSE = {
    "traceid", "tracename", "tracetags", "sessionid", "userid", "starttime", "endtime",
    "observationid", "parentobservationid", "completionstarttime", "projectid", "bookmarked",
    "observationcount", "modelparameters", "promptname", "usagedetails", "costdetails",
    "providedmodelname", "statusmessage", "trace_id", "session_id", "user_id", "start_time",
}  # fmt: skip
_LATITUDE_IDS = ("document_log_id", "span_id", "id")
_LATITUDE_OWN = {  # without underscores, in lower case
    "output", "expectedoutput", "tokens", "id", "uuid", "documentlogid", "spanid", "traceid",
    "source", "duration", "error", "createdat", "updatedat", "commitid", "documentuuid",
    "experimentid", "experimentuuid", "customidentifier", "contenthash", "resolvedcontent",
    "originalprovider", "costinmillicents", "parameters",
}  # fmt: skip


def find_completions(clues: Clues) -> Shape | None:
    """Stored chat completions: `choices`, and the request's messages beside them."""
    choices = clues.folded.get("choices")
    response = clues.folded.get("response")
    if choices is None and not _has_choices(clues.row.get(response or "")):
        return None
    why = f"every row has {'choices' if choices else 'a response with choices'}"
    return Shape("OpenAI stored completions", why, _completion)


def find_langfuse(clues: Clues) -> Shape | None:
    """Langfuse traces or observations: input and output, and at least two of its own fields."""
    source, target = clues.folded.get("input"), clues.folded.get("output")
    own = sorted(_LANGFUSE & clues.folded.keys())
    if source is None or target is None or len(own) < 2:
        return None
    shown = ", ".join(clues.folded[name] for name in own[:2])
    return Shape(
        "Langfuse export",
        f"every row has input and output beside {shown}",
        lambda fields: _langfuse(fields, source, target),
    )


def find_openpipe_log(clues: Clues) -> Shape | None:
    """OpenPipe's request logs: `input` is the whole request, `output` the completion or an error.

    https://docs.openpipe.ai/features/request-logs/exporting-logs
    """
    source, target = clues.folded.get("input"), clues.folded.get("output")
    if source is None or target is None:
        return None
    asked = _unquoted(clues.row[source])
    if not isinstance(asked, dict) or not {"messages", "model"} <= asked.keys():
        return None
    return Shape(
        "OpenPipe request logs",
        f"every row has {source} with a request and {target} with what came of it",
        lambda fields: _openpipe(fields, source, target),
    )


def find_latitude(clues: Clues) -> Shape | None:
    """Latitude's CSV of logs: the parameters of the prompt, the output, the log's id, tokens.

    The form that Latitude takes for upload has one column, a conversation a row, and no header.
    """
    if list(clues.folded) == ["messages"] and isinstance(next(iter(clues.row.values())), str):
        return Shape("Latitude logs", "every row is one column with a conversation", _uploaded)
    output = clues.first("output", "expected_output")
    known = [name for name in _LATITUDE_IDS if name in clues.folded]
    if output is None or not known or "tokens" not in clues.folded:
        return None
    chosen = clues.columns.input
    asked = [chosen] if chosen and chosen in clues.row else _parameters(clues)
    if not asked:
        return None
    what = "the column" if len(asked) == 1 else "the columns"
    why = f"every row has {output}, {known[0]} and tokens; {what} {', '.join(asked)} ask"
    return Shape("Latitude logs", why, lambda fields: _latitude(fields, asked, output))


def as_asked(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the turns with a lone system message as the user's: many logged prompts are one."""
    if any(m.role == "user" for m in messages) or not messages or messages[0].role != "system":
        return messages
    return (messages[0].model_copy(update={"role": "user"}), *messages[1:])


def _uploaded(fields: Fields) -> Reading:
    (name,) = fields
    return Reading(as_asked(read_turns(fields[name], name)), (name,))


def _parameters(clues: Clues) -> list[str]:
    return [
        key
        for key in map(str, clues.row)
        if key.strip().lower().replace("_", "") not in _LATITUDE_OWN
        and not key.lower().startswith(("commit.", "error."))
    ]


def _latitude(fields: Fields, asked: Iterable[str], output: str) -> Reading:
    filled = [(name, as_text(fields.get(name))) for name in asked]
    filled = [(name, text) for name, text in filled if text.strip()]
    if not filled:
        raise Unusable(SKIPPED, "the log has no parameters, so nothing was asked")
    one = len(filled) == 1
    text = filled[0][1] if one else "\n".join(f"{name}: {value}" for name, value in filled)
    answer = _answered(fields.get(output))
    messages = (Message(role="user", content=text), *said(answer, "assistant"))
    return Reading(messages, (*asked, output))


def _answered(value: Any) -> Any:
    """Return a logged answer; raise Unusable if the call gave none."""
    if value is None or value == "" or value == []:
        raise Unusable(SKIPPED, "the call has no output")
    return value


def _langfuse(fields: Fields, source: str, target: str) -> Reading:
    kind = str(fields.get("type") or "GENERATION").upper()
    if kind != "GENERATION":
        raise Unusable(SKIPPED, f"a {kind.lower()}, not a call of a model")
    if str(fields.get("level")).upper() == "ERROR":
        raise Unusable(SKIPPED, "the call failed")
    asked, answer = _unquoted(fields.get(source)), _answered(_unquoted(fields.get(target)))
    if asked in (None, "", []):
        raise Unusable(SKIPPED, "the call has no input")
    before, after = said(asked, "user"), said(answer, "assistant")
    if len(after) > len(before) and after[: len(before)] == before:
        after = after[len(before) :]  # a graph's output repeats its input
    more = {}
    if isinstance(asked, dict) and asked.get("tools"):
        more["tools"] = asked["tools"]
    return Reading((*as_asked(before), *after), (source, target), more=more)


def _unquoted(value: Any) -> Any:
    """Return a value that a CSV holds as JSON: an object, a list, or a text in quotes."""
    if isinstance(value, str) and value[:1] in ('"', "[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _openpipe(fields: Fields, source: str, target: str) -> Reading:
    asked, done = _unquoted(fields.get(source)), _unquoted(fields.get(target))
    choices = done.get("choices") if isinstance(done, dict) else None
    if not choices:
        raise Unusable(SKIPPED, "the call failed: its output has no choices")
    before = said(asked.get("messages") if isinstance(asked, dict) else None, "user")
    more = {"tools": asked["tools"]} if isinstance(asked, dict) and asked.get("tools") else {}
    return Reading((*as_asked(before), *said(choices, "assistant")), (source, target), more=more)


def _has_choices(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    body = value.get("body")
    return "choices" in value or (isinstance(body, dict) and "choices" in body)


def _completion(fields: Fields) -> Reading:
    done = _unquoted(fields.get("response") or fields)
    done = done.get("body", done) if isinstance(done, dict) else {}
    choices = _unquoted(done.get("choices") or fields.get("choices"))
    if not choices:
        raise Unusable(SKIPPED, "the completion has no choices")
    asked, used, more = _request(fields)
    if asked is None:
        raise Unusable("D1-R11", "the request's messages are not in the row")
    answer = said(choices, "assistant")
    return Reading((*as_asked(said(asked, "user")), *answer), used, more=more)


def _request(fields: Fields) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
    """Return (the messages asked, the fields that were used, the tools among them)."""
    for name in ("messages", "input", "prompt"):
        if fields.get(name):
            return _unquoted(fields[name]), (name, "choices", "response"), {}
    for name in ("request", "body"):
        inner = _unquoted(fields.get(name))
        inner = inner.get("body", inner) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and (inner.get("messages") or inner.get("input")):
            keep = {k: inner[k] for k in ("tools", "parallel_tool_calls") if inner.get(k)}
            return (
                inner.get("messages") or inner.get("input"),
                (name, "choices", "response"),
                keep,
            )
    return None, (), {}
