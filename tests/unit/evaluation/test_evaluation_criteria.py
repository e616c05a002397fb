"""Criteria from tutelage.yaml: each kind's three outcomes, its power, correction, and trust."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.evaluation.evaluation_rows import FORMAT, PROJECT, colour_task

from tutelage.core.config import Guards
from tutelage.core.config_criteria import Requirement
from tutelage.evaluation.criterion import Criterion
from tutelage.evaluation.forgetting import ProbeResult, compare
from tutelage.evaluation.gate import Evidence, decide
from tutelage.evaluation.gate_criteria import criteria_of
from tutelage.evaluation.golden import power_sentence
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scoring import Scored, differences, score_candidate

GUARDS = Guards()
TASK = colour_task(test=200)
OTHER = {"warm": "cold", "cold": "warm"}


def scored(name: str, right: Sequence[bool], *, ms: float = 100.0, text: str = "") -> Scored:
    """A candidate that is right where `right` says; `text` replaces its wrong answers."""
    answers = {}
    for i, row in enumerate(TASK.rows):
        wrong = text or FORMAT.render(OTHER[row.label or ""])
        said = FORMAT.render(row.label or "") if right[i] else wrong
        answers[row.id] = RowResult(name, row.id, said, "stop", 5, 0, 3, ms, batch=i // 8)
    return score_candidate(TASK, TASK.scorers(PROJECT), answers, (name, name))


def first(count: int) -> list[bool]:
    return [i < count for i in range(len(TASK.rows))]


def evidence(**candidates: Scored) -> Evidence:
    return Evidence(
        "accuracy", 0.95, candidates, differences(TASK, candidates),
        clusters={row.id: row.id for row in TASK.rows},
    )  # fmt: skip


def judged(found: Evidence, *lines: dict[str, Any]) -> list[Criterion]:
    return criteria_of(found, [Requirement.model_validate(line) for line in lines])


def test_not_worse_has_three_outcomes_and_says_how_many_rows_would_settle_it() -> None:
    stable = scored("stable", first(180))
    line = {"not_worse": {"than": "stable", "by": 0.05}}
    same = evidence(tuned=scored("tuned", first(180)), stable=stable)
    assert judged(same, line)[0].outcome == "pass"
    lost = evidence(tuned=scored("tuned", first(140)), stable=stable)
    assert judged(lost, line)[0].outcome == "fail"
    unsure = judged(evidence(tuned=scored("tuned", first(174)), stable=stable), line)[0]
    assert unsure.outcome == "not_enough_evidence"
    assert unsure.sentence.startswith(
        "accuracy: tuned 87.0 % vs stable 90.0 %: gain −3.0 points, 95 % interval −"
    )
    assert "may lose 5.0 points; smallest detectable difference" in unsure.sentence
    assert "rows would show it" in unsure.sentence


@pytest.mark.parametrize(("right", "outcome"), [(200, "pass"), (150, "fail"),
                                                (190, "not_enough_evidence")])  # fmt: skip
def test_a_bound_is_met_by_the_interval_not_by_the_estimate(right: int, outcome: str) -> None:
    found = evidence(tuned=scored("tuned", first(right)))
    line = {"at_least": {"metric": "accuracy", "value": 0.94}}
    criterion = judged(found, line)[0]
    assert criterion.outcome == outcome and criterion.name == "accuracy at least 94.0 %"


def test_latency_is_judged_by_its_quantile_and_by_its_ratio() -> None:
    found = evidence(
        tuned=scored("tuned", first(200), ms=150), stable=scored("stable", first(200), ms=100)
    )
    limits = judged(
        found,
        {"at_most": {"metric": "latency_p95", "value": 200}},
        {"at_most": {"metric": "latency_p95", "value": 120}},
        {"not_worse": {"metric": "latency_p95", "than": "stable", "times": 1.2}},
        {"not_worse": {"metric": "latency_p95", "than": "stable", "times": 1.6}},
        {"better": {"metric": "latency_p95", "than": "stable"}},
    )
    assert [c.outcome for c in limits] == ["pass", "fail", "fail", "pass", "fail"]
    assert "tuned over stable × 1.50" in limits[2].sentence


def test_too_few_batches_leave_a_time_open_and_rows_asked_alone_do_not() -> None:
    candidates = {}
    for name, ms in (("tuned", 300.0), ("stable", 100.0)):
        one = scored(name, first(200), ms=ms)
        rows = {
            item: replace(row, batch=0, detail={"alone_ms": ms}) for item, row in one.rows.items()
        }
        candidates[name] = replace(one, rows=rows)
    criteria = judged(
        evidence(**candidates),
        {"at_most": {"metric": "latency_p95", "value": 1000}},
        {"not_worse": {"metric": "latency_p95", "than": "stable", "times": 1.2}},
        {"better": {"metric": "latency_p95", "than": "stable"}},
        {"not_worse": {"metric": "alone_p50", "than": "stable", "times": 1.2}},
    )
    assert [c.outcome for c in criteria] == ["not_enough_evidence"] * 3 + ["fail"]
    assert "fewer than 6 batches" in criteria[0].sentence
    assert all(value != float("inf") for c in criteria for value in c.figures.values())


def test_refusals_may_not_become_more_frequent() -> None:
    base = scored("base", first(200))
    shy = scored("tuned", first(150), text="I'm sorry, but I can't help with that.")
    line = {"not_worse": {"metric": "refusals", "than": "base", "by": 0.02}}
    criterion = judged(evidence(tuned=shy, base=base), line)[0]
    assert criterion.outcome == "fail"
    assert "refusals: tuned 25.0 % vs base 0.0 %: gain −25.0 points" in criterion.sentence


def test_claims_beside_the_primary_one_are_corrected_together() -> None:
    """Alone the gain is a claim; among five it is too thin."""
    base, ours = first(100), first(100)
    ours[100:108], ours[:1] = [True] * 8, [False]
    found = evidence(tuned=scored("tuned", ours), base=scored("base", base))
    line = {"better": {"metric": "exact_match", "than": "base"}}
    alone = judged(found, line)[0]
    assert alone.outcome == "pass" and "corrected for 1 claims" in alone.sentence
    many = judged(found, *[line] * 5)
    assert {c.outcome for c in many} == {"not_enough_evidence"}
    primary = judged(found, *[{"better": {"than": "base"}}] * 5)
    assert {c.outcome for c in primary} == {"pass"}


def test_a_metric_that_is_not_trusted_leaves_it_open_and_says_why() -> None:
    found = evidence(tuned=scored("tuned", first(200)))
    found = replace(found, untrusted={"accuracy": "κ is 0.31, below 0.6"})
    criterion = judged(found, {"at_least": {"value": 0.5}})[0]
    assert criterion.outcome == "not_enough_evidence"
    assert criterion.sentence == "accuracy may not decide: κ is 0.31, below 0.6"


def test_the_guards_hold_beside_the_criteria() -> None:
    found = evidence(tuned=scored("tuned", first(200)), base=scored("base", first(100)))
    lines = [Requirement.model_validate({"at_least": {"value": 0.9}})]
    assert decide(found, GUARDS, lines).sentence == (
        "The tuned model meets every criterion and stays within every limit."
    )
    rest = [[0.5] + [0.5 / 3] * 3] * 129, [[0.4] + [0.2] * 3] * 129
    probes = [ProbeResult(chances, [30.0] * 40, [10] * 40) for chances in rest]
    forgot = replace(found, forgetting=compare(*probes))
    assert decide(forgot, GUARDS, lines).sentence.endswith("fails “keeps general knowledge”.")


def test_five_points_gained_do_not_buy_forgetting() -> None:
    """The default gate stops a candidate that gained on the task and lost beyond the limit."""
    base = first(140)
    ours = first(152)
    found = evidence(tuned=scored("tuned", ours), base=scored("base", base))
    chances = [[0.5] + [0.5 / 3] * 3] * 129, [[0.45] + [0.55 / 3] * 3] * 129
    probes = [ProbeResult(given, [30.0] * 40, [10] * 40) for given in chances]
    verdict = decide(replace(found, forgetting=compare(*probes)), GUARDS)
    assert found.comparisons["base"].difference.low > 0.02
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)
    assert verdict.sentence == (
        "The tuned model does not pass: it fails “keeps general knowledge”."
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_candidate_from_flipped_labels_is_failed(seed: int) -> None:
    """One label in ten is wrong in training, so one answer in ten is wrong that was right."""
    draw = np.random.default_rng(seed)
    clean = draw.random(len(TASK.rows)) < 0.9
    flipped = clean & (draw.random(len(TASK.rows)) >= 0.1)
    found = evidence(
        base=scored("base", first(20)),
        few_shot=scored("few_shot", first(60)),
        tuned=scored("tuned", flipped.tolist()),
        stable=scored("stable", clean.tolist()),
    )
    verdict = decide(found, GUARDS)
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)
    assert verdict.sentence.endswith("it fails “not worse than stable”.")


def test_a_loss_for_certain_fails_by_default_however_small() -> None:
    stable, ours = first(200), first(192)
    found = evidence(
        base=scored("base", first(20)), tuned=scored("tuned", ours), stable=scored("stable", stable)
    )
    assert decide(found, GUARDS).outcome == "fail"
    limit = {"not_worse": {"than": "stable", "by": 0.1}}
    assert judged(found, limit)[0].outcome == "pass"


@pytest.mark.parametrize("seed", range(25))
def test_a_candidate_identical_to_the_baseline_is_never_better(seed: int) -> None:
    """Whatever the rows, wherever it is right: no difference, so neither better nor worse."""
    draw = np.random.default_rng(seed)
    right = (draw.random(len(TASK.rows)) < draw.uniform(0.05, 0.95)).tolist()
    twins = {name: scored(name, right) for name in ("base", "few_shot", "tuned", "stable")}
    verdict = decide(evidence(**twins), GUARDS)
    said = {c.name: c.outcome for c in verdict.criteria}
    assert verdict.outcome == "not_enough_evidence"
    assert said["better than base"] == said["better than few-shot"] == "not_enough_evidence"
    assert said["not worse than stable"] == "pass"


def test_a_golden_set_says_what_so_few_rows_can_show() -> None:
    """Between 5 and 20 % of the rows differ: the usual rule of thumb is 9 to 18 points for 50."""
    found = re.fullmatch(
        r"a 50-row golden set can only gate a (\d+)–(\d+)-point regression", power_sentence(50)
    )
    assert found is not None
    low, high = int(found[1]), int(found[2])
    assert 8 <= low <= 12 and 15 <= high <= 19
