"""Answers drawn besides the greedy one, likelihoods and choices: journalled, resumable, scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.scorer_rows import asked

from tutelage.core.config import Project
from tutelage.core.errors import ConfigError
from tutelage.core.example import Example, Message
from tutelage.evaluation.candidates import make_candidates
from tutelage.evaluation.rows import Journal, RowResult
from tutelage.evaluation.runner import Bench, run
from tutelage.evaluation.scorers.apply import score_rows
from tutelage.evaluation.task import Task, check_scorers, make_task, metrics_of

ROWS = [asked(f"answer {i}", f"question {i}", choices=["x", f"answer {i}"]) for i in range(5)]
RIGHT = {row.input_text: row.answer or "" for row in ROWS}


def project(**evaluate: Any) -> Project:
    values = {"name": "p", "task": "qa", "model": "demo", "evaluate": evaluate}
    return Project.model_validate(values)


def task_of(config: Project, rows: Sequence[Example] = ROWS) -> Task:
    return make_task(config, rows[:1], rows, lambda item: item, lambda text: len(text.split()))


def answered(config: Project, path: Path, engine: FakeEngine) -> tuple[Task, Journal]:
    task = task_of(config)
    journal = Journal(path)
    candidates = make_candidates(task, few_shot=0, tuned=True)
    run(task, candidates, Bench(engine, Path("adapter"), 2), journal)
    return task, journal


def test_draws_have_a_temperature_and_seeds_of_their_own(tmp_path: Path) -> None:
    engine = FakeEngine(RIGHT, RIGHT)
    _, journal = answered(project(samples=2, temperature=0.6), tmp_path / "rows.jsonl", engine)
    decodings = [p.decoding for p in engine.prompts]
    assert len(decodings) == 2 * 3 * len(ROWS)  # two candidates, three answers a row
    assert {d.temperature for d in decodings} == {0.0, 0.6}
    assert len({d.seed for d in decodings}) == 3
    row = journal.any("tuned", ROWS[0].id)
    assert row is not None and row.detail["samples"] == ["answer 0", "answer 0"]
    assert (row.text, row.sample) == ("answer 0", 0)


def test_a_killed_run_draws_only_what_is_missing(tmp_path: Path) -> None:
    config = project(samples=2)
    first = FakeEngine(RIGHT, RIGHT, dies_after=11)
    with pytest.raises(KeyboardInterrupt):
        answered(config, tmp_path / "rows.jsonl", first)
    second = FakeEngine(RIGHT, RIGHT)
    answered(config, tmp_path / "rows.jsonl", second)
    whole = FakeEngine(RIGHT, RIGHT)
    answered(config, tmp_path / "other.jsonl", whole)
    assert first.calls + second.calls == whole.calls and len(whole.calls) == 18
    assert (tmp_path / "rows.jsonl").read_text() == (tmp_path / "other.jsonl").read_text()


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = asdict(RowResult("base", ROWS[0].id, "old", "stop"))
    del line["sample"]
    path.write_text(json.dumps(line) + "\n")
    row = Journal(path).get("base", ROWS[0].id)
    assert row is not None and (row.text, row.sample, row.detail) == ("old", 0, {})


def test_a_failed_draw_is_asked_again_and_no_answer_meanwhile(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.append([RowResult("base", "a", "greedy", "stop")])
    journal.append([RowResult("base", "a", "", "error", sample=1)])
    journal.append([RowResult("base", "a", "two", "stop", sample=2)])
    assert journal.get("base", "a", 1) is None
    row = journal.any("base", "a")
    assert row is not None and row.detail["samples"] == [None, "two"]


def test_the_likelihood_of_references_is_noted_where_a_metric_reads_it(tmp_path: Path) -> None:
    config = project(scorers=["perplexity"])
    engine = FakeEngine(RIGHT, RIGHT)
    task, journal = answered(config, tmp_path / "rows.jsonl", engine)
    found = {row.id: journal.any("base", row.id) for row in ROWS}
    assert all(row and row.detail["reference_tokens"] == 3 for row in found.values())
    scores = score_rows(
        task.scorers(config)["perplexity"], ROWS, {k: v for k, v in found.items() if v}
    )
    assert all(s.value is not None and 0 < s.value <= 1 for s in scores.values())
    _, other = answered(project(), tmp_path / "other.jsonl", FakeEngine(RIGHT, RIGHT))
    row = other.any("base", ROWS[0].id)
    assert row is not None and row.detail == {}


def test_raw_text_is_weighed_and_nothing_is_written(tmp_path: Path) -> None:
    rows = [Example(messages=(Message(role="assistant", content=t),)) for t in ("one two", "three")]
    config = Project.model_validate({"name": "p", "task": "text", "model": "demo"})
    task = task_of(config, rows)
    engine = FakeEngine({}, {})
    journal = Journal(tmp_path / "rows.jsonl")
    run(task, make_candidates(task, few_shot=0, tuned=False), Bench(engine), journal)
    assert engine.calls == [] and task.primary == "perplexity"
    answers = {row.id: journal.any("base", row.id) for row in rows}
    scores = score_rows(
        task.scorers(config)["perplexity"], rows, {k: v for k, v in answers.items() if v}
    )
    assert scores[rows[0].id].evidence["tokens"] == 2


def test_choices_of_a_row_are_a_list_to_choose_from(tmp_path: Path) -> None:
    config = project(scorers=["multiple_choice"], primary="multiple_choice")
    engine = FakeEngine(dict.fromkeys(RIGHT, "x"), RIGHT)
    task, journal = answered(config, tmp_path / "rows.jsonl", engine)
    assert task.answers(ROWS[3]) == ("x", "answer 3")
    scorer = task.scorers(config)["multiple_choice"]
    for name, value in (("base_constrained", 0.0), ("tuned_constrained", 1.0), ("tuned", 1.0)):
        rows = {row.id: journal.any(name, row.id) for row in ROWS}
        scores = score_rows(scorer, ROWS, {k: v for k, v in rows.items() if v})
        assert {s.value for s in scores.values()} == {value}
    picked = journal.any("tuned_constrained", ROWS[0].id)
    assert picked is not None and picked.finish == "chosen" and picked.detail["sure"] > 0.9


def test_metrics_asked_for_stand_beside_those_of_the_task() -> None:
    config = project(
        scorers=[
            "bleu",
            {"name": "length", "as": "short", "at_most": 5},
            {"name": "length", "as": "long", "at_least": 2},
            {"name": "exact_match"},
        ],
        primary="short",
    )
    assert metrics_of(config) == ("short", "exact_match", "chrf", "bleu", "long")
    scorers = task_of(config).scorers(config)
    assert [scorers[name].score(ROWS[0], "a b c").value for name in ("short", "long")] == [1, 1]


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        ([{"as": "x"}], "each scorer is a name, or a mapping with the key name"),
        (["bleu", "bleu"], "'bleu' stands there twice; give one another name with as"),
        ([{"name": "length", "as": "a b"}], "'a b' can't stand in a report"),
    ],
)
def test_a_list_of_scorers_that_cannot_be_read(scorers: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project(scorers=scorers)


def test_scorers_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("def one(text): return 1\n")
    config = project(scorers=["chrf", {"name": "function", "as": "one", "call": "rules.py:one"}])
    first = check_scorers(config, tmp_path)
    (tmp_path / "rules.py").write_text("def one(text): return 2\n")
    assert first.keys() == {"one"} and check_scorers(config, tmp_path) != first
    wrong: Callable[..., Any] = lambda **more: check_scorers(project(**more), tmp_path)  # noqa: E731
    with pytest.raises(ConfigError, match=r"^evaluate.scorers, entry 2: .*'at_mots'"):
        wrong(scorers=["bleu", {"name": "length", "at_mots": 3}])
    with pytest.raises(ConfigError, match=r"^evaluate.primary: 'acuracy' is not one of"):
        wrong(primary="acuracy")
