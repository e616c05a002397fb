"""What a verdict means and what to do next."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.evaluation.report_documents import classification

from tutelage.evaluation.report_verdict import (
    meaning,
    more_rows,
    next_steps,
    rows_to_see,
    rows_to_settle,
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return classification(60)


def open_criterion(name: str, **figures: Any) -> dict[str, Any]:
    return {"name": name, "outcome": "not_enough_evidence", "sentence": "", "figures": figures}


def with_criteria(document: dict[str, Any], outcome: str, *criteria: dict[str, Any]) -> list[str]:
    verdict = {"outcome": outcome, "sentence": "", "criteria": list(criteria)}
    return next_steps({**document, "verdict": verdict})


def test_fifty_rows_that_see_eleven_points_want_five_times_as_many() -> None:
    found = more_rows(open_criterion("better than base", n=50, detectable=0.11, estimate=0.04))
    assert "you need about 250 test rows to see 5 points; there are 50" in found


def test_rows_grow_with_the_square_of_the_difference() -> None:
    assert rows_to_see({"n": 100, "detectable": 0.1}) == (0.05, 400)
    assert rows_to_see({"n": 400, "detectable": 0.05, "estimate": 0.02}) == (0.02, 2500)
    assert rows_to_see({"n": 100, "detectable": None}) is None
    assert rows_to_see({}) is None


def test_what_would_settle_a_limit() -> None:
    figures = {"n": 129, "estimate": 0.01, "limit": 0.02, "detectable": 0.03}
    assert rows_to_settle(figures) == 1161
    found = more_rows(open_criterion("keeps general knowledge", **figures))
    assert "about 1,161 general questions would settle it; there were 129" in found
    assert rows_to_settle({**figures, "estimate": 0.02}) is None


def test_the_criterions_own_figure_is_repeated() -> None:
    criterion = open_criterion("not worse than stable", n=60, limit=-0.05, estimate=0.0)
    criterion["sentence"] = "accuracy: …; if it holds, about 1,234 rows would show it"
    assert "about 1,234 rows would settle it" in more_rows(criterion)


def test_a_pass_is_released_carefully(document: dict[str, Any]) -> None:
    steps = with_criteria(document, "pass")
    assert steps[0].startswith("Look at the ") and "`evaluate.must_pass`" in steps[0]
    assert any("tutelage rollout start" in step for step in steps)
    one = {**document, "changed": {**document["changed"], "counts": {"broken": 1}}}
    assert with_criteria(one, "pass")[0].startswith("Look at the row that got worse")


def test_each_way_to_fail_has_its_advice(document: dict[str, Any]) -> None:
    for name, said in (
        ("better than base", "tutelage data curve"),
        ("keeps general knowledge", "train.replay"),
        ("answers in time", "slower than the limit"),
        ("not worse than stable", "keep what you serve now"),
        ("must-pass rows", "Rows that must pass fail: `3f9a1c22`"),
        ("accuracy at least 80.0 %", "Mend “accuracy at least 80.0 %”: why."),
    ):
        failed = {"name": name, "outcome": "fail", "sentence": "why",
                  "figures": {"failed": ["3f9a1c22"]}}  # fmt: skip
        assert any(said in step for step in with_criteria(document, "fail", failed))


def test_the_meaning_names_the_difference_and_its_interval(document: dict[str, Any]) -> None:
    first, second = meaning(document)
    assert first.startswith("Accuracy: ") and "with 95 % confidence the true difference" in first
    assert "general questions it answers" in second
    assert meaning({"rows": 3}) == []
