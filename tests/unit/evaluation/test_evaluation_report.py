"""What a person reads: the text, the page and the document they are drawn from."""

from __future__ import annotations

import json
import re

import html5lib
import pytest
from tests.unit.evaluation.evaluation_rows import FORMAT, PROJECT, colour_task, example, examples

from tutelage.core.artifact import finite
from tutelage.core.config import Guards
from tutelage.evaluation import report, report_html, report_text
from tutelage.evaluation.forgetting import ProbeResult, compare, probes
from tutelage.evaluation.gate import Evidence, decide
from tutelage.evaluation.report_changes import SHOWN
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scoring import differences, score_candidate
from tutelage.evaluation.task import Task, make_task

HOSTILE = "<script>alert(1)</script> & 'quotes'"


def task_with_a_hostile_row() -> Task:
    test = [*examples("new", 19), example(HOSTILE, "warm")]
    return make_task(PROJECT, examples("old", 8), test, lambda item: item, len)


def make(task: Task, right: dict[str, int]) -> dict[str, object]:
    """A report in which each candidate has its first rows right and breaks the last."""
    scored = {}
    for name, correct in right.items():
        answers = {}
        for i, row in enumerate(task.rows):
            text = (row.answer or "") if i < correct else HOSTILE
            finish = "stop" if i % 5 else "length"
            finish = "chosen" if name == "tfidf" else finish
            answers[row.id] = RowResult(name, row.id, text, finish, 9, 0, 4, 100.0 + i, i // 4)
        scored[name] = score_candidate(task, task.scorers(PROJECT), answers, (name, f"the {name}"))
    forgotten = None
    if "tuned" in scored:
        before = [[0.7, 0.1, 0.1, 0.1]] * len(probes())
        after = [[0.1, 0.7, 0.1, 0.1], *before[1:]]
        texts = ([30.0] * 40, [10] * 40)
        forgotten = compare(ProbeResult(before, *texts), ProbeResult(after, *texts))
    evidence = Evidence("accuracy", 0.95, scored, differences(task, scored), forgotten)
    verdict = decide(evidence, Guards())
    return report.build(report.Findings("colours", task, evidence, verdict, 4, 0))


@pytest.fixture(scope="module")
def document() -> dict[str, object]:
    return make(task_with_a_hostile_row(), {"base": 1, "few_shot": 4, "tuned": 18, "tfidf": 19})


def test_the_document_is_json_and_holds_the_headline(document: dict) -> None:
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again["verdict"]["outcome"] == "pass"
    assert again["primary"]["against"] == "few_shot"
    assert (again["primary"]["base"], again["primary"]["tuned"]) == (0.05, 0.9)
    assert 0 < again["primary"]["difference_low"] < 0.7 < again["primary"]["difference_high"]
    assert again["forgetting"]["number"] == pytest.approx(1 / len(probes()))


def test_rows_are_sorted_by_what_tuning_did(document: dict) -> None:
    assert document["changed"]["counts"] == {
        "fixed": 14,
        "broken": 0,
        "both_wrong": 2,
        "both_right": 4,
    }
    assert len(document["changed"]["fixed"]) == 14 < SHOWN
    wrong = document["changed"]["both_wrong"][-1]
    assert wrong["input"] == HOSTILE and wrong["answers"]["tuned"] == HOSTILE


def test_a_rival_without_tuning_that_wins_is_named(document: dict) -> None:
    assert any(
        note.startswith("TF-IDF + logistic regression, trained on the same rows, scores higher")
        and "95 % against 90 %" in note
        for note in document["notes"]
    )
    assert any("ran into the limit" in note for note in document["notes"])


def test_the_text_says_the_verdict_then_the_criteria_then_what_was_forgotten(
    document: dict,
) -> None:
    lines = report_text.lines(document)
    assert lines[0].startswith("The tuned model is better than the base model")
    assert lines[1].startswith("✓ accuracy: tuned 90 % vs base 5 %: +85 points")
    assert any(line.startswith("it forgot 1 of 129 general questions") for line in lines)
    assert "rows: 14 fixed, 0 broken, 2 wrong before and after" in lines
    headers, rows = report_text.score_table(document)
    assert headers[:2] == ["candidate", "accuracy"] and len(rows) == 4
    assert "the tuned" in report_text.as_text(document)


def test_the_page_is_self_contained_and_everything_is_escaped(document: dict) -> None:
    page = report_html.as_html(document)
    assert page.count("<script") == 1 and "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=['\"]?https?:", page)
    for heading in ("What decided", "What it forgot", "Row by row", "Class by class"):
        assert heading in page
    assert probes()[0].stem in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_has_no_parse_error(document: dict) -> None:
    html5lib.HTMLParser(strict=True).parse(report_html.as_html(document))


def test_a_report_of_the_base_alone_is_a_report() -> None:
    alone = make(colour_task(), {"base": 2, "few_shot": 3})
    assert alone["primary"]["tuned"] is None and alone["primary"]["difference_low"] is None
    page = report_html.as_html(alone)
    assert "There is no tuned model yet" in page and "What it forgot" not in page
    assert report_text.as_text(alone)


def test_numbers_that_json_lacks_become_null() -> None:
    clean = finite({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (1, 2)}})
    assert clean == {"a": None, "b": [None, 1.5], "c": {"d": [1, 2]}}


def test_the_answer_is_shown_as_it_was_written(document: dict) -> None:
    assert FORMAT.render("warm").replace('"', "&quot;") in report_html.as_html(document)
