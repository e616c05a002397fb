"""Logs of other tools become records; records become files that other tools and training read."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.errors import ConfigError, DataError
from tutelage.data.split import side_of
from tutelage.feedback.log_formats.facts import Names
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.feedback.logs import convert_logs, import_logs, log_reading
from tutelage.workflows.feedback.logs_export import Chosen, export_logs, follow, tail

OPENPIPE = {
    "input": {"model": "m1", "user": "zoe", "messages": [{"role": "user", "content": "embers"}]},
    "output": {
        "id": "cmpl-1", "model": "m1", "object": "chat.completion", "created": 1702666185,
        "usage": {"prompt_tokens": 4, "completion_tokens": 5},
        "choices": [{"message": {"role": "assistant", "content": "warm"}}],
    },
    "tags": {},
}  # fmt: skip
LANGFUSE = {
    "id": "o1", "traceId": "t", "type": "GENERATION", "startTime": "2026-01-01T00:00:00Z",
    "endTime": "2026-01-01T00:00:02Z", "userId": "kim", "sessionId": "s1", "model": "gpt-x",
    "input": [{"role": "user", "content": "frost"}],
    "output": {"role": "assistant", "content": "cold"},
    "usageDetails": {"input": 7, "output": 3},
    "scores": [{"name": "user-feedback", "value": 1}, {"name": "Help ful", "value": 0.4}],
}  # fmt: skip
LATITUDE = (
    "thing,output,document_log_id,tokens,duration,created_at,custom_identifier,expected_output\n"
    "lava,cold,77,12,850,2026-02-02T00:00:00Z,conv-1,warm\n"
)
TABLE = (
    "id,question,answer,user,rating,escalated,when,at\n"
    "a1,the sun,warm,ann,5,,x,2026-10-01T10:00:00Z\n"
    "a2,the moon,warm,bob,1,yes,x,2026-10-01T10:01:00Z\n"
)
Make = Callable[..., Path]


def write(path: Path, *rows: Any) -> str:
    text = "".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def project(make_project: Make) -> Any:
    opened = tutelage.open(make_project())
    yield opened
    opened.close()


def records(project: Any) -> dict[str, RecordRow]:
    with project.context.store.session() as session:
        return {row.id: row for row in session.scalars(select(RecordRow))}


def signals(project: Any) -> dict[tuple[str, str], Any]:
    with project.context.store.session() as session:
        return {(s.record, s.kind): s.value["value"] for s in session.scalars(select(SignalRow))}


def test_exports_of_three_tools_become_records_with_their_feedback(
    project: Any, tmp_path: Path
) -> None:
    files = [
        write(tmp_path / "op.jsonl", OPENPIPE, {**OPENPIPE, "output": {"error": "boom"}}),
        write(tmp_path / "lf.jsonl", LANGFUSE),
        write(tmp_path / "lat.csv", LATITUDE),
    ]
    done = project.logs.add(files)
    assert (done.records, done.known, done.skipped, done.rejected) == (3, 0, 1, 0)
    found = records(project)
    pipe, fuse, lat = found["cmpl-1"], found["o1"], found["log-77"]
    assert (pipe.user, pipe.release, pipe.prompt_tokens, pipe.completion_tokens) == (
        "zoe", "m1", 4, 5,
    )  # fmt: skip
    assert (fuse.user, fuse.latency_ms, fuse.prompt_tokens) == ("kim", 2000.0, 7)
    assert (lat.latency_ms, lat.messages[0]["content"]) == (850.0, "lava")
    assert lat.response == '{"family": "cold"}'
    assert all(row.arm == "imported" and row.deployment == "colours" for row in found.values())
    assert signals(project) == {
        ("o1", "rating"): 1.0, ("o1", "help_ful"): 0.4, ("log-77", "edit"): '{"family": "warm"}',
    }  # fmt: skip


def test_the_side_is_that_of_the_gateway_s_keyed_hash(project: Any, tmp_path: Path) -> None:
    lines = [{"id": f"r{i}", "prompt": f"thing {i}", "completion": "warm", "user": f"u{i % 40}"}
             for i in range(200)]  # fmt: skip
    project.logs.add(write(tmp_path / "many.jsonl", *lines))
    key = bytes.fromhex((project.context.workspace.home / "split.key").read_text().strip())
    splits = project.context.config.data.splits
    found = records(project)
    assert all(row.split == side_of(key, str(row.user), splits) for row in found.values())
    assert {row.split for row in found.values()} == {"train", "validation", "test"}


def test_a_label_by_itself_is_kept_in_the_form_of_the_project_s_answers(
    project: Any, tmp_path: Path
) -> None:
    table = "id,prompt,completion,correction\na1,the sun,warm,warm\na2,ice,cool,\n"
    project.logs.add(write(tmp_path / "log.csv", table))
    kept = {name: row.response for name, row in records(project).items()}
    assert kept == {"a1": '{"family": "warm"}', "a2": "cool"}
    assert project.feedback.show("a1")["score"] == 1.0  # the correction confirms the answer


def test_an_answer_that_lacked_the_form_lacks_it_after_export_and_import(
    project: Any, tmp_path: Path
) -> None:
    project.logs.add(write(tmp_path / "log.csv", TABLE))
    with project.context.store.begin() as session:
        session.execute(update(RecordRow).values(response="warm"))
    project.logs.export(tmp_path / "out.jsonl")
    with project.context.store.begin() as session:
        session.execute(delete(RecordRow))
    project.logs.add(tmp_path / "out.jsonl")
    assert {row.response for row in records(project).values()} == {"warm"}


def test_the_same_file_again_adds_nothing(project: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "lf.jsonl", LANGFUSE)
    project.logs.add(file)
    again = project.logs.add(file)
    assert (again.records, again.known) == (0, 1)
    assert len(records(project)) == 1
    assert len(signals(project)) == 2


def test_texts_are_redacted_before_they_are_stored(make_project: Make, tmp_path: Path) -> None:
    root = make_project()
    settings = (root / "tutelage.yaml").read_text() + "deploy: {redact: true}\n"
    (root / "tutelage.yaml").write_text(settings)
    opened = tutelage.open(root)
    said = "call Dr. Kumar on (555) 555-0142"
    row = {"prompt": said, "completion": said, "comment": said, "user": "kumar@example.com"}
    opened.logs.add(write(tmp_path / "log.jsonl", row, {"prompt": said, "completion": None}))
    opened.close()
    kept = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert b"Kumar" not in kept
    assert b"555-0142" not in kept
    assert b"kumar@example.com" not in kept


def test_calls_older_than_the_log_keeps_are_not_stored(make_project: Make, tmp_path: Path) -> None:
    root = make_project()
    settings = (root / "tutelage.yaml").read_text() + "deploy: {log_days: 30}\n"
    (root / "tutelage.yaml").write_text(settings)
    opened = tutelage.open(root)
    rows = [{"prompt": f"text {at}", "completion": "warm", "at": at, "rating": "up"}
            for at in ("2001-01-01", utc_now().isoformat())]  # fmt: skip
    done = opened.logs.add(write(tmp_path / "log.jsonl", *rows))
    assert (done.records, done.known, done.too_old, done.signals) == (1, 0, 1, 1)
    assert len(records(opened)) == 1
    opened.close()


def test_nothing_is_imported_where_no_texts_are_kept(make_project: Make, tmp_path: Path) -> None:
    root = make_project()
    settings = (root / "tutelage.yaml").read_text() + "deploy: {log: none}\n"
    (root / "tutelage.yaml").write_text(settings)
    opened = tutelage.open(root)
    with pytest.raises(ConfigError, match=r"deploy\.log is none"):
        opened.logs.add(write(tmp_path / "lf.jsonl", LANGFUSE))
    opened.close()


def test_ratings_of_another_scale_are_told_and_scaled(project: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "log.csv", TABLE)
    reading = log_reading(project.context).with_columns("question", "answer")
    done = import_logs(project.context, [file], reading)
    assert (done.records, done.feedback_problems) == (2, 1)
    assert "'rating' is 5.0" in str(done.first_feedback)
    reading = log_reading(project.context, names=Names(scale=5)).with_columns("question", "answer")
    done = import_logs(project.context, [file], reading)
    assert done.feedback_problems == 0
    assert signals(project)["a1", "rating"] == 1.0
    with pytest.raises(ConfigError, match="no room"):
        log_reading(None, names=Names(scale=1))


def test_a_log_that_was_read_on_the_wrong_scale_can_be_read_again(
    project: Any, tmp_path: Path
) -> None:
    rows = [f"a{i},thing {i},warm,1,2026-10-01T10:00:{i:02}Z\n" for i in range(20)]
    log = write(tmp_path / "log.csv", "id,question,answer,rating,at\n", *rows)
    project.logs.add(log)
    assert set(signals(project).values()) == {1.0}
    for _ in range(2):
        project.logs.add(log, names=Names(scale=5))
        assert {project.feedback.show(f"a{i}")["score"] for i in range(20)} == {0.0}
    assert project.feedback.summary(since="9999d")["signals"][0]["count"] == 20


def test_a_time_in_milliseconds_is_read(project: Any, tmp_path: Path) -> None:
    row = {"id": "a1", "prompt": "the sun", "completion": "warm"}
    log = write(
        tmp_path / "log.jsonl",
        {**row, "requested_at": 1700000000123},
        {**row, "id": "a2", "requested_at": 1700000000},
    )
    assert project.logs.add(log).records == 2
    kept = {name: kept.at.isoformat() for name, kept in records(project).items()}
    assert kept == {"a1": "2023-11-14T22:13:20.123000+00:00", "a2": "2023-11-14T22:13:20+00:00"}


def test_what_was_not_asked_or_not_answered_is_no_row_to_tune_on(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log.csv", "prompt,completion,edit\nice,cold,\nfire,,\n,warm,\nsun,,warm\n"
    )
    done = convert_logs([log], tmp_path / "tune.jsonl")
    assert (done["rows"], done["edited"], done["empty"]) == (2, 1, 2)
    log = write(tmp_path / "log.csv", "prompt,completion\nice,\n")
    with pytest.raises(DataError, match="none of the 1 calls has both"):
        convert_logs([log], tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_what_is_written_comes_back_as_it_was(project: Any, tmp_path: Path) -> None:
    project.logs.add([write(tmp_path / "lf.jsonl", LANGFUSE), write(tmp_path / "l.csv", LATITUDE)])
    for name in ("out.jsonl", "out.csv"):
        done = project.logs.export(tmp_path / name)
        assert done.rows == 2
        again = project.logs.add(tmp_path / name)
        assert (again.records, again.known, again.rejected) == (0, 2, 0)
    with (tmp_path / "out.csv").open(newline="") as stream:
        first = next(csv.DictReader(stream))
    assert (first["id"], first["user"], json.loads(first["feedback"])[0]["kind"]) == (
        "o1", "kim", "help_ful",
    )  # fmt: skip
    assert len(signals(project)) == 3


def test_only_good_answers_of_the_train_side_are_written_to_learn(
    project: Any, tmp_path: Path
) -> None:
    words = [hashlib.sha256(f"{i}".encode()).hexdigest() for i in range(120)]
    lines = [
        {"id": f"r{i}", "prompt": words[i], "completion": "warm",
         "rating": ("up", "down", None)[i % 3], "edit": "cold" if i % 7 == 0 else None}
        for i in range(120)
    ]  # fmt: skip
    project.logs.add(write(tmp_path / "many.jsonl", *lines))
    done = project.logs.export(tmp_path / "tune.jsonl", format="tuning", prompt=True)
    found = records(project)
    rows = [json.loads(line) for line in (tmp_path / "tune.jsonl").read_text().splitlines()]
    said = {row["messages"][1]["content"]: row["messages"][-1]["content"] for row in rows}
    sides = {row.messages[0]["content"]: row.split for row in found.values()}
    assert {sides[text] for text in said} == {"train"}
    good = {line["prompt"] for line in lines if line["edit"] or line["rating"] == "up"}
    assert set(said) <= good
    edited = {line["prompt"] for line in lines if line["edit"]} & set(said)
    assert {said[text] for text in edited} == {'{"family": "cold"}'}
    assert done.edited == len(edited) > 0
    assert rows[0]["messages"][0]["role"] == "system"
    assert done.left_out["held out: validation or test side"] > 0
    with pytest.raises(DataError, match="test rows can't be tuned on"):
        export_logs(
            project.context, tmp_path / "x.jsonl", format="tuning", chosen=Chosen(side="test")
        )


def test_a_failed_request_that_a_person_corrected_is_written_to_learn(
    project: Any, tmp_path: Path
) -> None:
    call = {"prompt": "lava", "completion": "", "status": 422, "user": "u"}
    log = write(tmp_path / "log.jsonl", {**call, "id": "a1", "edit": "warm"}, {**call, "id": "a2"})
    project.logs.add(log)
    with project.context.store.begin() as session:
        session.execute(update(RecordRow).values(split="train"))
    for form in ("tuning", "openai"):
        done = project.logs.export(tmp_path / f"{form}.jsonl", format=form)
        assert (done.rows, done.edited, done.left_out) == (1, 1, {"without an answer": 1})
        row = json.loads((tmp_path / f"{form}.jsonl").read_text())
        assert row["messages"][-1]["content"] == '{"family": "warm"}'


def test_a_twin_of_a_twin_of_a_held_out_row_is_not_written_to_learn(
    project: Any, tmp_path: Path
) -> None:
    asked = ["my refund has not come to me", "my refund has not come to us yet",
             "oh my refund has not come to us yet now", "another thing altogether"]  # fmt: skip
    lines = [{"id": f"r{i}", "prompt": text, "completion": "warm", "edit": "cold"}
             for i, text in enumerate(asked)]  # fmt: skip
    project.logs.add(write(tmp_path / "few.jsonl", *lines))
    with project.context.store.begin() as session:
        session.execute(update(RecordRow).values(split="train"))
        session.execute(update(RecordRow).where(RecordRow.id == "r0").values(split="test"))
    project.logs.export(tmp_path / "tune.jsonl", format="tuning")
    (row,) = map(json.loads, (tmp_path / "tune.jsonl").read_text().splitlines())
    assert row["messages"][0]["content"] == asked[3]
    assert records(project)["r2"].split == "test"


def test_logs_become_rows_to_tune_on_in_one_command(tmp_path: Path) -> None:
    file = write(tmp_path / "latitude.csv", LATITUDE)
    target = tmp_path / "tune.jsonl"
    ran = CliRunner().invoke(app, ["logs", "convert", file, "-o", str(target), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["edited"] == 1
    assert json.loads(target.read_text()) == {
        "messages": [{"role": "user", "content": "lava"}, {"role": "assistant", "content": "warm"}]
    }
    with pytest.raises(DataError, match="there already"):
        convert_logs([file], target)
    for source, into in ((file, Path(file)), (str(tmp_path), tmp_path / "new.jsonl")):
        with pytest.raises(DataError, match="take the place of a log"):
            convert_logs([source], into, force=True)


@pytest.mark.parametrize("command", [["logs", "convert"], ["data", "import"]])
@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("frage,antwort\nwas ist,so\n", [], "Name the columns with --input and --answer"),
        ("a,b\nx,y\n", ["--input", "c"], "or name another column with --input or --answer"),
        ("a,b\n", [], "Put your rows in the files, or name others"),
        ("a,b\nx,y\n", ["--input", "a", "--answer", "b"], "a → b, as you named them"),
    ],
)
def test_without_a_project_no_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], text: str,
    more: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(text)
    ran = CliRunner().invoke(app, [*command, "log.csv", "-o", "tune.jsonl", *more])
    told = " ".join(ran.output.split())
    assert words in told
    assert "data." not in told
    assert "tutelage.yaml" not in told


def test_calls_that_are_rated_lower_are_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b", "rating": r} for r in ("up", "down", 0.9)]
    file = write(tmp_path / "log.jsonl", *rows)
    done = convert_logs([file], tmp_path / "out.jsonl", min_rating=0.8)
    assert (done["rows"], done["left_out"]) == (2, 1)


def test_a_time_that_nobody_can_read_is_no_matter_where_none_is_needed(
    project: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "log.jsonl", {"prompt": "a", "completion": "b", "date": "10/1/26"})
    assert convert_logs([file], tmp_path / "out.jsonl")["rows"] == 1
    with pytest.raises(DataError, match="the time '10/1/26' is not ISO 8601"):
        project.logs.add(file)


def test_ratings_of_another_scale_are_no_high_ratings(tmp_path: Path) -> None:
    file = write(tmp_path / "log.jsonl", {"prompt": "a", "completion": "b", "rating": 2})
    with pytest.raises(DataError, match="a rating is 2, and ratings go from 0"):
        convert_logs([file], tmp_path / "out.jsonl", min_rating=0.8)
    assert not (tmp_path / "out.jsonl").exists()
    reading = log_reading(None, names=Names(scale=5))
    with pytest.raises(DataError, match="none of the 1 calls"):
        convert_logs([file], tmp_path / "out.jsonl", reading, min_rating=0.8)


def test_tail_and_follow_show_what_came_last(project: Any, tmp_path: Path) -> None:
    project.logs.add([write(tmp_path / "l.csv", LATITUDE), write(tmp_path / "l.jsonl", OPENPIPE)])
    assert [row["id"] for row in tail(project.context)] == ["cmpl-1", "log-77"]
    assert [row["id"] for row in tail(project.context, 1)] == ["log-77"]
    coming = follow(
        project.context, ["cmpl-1", "log-77"],
        wait=lambda _: project.logs.add(write(tmp_path / "new.jsonl", LANGFUSE)),
    )  # fmt: skip
    assert next(coming)["id"] == "o1"


def test_a_broken_row_costs_itself_alone_and_has_a_place(
    project: Any, make_project: Make, tmp_path: Path
) -> None:
    file = write(tmp_path / "log.jsonl", LANGFUSE, "{half\n", {**LANGFUSE, "startTime": "soon"})
    root = str(project.context.workspace.root)
    ran = CliRunner().invoke(app, ["logs", "import", file, "-p", root])
    assert ran.exit_code == 2
    assert "2 rows can't be used, the others are kept; first:" in ran.output
    assert len(records(project)) == 1
    ran = CliRunner().invoke(app, ["logs", "export", "-o", str(tmp_path / "x.bin"), "-p", root])
    assert "names no format" in ran.output


def test_an_import_of_no_file_at_all_says_so(project: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file is named"):
        project.logs.add([])
    with pytest.raises(DataError):
        convert_logs([], tmp_path / "out.jsonl")


def test_a_column_that_no_row_has_is_told_before_anything_is_kept(
    project: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "log.csv", TABLE)
    with pytest.raises(DataError, match="no row has a field 'who'"):
        project.logs.add(file, names=Names(user="who", scale=5), input="question", answer="answer")
    assert records(project) == {}
    done = project.logs.add(file, names=Names(scale=5), input="question", answer="answer")
    assert (done.records, records(project)["a1"].user) == (2, "ann")


def test_the_project_s_group_is_taken_where_a_log_has_it(
    make_project: Make, tmp_path: Path
) -> None:
    root = make_project()
    settings = (root / "tutelage.yaml").read_text() + "  splits: {group: case}\n"
    (root / "tutelage.yaml").write_text(settings)
    opened = tutelage.open(root)
    rows = [{"id": f"r{i}", "prompt": f"thing {i}", "completion": "warm", "case": "c1"}
            for i in range(9)]  # fmt: skip
    assert opened.logs.add(write(tmp_path / "with.jsonl", *rows)).records == 9
    assert opened.logs.add(write(tmp_path / "without.jsonl", LANGFUSE)).records == 1
    assert len({row.group_key for row in records(opened).values()}) == 2
    opened.close()
