"""Exports of Label Studio and Argilla, in the forms those tools write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.config import Columns
from tutelage.core.errors import DataError
from tutelage.core.output import OutputFormat
from tutelage.data.annotation.imported import Imported, Wanted, read_export

COLOURS = Wanted(output=OutputFormat("family", ("warm", "cold")), task="classification")
FREE = Wanted(task="summarization")


def choice(value: str | list[str], name: str = "family") -> dict[str, Any]:
    """One region of a Label Studio result."""
    chosen = value if isinstance(value, list) else [value]
    return {
        "id": "x1y2z3", "type": "choices", "value": {"choices": chosen}, "origin": "manual",
        "to_name": "text", "from_name": name,
    }  # fmt: skip


def textarea(text: str | list[str], name: str = "notes") -> dict[str, Any]:
    said = text if isinstance(text, list) else [text]
    return {
        "id": "t1", "type": "textarea", "value": {"text": said}, "to_name": "text",
        "from_name": name,
    }  # fmt: skip


def annotation(number: int, by: Any, *regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": number, "completed_by": by, "result": list(regions), "was_cancelled": False,
        "ground_truth": False, "created_at": "2026-03-09T21:52:49.513742Z",
        "updated_at": "2026-03-09T22:16:08.746926Z", "draft_created_at": None, "lead_time": 4.288,
        "prediction": {}, "result_count": 1, "task": 1, "parent_prediction": None, **more,
    }  # fmt: skip


def task(number: int, text: str, *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": number, "annotations": list(annotations), "file_upload": "a1b2-texts.csv",
        "drafts": [], "predictions": [], "data": {"text": text, "page": number}, "meta": {},
        "created_at": "2026-03-09T21:52:49.513742Z", "inner_id": number, "project": 83,
        "updated_by": 1, **more,
    }  # fmt: skip


STUDIO = [
    task(
        1,
        "glowing ember",
        annotation(1001, 10, choice("warm"), textarea("clear")),
        annotation(1002, {"id": 11, "email": "ben@example.org"}, choice("Cold"), lead_time=9),
        predictions=[
            {"id": 5, "model_version": "tiny-2", "score": 0.9, "result": [choice("warm")]}
        ],
    ),
    task(2, "blue glacier", annotation(1003, 10, was_cancelled=True)),
    task(3, "grey fog", annotation(1004, 10, choice(["warm", "cold"]))),
    task(4, "a stone", annotation(1005, 10, choice("lukewarm"))),
    task(
        5,
        "red ice",
        annotation(
            1006,
            10,
            {
                "id": "r1", "type": "labels", "from_name": "span", "to_name": "text",
                "value": {"start": 0, "end": 3, "text": "red", "labels": ["COLOUR"]},
            },
            choice("cold"),
            ground_truth=True,
        ),
    ),
    task(6, "nobody saw it"),
]  # fmt: skip


def read(tmp_path: Path, value: Any, wanted: Wanted = COLOURS, name: str = "e.json") -> Imported:
    path = tmp_path / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in value))
    else:
        path.write_text(json.dumps(value))
    return read_export(path, wanted)


def said(found: Imported) -> list[tuple[str, str | None, str | None]]:
    return [(a.annotator, a.label, a.answer) for one in found.tasks for a in one.answers]


@pytest.mark.parametrize("name", ["e.json", "e.jsonl"])
def test_label_studio_json(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, STUDIO, name=name)
    assert (found.tool, found.question) == ("label-studio", "family")
    assert "annotations" in found.why
    assert said(found) == [
        ("10", "warm", None),
        ("ben@example.org", "cold", None),
        ("10", None, None),  # cancelled: a skip
        ("10", "cold", None),
    ]
    first = found.tasks[0]
    assert [(a.seconds, a.extra) for a in first.answers] == [(4.288, {"notes": "clear"}), (9.0, {})]
    assert [(d.model, d.label, d.text) for d in first.drafts] == [
        ("tiny-2", "warm", '{"family": "warm"}')
    ]
    assert first.item.example.meta == {"page": 1}
    assert found.tasks[1].answers[0].skipped
    assert found.tasks[4].answers[0].final
    assert [(f.id, f.where.split("#")[1]) for f in found.findings] == [
        ("D8-I05", "2"), ("D8-I02", "3"), ("D8-I01", "3"), ("D8-I03", "4"), ("D8-I01", "4"),
        ("D8-I04", "5"), ("D8-I01", "6"),
    ]  # fmt: skip


def test_label_studio_people_can_be_named(tmp_path: Path) -> None:
    wanted = Wanted(output=COLOURS.output, task="classification", people={"10": "anna"})
    assert {name for name, _, _ in said(read(tmp_path, STUDIO, wanted))} == {
        "anna",
        "ben@example.org",
    }


def test_label_studio_texts_and_ratings(tmp_path: Path) -> None:
    rating = {"type": "rating", "from_name": "stars", "to_name": "text", "value": {"rating": 4}}
    rows = [
        task(1, "a long letter", annotation(1, 7, textarea("A letter about\nrent."), rating)),
        task(2, "another letter", annotation(2, 7, textarea(["One.", "Two."]), rating)),
    ]
    found = read(tmp_path, rows, FREE)
    assert found.question == "notes"
    assert said(found) == [("7", None, "A letter about\nrent."), ("7", None, "One.\nTwo.")]
    stars = Wanted(output=OutputFormat(None, ("1", "2", "3", "4", "5")), task="classification")
    assert said(read(tmp_path, rows, stars))[0] == ("7", "4", None)


def test_label_studio_json_min(tmp_path: Path) -> None:
    rows = [
        {"text": "glowing ember", "id": 1, "family": "warm", "annotator": 10, "annotation_id": 1,
         "created_at": "2026-03-09T21:52:49Z", "updated_at": "2026-03-09T21:53:01Z",
         "lead_time": 5.5},
        {"text": "glowing ember", "id": 1, "family": "cold", "annotator": 11, "annotation_id": 2,
         "created_at": "2026-03-09T21:52:49Z", "updated_at": "2026-03-09T21:54:01Z",
         "lead_time": 2},
        {"text": "grey fog", "id": 2, "family": {"choices": ["warm", "cold"]}, "annotator": 10,
         "annotation_id": 3, "created_at": "", "updated_at": "", "lead_time": 1},
    ]  # fmt: skip
    found = read(tmp_path, rows)
    assert "JSON-MIN" in found.why
    assert said(found) == [("10", "warm", None), ("11", "cold", None)]
    assert len(found.tasks) == 2  # two answers to one text are one item
    assert [f.id for f in found.findings] == ["D8-I02", "D8-I01"]


def test_old_completions_are_annotations(tmp_path: Path) -> None:
    rows = [{"id": 1, "data": {"my_text": "Opossums are great"}, "completions": [
        {"id": 3, "result": [choice("warm")], "lead_time": 2.1}]}]  # fmt: skip
    wanted = Wanted(output=COLOURS.output, task="classification", text="my_text")
    assert said(read(tmp_path, rows, wanted)) == [("unknown", "warm", None)]


ANNA, BEN = "0b1e0f0a-aaaa-4000-8000-000000000001", "0b1e0f0a-bbbb-4000-8000-000000000002"


def record(number: int, text: str, responses: Any, suggestions: Any = None) -> dict[str, Any]:
    """A record as Argilla 2 writes it with to_json."""
    return {
        "id": f"rec-{number}", "fields": {"text": text}, "metadata": {"page": number},
        "suggestions": suggestions or {}, "responses": responses, "vectors": {},
        "_server_id": f"f00d-{number}",
    }  # fmt: skip


ARGILLA = [
    record(
        1,
        "glowing ember",
        {
            "family": [{"value": "warm", "user_id": ANNA}, {"value": "cold", "user_id": BEN}],
            "why": [{"value": "it glows", "user_id": ANNA}],
        },
        {"family": {"value": "warm", "score": 0.8, "agent": "tiny-2"}},
    ),
    record(2, "grey fog", {"family": [{"value": "cold", "user_id": ANNA, "status": "draft"}]}),
    record(3, "a stone", {"family": [{"value": None, "user_id": BEN, "status": "discarded"}]}),
    record(4, "nobody saw it", {}),
]


def check_argilla(found: Imported) -> None:
    assert (found.tool, found.question) == ("argilla", "family")
    assert [a for a in said(found) if a[1]] == [(ANNA, "warm", None), (BEN, "cold", None)]
    assert [(d.model, d.label) for d in found.tasks[0].drafts] == [("tiny-2", "warm")]
    assert found.tasks[2].answers[0].skipped
    assert [f.id for f in found.findings if f.id != "D8-I01"] == ["D8-I06", "D8-I05"]


def test_argilla_2_records(tmp_path: Path) -> None:
    found = read(tmp_path, ARGILLA)
    assert "version 2" in found.why
    check_argilla(found)
    assert found.tasks[0].answers[0].extra == {"why": "it glows"}
    assert found.tasks[0].item.example.meta == {"page": 1}


def test_argilla_2_by_id_and_by_column(tmp_path: Path) -> None:
    check_argilla(read(tmp_path, {row["id"]: row for row in ARGILLA}))
    check_argilla(read(tmp_path, {key: [row[key] for row in ARGILLA] for key in ARGILLA[0]}))


def test_argilla_2_flattened(tmp_path: Path) -> None:
    """As `to_list(flatten=True)` and the hub's data sets have it."""
    rows = [
        {"id": "rec-1", "_server_id": "f00d", "status": "completed", "text": "glowing ember",
         "page": 1, "family.responses": ["warm", "cold"], "family.responses.users": [ANNA, BEN],
         "family.responses.status": ["submitted", "submitted"], "family.suggestion": "warm",
         "family.suggestion.score": 0.8, "family.suggestion.agent": "tiny-2"},
        {"id": "rec-2", "_server_id": "f00e", "status": "pending", "text": "grey fog", "page": 2,
         "family.responses": ["cold"], "family.responses.users": [ANNA],
         "family.responses.status": ["draft"], "family.suggestion": None},
        {"id": "rec-3", "_server_id": "f00f", "status": "pending", "text": "a stone", "page": 3,
         "family.responses": [None], "family.responses.users": [BEN],
         "family.responses.status": ["discarded"], "family.suggestion": None},
    ]  # fmt: skip
    found = read(tmp_path, rows, name="e.jsonl")
    assert "flattens" in found.why
    check_argilla(found)
    assert found.tasks[0].item.example.meta == {"page": 1}


def test_argilla_1_feedback_records(tmp_path: Path) -> None:
    rows = [
        {"fields": {"text": "glowing ember"}, "metadata": {"page": 1}, "external_id": "e1",
         "responses": [
             {"user_id": ANNA, "values": {"family": {"value": "warm"}}, "status": "submitted"},
             {"user_id": BEN, "values": {"family": {"value": "cold"}}, "status": "submitted"}],
         "suggestions": [{"question_name": "family", "value": "warm", "agent": "tiny-2",
                          "score": 0.8, "type": "model"}]},
        {"fields": {"text": "grey fog"}, "metadata": {}, "suggestions": [], "responses": [
            {"user_id": ANNA, "values": {"family": {"value": "cold"}}, "status": "draft"}]},
        {"fields": {"text": "a stone"}, "metadata": {}, "suggestions": [], "responses": [
            {"user_id": BEN, "values": None, "status": "discarded"}]},
    ]  # fmt: skip
    found = read(tmp_path, rows)
    assert "version 1 (feedback)" in found.why
    check_argilla(found)


def test_argilla_1_text_classes(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "text": "glowing ember", "inputs": {"text": "glowing ember"},
         "prediction": [["cold", 0.2], ["warm", 0.8]], "prediction_agent": "tiny-2",
         "annotation": "warm", "annotation_agent": "anna", "metadata": {"page": 1},
         "status": "Validated", "event_timestamp": None},
        {"id": "2", "text": "grey fog", "inputs": {"text": "grey fog"}, "prediction": None,
         "annotation": None, "annotation_agent": None, "metadata": {}, "status": "Default"},
    ]  # fmt: skip
    found = read(tmp_path, rows)
    assert said(found) == [("anna", "warm", None)]
    assert [(d.model, d.label) for d in found.tasks[0].drafts] == [("tiny-2", "warm")]


def test_the_question_is_asked_for_when_it_can_not_be_told(tmp_path: Path) -> None:
    rows = [task(1, "ember", annotation(1, 1, choice("warm"), choice("cold", "second")))]
    with pytest.raises(DataError, match=r"2 questions: family, second.*--question"):
        read(tmp_path, rows)
    named = Wanted(output=COLOURS.output, task="classification", question="second")
    assert said(read(tmp_path, rows, named)) == [("1", "cold", None)]
    wrong = Wanted(output=COLOURS.output, task="classification", question="famly")
    with pytest.raises(DataError, match=r"no question 'famly'.*'family'"):
        read(tmp_path, rows, wrong)


def test_a_group_that_splits_need_must_be_there(tmp_path: Path) -> None:
    wanted = Wanted(Columns(group="patient"), COLOURS.output, "classification")
    found = read(tmp_path, STUDIO, wanted)
    assert found.tasks == []
    assert {f.id for f in found.findings} == {"D1-R05"}
    grouped = [{**STUDIO[0], "data": {"text": "glowing ember", "patient": "p7"}}]
    assert read(tmp_path, grouped, wanted).tasks[0].item.example.group == "p7"


@pytest.mark.parametrize(
    "value",
    [[], {}, [1, 2], [{"text": "a", "label": "b"}], [{"data": {"text": "a"}}], "text", None],
)
def test_other_files_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match="no export of Label Studio or Argilla"):
        read(tmp_path, value)


def test_broken_files_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(STUDIO[0]) + "\n{half\n")
    with pytest.raises(DataError, match=r"e\.jsonl:2: not valid JSON"):
        read_export(path, COLOURS)
    with pytest.raises(DataError, match="no such file"):
        read_export(tmp_path / "none.json", COLOURS)
