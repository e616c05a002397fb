"""Argilla's exports: records of v2 (nested or flattened), feedback records and v1 text classes.

Version 2 keeps responses by question, version 1 by person; both are read. Submitted responses
count, discarded ones are skips, drafts are unfinished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.data.annotation.imported import (
    RawAnswer,
    RawDraft,
    RawExport,
    RawTask,
    key_of,
    rows_of,
)

TOOL = "argilla"
_OWN = {"id", "_server_id", "status", "inserted_at", "updated_at", "external_id", "vectors"}
_SUFFIXES = (
    ".responses", ".responses.users", ".responses.status",
    ".suggestion", ".suggestion.agent", ".suggestion.score",
)  # fmt: skip
Said = tuple[str, str, Any, str]  # person, question, value, status


def detect_argilla(value: Any, name: str) -> RawExport | None:
    """Return the records of an export, or None if the file is none."""
    rows = _records(value)
    if not rows:
        return None
    first = rows[0]
    if isinstance(first.get("fields"), dict) and {"responses", "suggestions"} & first.keys():
        version = "2" if isinstance(first.get("responses"), dict) else "1 (feedback)"
        why = f"every record has fields and responses, as version {version} writes them"
        read = _nested
    elif any(key.endswith(".responses") for row in rows for key in row):
        why, read = "columns named QUESTION.responses, as version 2 flattens records", _flattened
    elif "annotation" in first and {"inputs", "annotation_agent"} & first.keys():
        why, read = "inputs, annotation and annotation_agent, as version 1 writes them", _classic
    else:
        return None
    return RawExport(TOOL, why, [read(row, name, i) for i, row in enumerate(rows, start=1)])


def _records(value: Any) -> list[dict[str, Any]]:
    """Return the records of a list, an object by id, or an object of columns."""
    if isinstance(value, dict) and value:
        inner = list(value.values())
        if all(isinstance(one, dict) and "fields" in one for one in inner):
            return [dict(one) for one in inner]
        lengths = {len(one) if isinstance(one, list) else -1 for one in inner}
        if len(lengths) == 1 and -1 not in lengths:
            rows = zip(*inner, strict=True)
            return [dict(zip(value, row, strict=True)) for row in rows]
        return [value]
    return rows_of(value)


def _nested(row: Mapping[str, Any], name: str, number: int) -> RawTask:
    metadata = row.get("metadata")
    fields = {**(metadata if isinstance(metadata, dict) else {}), **row["fields"]}
    said = [*_by_question(row.get("responses")), *_by_person(row.get("responses"))]
    return _task(row, f"{name}#{number}", fields, said, list(_suggested(row.get("suggestions"))))


def _by_question(responses: Any) -> Iterator[Said]:
    """Yield version 2's responses: {question: [{user_id, value, status}]}."""
    if isinstance(responses, dict):
        for question, given in responses.items():
            for one in rows_of(given or []):
                yield _user(one), str(question), one.get("value"), _status(one)


def _by_person(responses: Any) -> Iterator[Said]:
    """Yield version 1's responses: [{user_id, values: {question: {value}}, status}]."""
    if isinstance(responses, list):
        for one in rows_of(responses):
            values = one.get("values")
            if not isinstance(values, dict) or not values:
                yield _user(one), "", None, _status(one)
                continue
            for question, held in values.items():
                value = held.get("value") if isinstance(held, dict) else held
                yield _user(one), str(question), value, _status(one)


def _suggested(suggestions: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield (agent, question, value) of either version's suggestions."""
    if isinstance(suggestions, dict):
        for question, one in suggestions.items():
            if isinstance(one, dict):
                yield str(one.get("agent") or TOOL), str(question), one.get("value")
    for one in rows_of(suggestions) if isinstance(suggestions, list) else ():
        yield str(one.get("agent") or TOOL), str(one.get("question_name")), one.get("value")


def _flattened(row: Mapping[str, Any], name: str, number: int) -> RawTask:
    said: list[Said] = []
    drafts: list[tuple[str, str, Any]] = []
    for key, value in row.items():
        if key.endswith(".responses"):
            question = key.removesuffix(".responses")
            people = row.get(f"{key}.users") or []
            states = row.get(f"{key}.status") or []
            for place, one in enumerate(value or []):
                person = people[place] if place < len(people) else None
                state = states[place] if place < len(states) else None
                said.append((_named(person), question, one, str(state or "submitted")))
        elif key.endswith(".suggestion") and value is not None:
            agent = row.get(f"{key}.agent")
            drafts.append((str(agent or TOOL), key.removesuffix(".suggestion"), value))
    fields = {k: v for k, v in row.items() if k not in _OWN and not k.endswith(_SUFFIXES)}
    return _task(row, f"{name}#{number}", fields, said, drafts)


def _classic(row: Mapping[str, Any], name: str, number: int) -> RawTask:
    """Return a v1 text-classification record: one annotation, predictions as [label, score]."""
    inputs = row.get("inputs")
    fields = dict(inputs) if isinstance(inputs, dict) else {}
    if isinstance(inputs, str) or isinstance(row.get("text"), str):
        fields.setdefault("text", row.get("text") or inputs)
    metadata = row.get("metadata")
    fields = {**(metadata if isinstance(metadata, dict) else {}), **fields}
    said: list[Said] = []
    if row.get("annotation") not in (None, []):
        person = _named(row.get("annotation_agent"))
        said.append((person, "annotation", row["annotation"], str(row.get("status") or "")))
    drafts = []
    ranked = [p for p in row.get("prediction") or [] if isinstance(p, (list, tuple)) and p]
    if ranked:
        best = max(ranked, key=lambda p: float(p[1]) if len(p) > 1 else 0.0)
        drafts.append((str(row.get("prediction_agent") or TOOL), "annotation", best[0]))
    return _task(row, f"{name}#{number}", fields, said, drafts)


def _task(
    row: Mapping[str, Any],
    place: str,
    fields: Mapping[str, Any],
    said: list[Said],
    drafts: list[tuple[str, str, Any]],
) -> RawTask:
    by_person: dict[str, dict[str, Any]] = {}
    status: dict[str, str] = {}
    for person, question, value, state in said:
        status[person] = state.lower()
        answers = by_person.setdefault(person, {})
        if question and value is not None:
            answers[question] = value
    proposed: dict[str, dict[str, Any]] = {}
    for agent, question, value in drafts:
        if value is not None:
            proposed.setdefault(agent, {})[question] = value
    name = row.get("id") or row.get("external_id") or row.get("_server_id") or place
    return RawTask(
        place,
        fields,
        tuple(
            RawAnswer(
                annotator=person,
                values=values,
                key=key_of(TOOL, name, person, status[person], values),
                skipped=status[person] == "discarded",
                unfinished=status[person] in ("draft", "pending"),
            )
            for person, values in by_person.items()
        ),
        tuple(RawDraft(agent, values) for agent, values in proposed.items()),
    )


def _user(response: Mapping[str, Any]) -> str:
    return _named(response.get("user_id"))


def _named(person: Any) -> str:
    return str(person).strip() if person not in (None, "") else "unknown"


def _status(response: Mapping[str, Any]) -> str:
    return str(response.get("status") or "submitted")
