"""`tutelage guard`, typed as a person does, and the same from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import tutelage as tt
from tutelage.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    settings: dict[str, Any] = {
        "name": "colours",
        "task": "classification",
        "model": "demo",
        "output": {"field": "family", "labels": ["warm", "cold"]},
        "deploy": {"guards": {"schema": "block", "content": {"answer": {"pii": "block"}}}},
    }
    (tmp_path / "tutelage.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


@pytest.fixture
def run(project: Path) -> Run:
    def call(*words: str) -> Result:
        return CliRunner().invoke(app, ["guard", *words, "--project", str(project)])

    return call


def rows(project: Path, *values: Any, name: str = "rows.jsonl") -> str:
    file = project / name
    file.write_text("\n".join(map(json.dumps, values)) + "\n")
    return str(file)


def test_the_checks_in_force_are_listed(run: Run) -> None:
    shown = run("list").stdout
    assert "checks of a release to come" in shown
    assert "schema      block, streams whole, at the end" in shown
    assert "content     block, streams 128 characters late" in shown
    assert "golden rows: none" in shown
    data = json.loads(run("list", "--json").stdout)
    assert [one["name"] for one in data["guards"]] == ["schema", "content"]


def test_a_file_is_tried_and_exit_1_says_that_something_would_be_blocked(
    run: Run, project: Path
) -> None:
    warm = '{"family": "warm"}'
    file = rows(
        project,
        {"request": "the sun", "answer": warm},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "hot"}]},
        {"input": "you idiot", "output": warm},
    )
    result = run("test", file)
    assert result.exit_code == 1, result.output
    assert "line 2: answer blocked by schema: not JSON" in result.stdout
    assert "line 3: request flagged by content: the request holds a word" in result.stdout
    assert "3 rows: 1 pass, 1 flagged, 1 blocked" in result.stdout
    data = json.loads(run("test", file, "--json").stdout)
    assert {(c["check"], c["side"], c["action"]) for c in data["counts"]} == {
        ("schema", "answer", "block"), ("content.toxicity", "request", "flag"),
    }  # fmt: skip
    good = run("test", rows(project, {"request": "the sun", "answer": warm}))
    assert good.exit_code == 0 and "1 rows: 1 pass" in good.stdout


def test_any_other_file_is_one_request_a_line(run: Run, project: Path) -> None:
    (project / "asked.txt").write_text("the sun\n\nyou idiot\n")
    data = json.loads(run("test", str(project / "asked.txt"), "--json").stdout)
    assert (data["rows"], data["flagged"], data["found"][0]["line"]) == (2, 1, 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nonsense", "rows.jsonl:1: this row can't be read (JSON)"),
        ("[1]", "this row is no JSON object"),
        ('{"answer": "x"}', "this row has no request"),
        ('{"messages": [{"role": "god"}]}', "its messages are not chat turns"),
        ("", "the file is empty"),
    ],
)
def test_rows_that_can_not_be_read_are_one_sentence(
    run: Run, project: Path, text: str, sentence: str
) -> None:
    file = project / "rows.jsonl"
    file.write_text(text + "\n")
    result = run("test", str(file))
    assert result.exit_code == 2 and sentence in result.stderr and "Traceback" not in result.stderr


def test_unknown_files_releases_and_guards_are_one_sentence(run: Run, project: Path) -> None:
    assert "absent.jsonl" in run("test", str(project / "absent.jsonl")).stderr
    assert "there is no release 'v9'" in run("list", "--release", "v9").stderr
    assert "1e+12 hours can't be looked back" in run("report", "--hours", "1e12").stderr
    config = project / "tutelage.yaml"
    config.write_text(config.read_text().replace("schema: block", "shcema: block"))
    result = run("list")
    assert result.exit_code == 2 and "Did you mean 'schema'?" in result.stderr


def test_python_does_the_same(project: Path, run: Run) -> None:
    with_python = tt.open(project).guards
    assert [one["action"] for one in with_python.all()["guards"]] == ["block", "block"]
    found = with_python.test(rows(project, {"request": "the sun", "answer": "hot"}))
    assert found["blocked"] == 1
    assert with_python.report(hours=1) == {"hours": 1, "releases": []}
    assert "no requests were logged in the last 24 hours" in run("report").stdout
