"""Feedback by file, command line and Python: what is kept, what is refused, what it adds up to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.project import Project

SETTINGS = """
name: colours
task: classification
model: demo
output: {field: family, labels: [warm, cold]}
deploy: {redact: true}
feedback:
  signals:
    stars: {kind: number, between: [1, 5], explicit: true}
    case: {kind: text, direction: none}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "tutelage.yaml").write_text(SETTINGS)
    opened = tutelage.open(tmp_path)
    yield opened
    opened.context.store.close()


def count(project: Project) -> int:
    with project.context.store.session() as session:
        return session.query(SignalRow).count()


def add_record(project: Project, name: str, release: str = "r1", **more: Any) -> None:
    fields = {
        "deployment": "d", "release": release, "arm": "stable", "split": "train",
        "group_key": "g", "messages": [{"role": "user", "content": "ice"}], "response": "cold",
        "finish_reason": "stop", "status": 200, "latency_ms": 1, "prompt_tokens": 1,
        "completion_tokens": 1, "checks": {}, "at": utc_now(),
    }  # fmt: skip
    with project.context.store.begin() as session:
        session.add(RecordRow(id=name, **{**fields, **more}))


def run(project: Project, *arguments: str) -> Any:
    home = str(project.context.workspace.root)
    return CliRunner().invoke(app, ["feedback", *arguments, "-p", home])


def test_a_file_is_kept_line_by_line_and_twice_is_once(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    lines = [
        {"record_id": "rec_1", "rating": "up", "author": "bo"},
        {"record_id": "rec_1", "rating": "great"},
        {"record_id": "rec_2", "edit": "cold", "signals": {"stars": 4, "reslved": 1}},
        {"record_id": "rec_2", "comment": "a", "idempotency_key": "k"},
        {"record_id": "rec_2", "comment": "b", "idempotency_key": "k"},
    ]
    path.write_text("\n".join([*map(json.dumps, lines), "", "{", "[1]"]))
    found = project.feedback.import_file(path)
    assert (found["deliveries"], found["signals"], found["unknown"]) == (3, 5, 2)
    assert found["undeclared"] == {"reslved": 1}
    problems = {one["line"]: one["problem"] for one in found["first"]}
    assert set(problems) == {2, 5, 7, 8}
    assert problems[5] == "its idempotency key came before with other content"
    assert problems[7] == "not JSON."
    again = project.feedback.import_file(path)
    assert (again["signals"], again["repeated"]) == (0, 5)
    assert count(project) == 5


def test_a_script_notices_lines_that_were_not_kept(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('{"record_id": "rec_1", "rating": 1}\n{"record_id": "rec_1", "rating": 7}\n')
    result = run(project, "import", str(path), "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["wrong"] == 1
    assert "1 line was not kept, the others are" in result.stderr
    path.write_text('{"record_id": "rec_1", "rating": 1}\n')
    assert run(project, "import", str(path)).exit_code == 0


def test_a_file_that_comes_again_does_not_outrank_what_was_said_since(
    project: Project, tmp_path: Path
) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('{"record_id": "rec_1", "rating": 1}')
    project.feedback.import_file(path)
    project.feedback.add("rec_1", rating=0)
    project.feedback.import_file(path)
    assert project.feedback.show("rec_1")["score"] == 0.0


def test_columns_of_a_table_are_fields_or_signals(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    path.write_text(
        "record_id,rating,comment,stars,resolved,ticket\n"
        'rec_1,0.5,"well, ok",4,TRUE,T-7\nrec_2,,,,,\nrec_3,up,,,,,9\n'
    )
    found = project.feedback.import_file(path, author="export")
    assert found["deliveries"] == 1
    assert [one["line"] for one in found["first"]] == [3, 4]
    said = {one["signal"]: one["value"] for one in project.feedback.show("rec_1")["signals"]}
    assert said == {
        "rating": 0.5, "comment": "well, ok", "stars": 4, "resolved": True, "ticket": "T-7"
    }  # fmt: skip


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_the_delimiter_of_a_table_is_found(
    project: Project, tmp_path: Path, delimiter: str
) -> None:
    path = tmp_path / "said.csv"
    path.write_text(delimiter.join(["record_id", "rating"]) + f"\nrec_1{delimiter}up\n")
    assert project.feedback.import_file(path)["signals"] == 1


def test_a_gap_that_a_table_writes_as_nan_is_no_number(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    path.write_text("record_id,rating,ticket\nrec_1,up,nan\n")
    assert project.feedback.import_file(path)["signals"] == 2


def test_a_signal_that_is_text_keeps_its_zeros(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    path.write_text("record_id,case\nrec_1,0042\n")
    assert project.feedback.import_file(path)["deliveries"] == 1
    assert run(project, "add", "rec_2", "--signal", "case=true").exit_code == 0
    log = tmp_path / "log.csv"
    log.write_text("id,prompt,completion,case\nrec_3,ice,cold,007\n")
    project.logs.add(log)
    said = {one["record"]: one["value"] for one in project.feedback.recent()}
    assert said == {"rec_1": "0042", "rec_2": "true", "rec_3": "007"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"rating": 1}\n', "none of the 1 lines can be used; first: 'record_id'"),
        ("a.jsonl", "", "the file is empty"),
        ("a.csv", "id,rating\n1,1\n", "there is no column record_id"),
        ("a.csv", "record_id,rating,rating\n1,up,down\n", "there are two columns 'rating'"),
        ("a.xlsx", "", "feedback is not read from .xlsx"),
    ],
)
def test_a_file_that_is_no_feedback_is_one_clear_sentence(
    project: Project, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError):
        project.feedback.import_file(tmp_path / name)
    result = run(project, "import", str(tmp_path / name))
    assert result.exit_code == 2
    assert message in result.stderr


def test_texts_are_redacted_before_they_are_kept(project: Project) -> None:
    mail = "write to anna.smith@example.com"
    project.feedback.add("rec_1", comment=mail, signals={"note": mail}, author="bo@example.com")
    with project.context.store.session() as session:
        rows = list(session.query(SignalRow))
    assert len(rows) == 2
    assert all("example.com" not in f"{row.value}{row.author}" for row in rows)


def test_people_whose_names_are_redacted_stay_different_people(
    project: Project, tmp_path: Path
) -> None:
    """Also to be counted as two who say the same, and to be found when one is forgotten."""
    add_record(project, "rec_1", user="zoe@example.com")
    add_record(project, "rec_2", user="ann@example.com")
    project.feedback.add("rec_2", rating=1, author="ann@example.com")
    assert (
        run(project, "add", "rec_2", "--rating", "0", "--author", "bo@example.com").exit_code == 0
    )
    (tmp_path / "said.jsonl").write_text('{"record_id": "rec_2", "rating": 0.5}')
    project.feedback.import_file(tmp_path / "said.jsonl", author="zoe@example.com")
    said = project.feedback.show("rec_2")
    assert len({one["author"] for one in said["signals"]}) == 3
    assert said["score"] == 0.5
    assert "example.com" not in str(said["signals"])
    project.privacy.forget("zoe@example.com")
    assert len(project.feedback.show("rec_2")["signals"]) == 2


def test_the_command_line_gives_shows_and_sums_up(project: Project) -> None:
    add_record(project, "rec_1")
    add_record(project, "rec_2", release="r2")
    assert run(project, "add", "rec_1", "--rating", "up", "--signal", "reslved").stdout == (
        "kept: rating, reslved on rec_1\n"
        "! reslved is not declared, it counts nothing; did you mean resolved?\n"
    )
    added = run(project, "add", "rec_2", "--signal", "stars=2", "--edit", "warm", "--json")
    assert json.loads(added.stdout)["known"] is True
    assert "score: 1.00 (0 bad, 1 good)" in run(project, "show", "rec_1").stdout
    found = json.loads(run(project, "summary", "--json").stdout)
    assert (found["records"], found["scored"], found["score"]) == (2, 2, 0.5625)
    assert [one["release"] for one in found["releases"]] == ["r1", "r2"]
    assert found["releases"][1]["score"] == 0.125
    listed = json.loads(run(project, "list", "--kind", "stars", "--json").stdout)
    assert [one["value"] for one in listed["signals"]] == [2]
    assert "stars" in run(project, "signals").stdout
    assert run(project, "traffic").stdout.startswith("0 records")


def test_twins_move_from_the_command_line(project: Project) -> None:
    add_record(project, "rec_1", split="test")
    add_record(project, "rec_2")
    assert "1 record moved out of training now" in run(project, "sides").stdout
    shown = json.loads(run(project, "sides", "--no-look", "--json").stdout)
    assert [(one["record"], one["to"]) for one in shown["records"]] == [("rec_2", "test")]
    assert project.feedback.hold_apart()["moved"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feedback: {signals: {Stars: {}}}", "Stars"),
        ("feedback: {signals: {rating: {direction: down}}}", "only the weight can be set"),
        ("feedback: {signals: {a: {between: [2, 1]}}}", "two rising numbers"),
        ("feedback: {signals: {a: {kind: text, direction: up}}}", "text has no direction"),
        ("feedback: {retry_within: 2h}", "retry_within is longer than session"),
        ("feedback: {signals: {a: {weight: -1}}}", "weight"),
    ],
)
def test_settings_that_make_no_sense_are_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tutelage.yaml").write_text(f"name: colours\nmodel: demo\n{text}\n")
    result = CliRunner().invoke(app, ["feedback", "signals", "-p", str(tmp_path)])
    assert result.exit_code == 2
    assert message in result.stderr
