"""The verdict: what passes, what fails, what stays open, and the sentence for each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.evaluation.evaluation_rows import PROJECT, colour_task, right_answers

from tutelage.core.config import Guards
from tutelage.core.errors import ConfigError
from tutelage.evaluation import golden
from tutelage.evaluation.forgetting import ProbeResult, compare
from tutelage.evaluation.gate import Evidence, Outcome, better_base, decide, points, within
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scoring import Scored, differences, score_candidate
from tutelage.evaluation.significance import Interval
from tutelage.evaluation.usage import Slowdown

GUARDS = Guards(forgetting=0.02, perplexity=1.10, latency_p95=1.2)
TASK = colour_task(test=60)
RIGHT = right_answers(TASK)


def scored(name: str, correct: int, *, failed: int = 0) -> Scored:
    """A candidate that answers the first `correct` rows right and whose last requests failed."""
    answers = {}
    for i, row in enumerate(TASK.rows):
        text = RIGHT[row.input_text] if i < correct else "cold, I think"
        finish = "error" if i >= len(TASK.rows) - failed else "stop"
        answers[row.id] = RowResult(name, row.id, text, finish, 5, 0, 3, 100.0)
    return score_candidate(TASK, TASK.scorers(PROJECT), answers, (name, name))


def evidence(base: int, few_shot: int, tuned: int, *, failed: int = 0) -> Evidence:
    all_scored = {
        "base": scored("base", base),
        "few_shot": scored("few_shot", few_shot),
        "tuned": scored("tuned", tuned, failed=failed),
    }
    return Evidence("accuracy", 0.95, all_scored, differences(TASK, all_scored))


def test_a_clear_gain_passes_and_the_sentence_carries_the_figures() -> None:
    verdict = decide(evidence(0, 12, 45), GUARDS)
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert verdict.criteria[1].sentence.startswith(
        "accuracy: tuned 75 % vs few-shot 20 %: +55 points, 95 % interval +"
    )
    assert "n = 60; smallest detectable difference " in verdict.criteria[1].sentence


def test_both_bases_must_be_beaten() -> None:
    verdict = decide(evidence(0, 44, 45), GUARDS)
    assert (verdict.outcome, verdict.exit_code) == ("not_enough_evidence", 3)
    assert verdict.criteria[0].outcome == "pass"
    assert verdict.sentence == (
        "The evidence is too thin to decide: “better than few-shot” could go either way."
    )


def test_a_worse_model_fails() -> None:
    verdict = decide(evidence(40, 30, 10), GUARDS)
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)
    assert "−50 points" in verdict.criteria[0].sentence
    assert better_base(evidence(40, 30, 10)) == "base"


def test_without_a_tuned_model_nothing_is_decided() -> None:
    base = scored("base", 5)
    verdict = decide(Evidence("accuracy", 0.95, {"base": base}, {}), GUARDS)
    assert verdict.outcome == "not_enough_evidence"
    assert verdict.sentence.startswith("There is no tuned model yet")


def test_too_many_failed_requests_leave_it_open() -> None:
    few = decide(evidence(0, 0, 50, failed=2), GUARDS)
    assert few.outcome == "pass" and "up to 2 of 60" in few.criteria[-1].sentence
    many = decide(evidence(0, 0, 50, failed=10), GUARDS)
    assert many.outcome == "not_enough_evidence"


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(-0.01, 0.02, "pass"), (0.021, 0.05, "fail"), (0.0, 0.05, "not_enough_evidence")],
)
def test_a_guard_passes_only_if_the_whole_interval_is_within(
    low: float, high: float, outcome: Outcome
) -> None:
    assert within(low, high, 0.02) == outcome


def probes_of(right: float, nll: float) -> ProbeResult:
    """129 questions answered alike: the interval has no width."""
    rest = (1 - right) / 3
    return ProbeResult([[right, rest, rest, rest]] * 129, [nll] * 40, [10] * 40)


def test_forgetting_is_judged_on_knowledge_and_on_language() -> None:
    found = evidence(0, 0, 50)
    kept = replace(found, forgetting=compare(probes_of(0.5, 30), probes_of(0.49, 30.2)))
    assert decide(kept, GUARDS).outcome == "pass"
    lost = replace(found, forgetting=compare(probes_of(0.5, 30), probes_of(0.4, 30)))
    verdict = decide(lost, GUARDS)
    assert verdict.sentence.endswith("it fails “keeps general knowledge”.")
    assert "50.0 % → 40.0 %: −10.0 points" in verdict.criteria[2].sentence
    assert "limit −2; smallest detectable drop" in verdict.criteria[2].sentence
    garbled = replace(found, forgetting=compare(probes_of(0.5, 30), probes_of(0.5, 32)))
    assert decide(garbled, GUARDS).sentence.endswith("it fails “keeps general English”.")


def test_all_that_is_failed_is_named() -> None:
    both = compare(probes_of(0.5, 30), probes_of(0.4, 32))
    verdict = decide(replace(evidence(0, 0, 50), forgetting=both), GUARDS)
    assert verdict.sentence.endswith(
        "it fails “keeps general knowledge” and “keeps general English”."
    )


def test_a_handful_of_rows_says_that_it_can_see_nothing() -> None:
    small = colour_task(test=2)
    answers = right_answers(small)
    rows = {
        name: {r.id: RowResult(name, r.id, answers[r.input_text], "stop", 5, 0, 3, 100.0)
               for r in small.rows}
        for name in ("base", "few_shot", "tuned")
    }  # fmt: skip
    made = {
        name: score_candidate(small, small.scorers(PROJECT), given, (name, name))
        for name, given in rows.items()
    }
    verdict = decide(Evidence("accuracy", 0.95, made, differences(small, made)), GUARDS)
    assert verdict.outcome == "not_enough_evidence"
    assert all("inf" not in criterion.sentence for criterion in verdict.criteria)


def test_only_what_is_surely_slower_fails() -> None:
    """A busy machine must not fail a model that live traffic will time again."""
    found = evidence(0, 0, 50)
    unsure = replace(found, latency=Slowdown(Interval(1.9, 0.8, 3.0, 60)))
    assert decide(unsure, GUARDS).outcome == "pass"
    for alone, what in ((False, "95th percentile"), (True, "one at a time")):
        slow = replace(found, latency=Slowdown(Interval(1.9, 1.5, 3.0, 60), alone))
        verdict = decide(slow, GUARDS)
        assert verdict.sentence.endswith("it fails “answers in time”.")
        assert what in verdict.criteria[-1].sentence


def test_a_must_pass_row_that_fails_is_named_and_fails() -> None:
    ids = golden.resolve([TASK.rows[0].id[:8], TASK.rows[-1].id], TASK.rows)
    found = evidence(0, 0, 50)
    failed = golden.failures(ids, found.scored["tuned"].scores["accuracy"])
    assert failed == [TASK.rows[-1].id]
    verdict = decide(replace(found, must_pass=tuple(ids), must_fail=tuple(failed)), GUARDS)
    assert verdict.outcome == "fail"
    assert f"1 of 2 fail ({TASK.rows[-1].id[:12]})" in verdict.criteria[-1].sentence


@pytest.mark.parametrize("unknown", ["abc", "ffffffffffff"])
def test_an_unknown_must_pass_id_is_a_config_error(unknown: str) -> None:
    with pytest.raises(ConfigError, match="is not the id of a test row"):
        golden.resolve([unknown], TASK.rows)


def test_golden_rows_are_right_answers_spread_over_labels() -> None:
    tuned = scored("tuned", 50)
    picked = golden.pick_golden(TASK.rows, tuned.rows, tuned.scores["accuracy"], count=4)
    assert len(picked) == 4
    labels = {row.id: row.label for row in TASK.rows}
    assert {labels[g.item] for g in picked[:2]} == {"warm", "cold"}
    assert all(tuned.scores["accuracy"][g.item].value == 1.0 for g in picked)


def test_differences_compare_like_with_like_and_correct_for_their_number() -> None:
    family = {
        name: scored(name, correct)
        for name, correct in (
            ("base", 0), ("tuned", 30), ("base_constrained", 12), ("tuned_constrained", 14),
            ("tfidf", 31),
        )
    }  # fmt: skip
    found = differences(TASK, family)
    assert set(found) == {"base", "base_constrained", "tfidf"}
    assert found["base"].difference.estimate == pytest.approx(0.5)
    assert found["base_constrained"].difference.estimate == pytest.approx(2 / 60)
    assert all(c.p_holm >= c.difference.p for c in found.values())


def test_points_have_a_true_minus_and_no_signed_zero() -> None:
    assert (points(0.534), points(-0.034, 1), points(-0.0001)) == ("+53", "−3.4", "0")
