"""Label Studio's exports: JSON (tasks with annotations and predictions) and JSON-MIN.

Taken are answers about the whole text: choices, textarea, rating, number, taxonomy. Spans and
boxes are no labels of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.data.annotation.imported import (
    RawAnswer,
    RawDraft,
    RawExport,
    RawTask,
    key_of,
    rows_of,
)

TOOL = "label-studio"
_TYPES = ("choices", "textarea", "rating", "number", "taxonomy")
_VALUES = {"textarea": "text"}  # where the value's key is not the type's name
_ANSWERS = {"annotations", "completions", "predictions"}
_MIN = {"annotator", "annotation_id", "lead_time"}
_MIN_OWN = {*_MIN, "id", "created_at", "updated_at"}


def detect_label_studio(value: Any, name: str) -> RawExport | None:
    """Return the tasks of an export, or None if the file is none."""
    rows = rows_of(value)
    if not rows:
        return None
    first = rows[0]
    if isinstance(first.get("data"), dict) and _ANSWERS & first.keys():
        why = "every task has data and annotations"
        return RawExport(TOOL, why, [_task(row, name, i) for i, row in enumerate(rows, start=1)])
    if first.keys() >= _MIN:
        why = "every row has annotator, annotation_id and lead_time (JSON-MIN)"
        return RawExport(TOOL, why, [_flat(row, name, i) for i, row in enumerate(rows, start=1)])
    return None


def _task(row: Mapping[str, Any], name: str, number: int) -> RawTask:
    given = row.get("annotations", row.get("completions"))
    odd: list[str] = []
    answers = []
    for annotation in rows_of(given or []):
        values = _values(annotation.get("result"), odd)
        person = _person(annotation)
        answers.append(
            RawAnswer(
                annotator=person,
                values=values,
                key=key_of(
                    TOOL, row.get("id"), annotation.get("id"), person,
                    annotation.get("updated_at"), values,
                ),
                seconds=_seconds(annotation.get("lead_time")),
                skipped=bool(annotation.get("was_cancelled") or annotation.get("skipped")),
                final=bool(annotation.get("ground_truth") or annotation.get("honeypot")),
            )
        )  # fmt: skip
    drafts = tuple(
        RawDraft(str(p.get("model_version") or "label-studio"), _values(p.get("result"), []))
        for p in rows_of(row.get("predictions") or [])
    )
    place = f"{name}#{row.get('id', number)}"
    data = row.get("data")
    fields = data if isinstance(data, dict) else {}
    return RawTask(place, fields, tuple(answers), drafts, "; ".join(dict.fromkeys(odd)))


def _values(result: Any, odd: list[str]) -> dict[str, Any]:
    """Return what was answered by question; `odd` gets what is about a part of the text."""
    found: dict[str, Any] = {}
    for region in rows_of(result or []):
        kind = str(region.get("type", "")).lower()
        value = region.get("value")
        if not isinstance(value, dict):
            continue
        if kind not in _TYPES or "start" in value or "x" in value:
            odd.append(f"{kind or 'a region'} marks a part of the text")
            continue
        said = value.get(_VALUES.get(kind, kind))
        if kind == "taxonomy" and isinstance(said, list):
            said = [path[-1] if isinstance(path, list) and path else path for path in said]
        question = str(region.get("from_name") or kind)
        if said is not None and said != []:
            found[question] = _joined(found.get(question), said)
    return found


def _joined(before: Any, said: Any) -> Any:
    if before is None:
        return said[0] if isinstance(said, list) and len(said) == 1 else said
    first = before if isinstance(before, list) else [before]
    return [*first, *(said if isinstance(said, list) else [said])]


def _flat(row: Mapping[str, Any], name: str, number: int) -> RawTask:
    """Return the task of a JSON-MIN row: fields and answers stand side by side."""
    fields = {key: value for key, value in row.items() if key not in _MIN_OWN}
    values = {key: _unwrapped(value) for key, value in fields.items() if value is not None}
    person = str(row.get("annotator") or "unknown")
    answer = RawAnswer(
        annotator=person,
        values=values,
        key=key_of(TOOL, row.get("annotation_id"), person, row.get("updated_at"), values),
        seconds=_seconds(row.get("lead_time")),
    )
    return RawTask(f"{name}#{row.get('id', number)}", fields, (answer,))


def _unwrapped(value: Any) -> Any:
    """Return the choices of {"choices": […]}, as JSON-MIN writes several."""
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return value["choices"]
    return value


def _person(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("username") or by.get("id")
    if by is None:
        by = annotation.get("created_username")
    return str(by).strip() if by not in (None, "") else "unknown"


def _seconds(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < 1e9 else None
