"""Win rates with length held equal, agreement with experts, and when a judge may gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.evaluation.judge_rows import CLEAR, CORRECT, DUEL, RUBRIC, judge_at, new_store

from tutelage.core.config_judge import JudgeSettings
from tutelage.core.errors import DataError
from tutelage.evaluation.judges.experts import (
    Opinion,
    agree,
    outcomes_of,
    read_opinions,
    settled,
)
from tutelage.evaluation.judges.trust import keep_trust, measured, panel_id, trusted
from tutelage.evaluation.judges.win_rate import length_controlled, win_rate

ITEMS = [f"{number:024x}" for number in range(0xABC000, 0xABC000 + 80)]


def preferences(n: int, theta: float, phi: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw N preferences by the model itself, and the differences in length."""
    rng = np.random.default_rng(seed)
    difference = rng.normal(80, 100, n)
    p = 1 / (1 + np.exp(-(theta + phi * np.tanh(difference / difference.std()))))
    return (rng.random(n) < p).astype(float), difference


def test_the_regression_is_that_of_statsmodels() -> None:
    sm = pytest.importorskip("statsmodels.api")
    y, difference = preferences(300, 0.4, 1.1)
    found, effect = length_controlled(y, difference)
    t = np.tanh(difference / difference.std())
    x = sm.add_constant(np.append(t, [0.0, 0.0]))
    weights = np.append(np.ones(300), [0.5, 0.5])
    model = sm.GLM(
        np.append(y, [0.0, 1.0]), x, family=sm.families.Binomial(), freq_weights=weights
    ).fit()
    theta, phi = model.params
    assert found.estimate == pytest.approx(1 / (1 + np.exp(-theta)), abs=1e-3)
    assert effect == pytest.approx(phi, rel=0.01)


def test_a_judge_that_only_likes_length_has_no_favourite() -> None:
    y, difference = preferences(2000, 0.0, 2.0)
    found = win_rate(y, difference, np.zeros(2000))
    assert found.raw.low > 0.65
    assert found.controlled.low < 0.5 < found.controlled.high
    assert found.length_effect == pytest.approx(2.0, abs=0.4)


def test_equal_lengths_change_nothing() -> None:
    y = np.array([1.0, 1.0, 0.0, 0.5] * 25)
    found = win_rate(y, np.full(100, 40), np.full(100, 40))
    assert found.controlled.estimate == pytest.approx(found.raw.estimate, abs=0.003)
    assert (found.wins, found.ties, found.losses) == (50, 25, 25)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_intervals_stay_open_where_all_agree(value: float) -> None:
    found = win_rate(np.full(30, value), np.arange(30.0), np.zeros(30))
    for interval in (found.raw, found.controlled):
        assert 0 <= interval.low <= interval.high <= 1
        assert interval.high - interval.low > 0.05


def test_intervals_cover_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(400):
        y, difference = preferences(100, 0.8, 1.0, seed)
        found = length_controlled(y, difference)[0]
        hits += found.low <= 1 / (1 + np.exp(-0.8)) <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_rows_of_one_cluster_widen_the_interval() -> None:
    y, difference = preferences(40, 0.5, 0.5)
    alone = length_controlled(np.repeat(y, 5), np.repeat(difference, 5))[0]
    grouped = length_controlled(
        np.repeat(y, 5), np.repeat(difference, 5), [n // 5 for n in range(200)]
    )[0]
    assert grouped.high - grouped.low > 1.8 * (alone.high - alone.low)


def test_kappa_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(3)
    said = rng.integers(1, 5, 80)
    mine = np.clip(said + rng.integers(-1, 2, 80), 1, 4)
    experts = {(item, "tuned"): str(v) for item, v in zip(ITEMS, said, strict=True)}
    judge = {(item, "tuned"): str(v) for item, v in zip(ITEMS, mine, strict=True)}
    found = agree("correct", outcomes_of(RUBRIC, "correct"), experts, judge)
    assert found.kappa == pytest.approx(cohen_kappa_score(said, mine, weights="quadratic"))
    plain = found.figures["others"]["Cohen's kappa, no weights"][0]
    assert plain == pytest.approx(cohen_kappa_score(said, mine))
    assert found.low is not None and found.low < found.kappa < found.high
    assert found.rows == 80
    confusion = np.array(found.figures["confusion"])
    assert confusion.sum() == 80 and confusion.trace() == (said == mine).sum()


def test_ac1_stands_beside_kappa_where_one_verdict_prevails() -> None:
    experts = {(item, "tuned"): "1" if n < 4 else "2" for n, item in enumerate(ITEMS)}
    judge = {(item, "tuned"): "1" if n in (0, 9) else "2" for n, item in enumerate(ITEMS)}
    found = agree("clear", outcomes_of(RUBRIC, "clear"), experts, judge)
    assert found.figures["prevalence"] > 0.85
    assert found.figures["others"]["Gwet's AC1"][0] > 0.9 > 0.5 > found.kappa


def test_answers_without_a_verdict_are_left_out_and_counted() -> None:
    experts = {(item, "tuned"): "2" for item in ITEMS[:10]}
    judge = {(item, "tuned"): "2" if n < 6 else None for n, item in enumerate(ITEMS[:10])}
    found = agree("clear", outcomes_of(RUBRIC, "clear"), experts, judge)
    assert (found.rows, found.figures["undecided"]) == (6, 4)
    assert found.kappa is None
    assert agree("clear", ("1", "2"), experts, {}).rows == 0


def test_most_experts_count_and_an_even_split_is_left_out() -> None:
    def said(item: str, expert: str, outcome: str) -> Opinion:
        return Opinion((item, "tuned"), "correct", outcome, expert)

    given = [said("a", "anna", "4"), said("a", "ben", "4"), said("a", "cem", "1"),
             said("b", "anna", "4"), said("b", "ben", "1"),
             said("c", "anna", "1"), said("c", "anna", "2")]  # fmt: skip
    assert settled(given, "correct") == ({("a", "tuned"): "4", ("c", "tuned"): "2"}, 1)
    assert settled(given, "clear") == ({}, 0)


def test_a_table_of_verdicts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "experts.csv"
    path.write_text(
        "item,criterion,verdict,candidate,expert\n"
        f"{ITEMS[0]},correct,4,tuned,anna\n"
        f"{ITEMS[1]},correct,perfect,,anna\n"
        f"{ITEMS[2]},clear,pass,base,ben\n"
    )
    found = read_opinions(path, RUBRIC, ITEMS, "tuned")
    assert found == [
        Opinion((ITEMS[0], "tuned"), "correct", "4", "anna"),
        Opinion((ITEMS[1], "tuned"), "correct", "4", "anna"),
        Opinion((ITEMS[2], "base"), "clear", "2", "ben"),
    ]


def test_preferences_are_read_by_name_or_side(tmp_path: Path) -> None:
    path = tmp_path / "experts.jsonl"
    path.write_text(
        f'{{"id": "{ITEMS[0]}", "choice": "tuned"}}\n'
        f'{{"id": "{ITEMS[1]}", "choice": "few_shot", "against": "few_shot"}}\n'
        f'{{"id": "{ITEMS[2]}", "choice": "tie"}}\n'
    )
    found = read_opinions(path, DUEL, ITEMS, "tuned")
    assert [(o.answer[1], o.outcome) for o in found] == [
        ("base", "ours"), ("few_shot", "theirs"), ("base", "tie"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{ITEMS[0]},correct,5", "verdicts.csv:2: '5' is no level of 'correct'. Give a number"),
        (f"{ITEMS[0]},corect,4", "'corect' is not a criterion. Did you mean 'correct'"),
        (f"{ITEMS[0]},,4", "it does not say which criterion is meant"),
        ("ffffffffff,correct,4", "the id 'ffffffffff' is not a row of the evaluation"),
        ("000000000000,correct,4", "the id '000000000000' fits several rows"),
        (f"{ITEMS[0]},correct,", "there is no verdict"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text(f"item,criterion,verdict\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_opinions(path, RUBRIC, ITEMS, "tuned")
    assert message in caught.value.sentence()


def test_a_judge_may_gate_only_with_kappa_and_rows(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    judge, settings = judge_at("http://127.0.0.1:1"), JudgeSettings()
    who = panel_id([judge], "mean")

    def learn(criterion: str, right: int, rows: int) -> None:
        experts = {(item, "tuned"): str(1 + n % 2) for n, item in enumerate(ITEMS[:rows])}
        said = {a: v if n < right else "1" for n, (a, v) in enumerate(experts.items())}
        found = agree(criterion, outcomes_of(RUBRIC, criterion), experts, said)
        keep_trust(store, who, RUBRIC, [found], "experts.csv")

    def may(metric: str) -> tuple[bool, str]:
        return trusted(store, who, RUBRIC, metric, settings)

    ok, why = may("judge_correct")
    assert not ok and "has not been measured against experts on correct" in why
    learn("correct", 40, 40)
    ok, why = may("judge_correct")
    assert not ok and "on 40 rows, under 50 rows" in why
    learn("correct", 10, 60)
    ok, why = may("judge_correct")
    assert not ok and why.endswith("on 60 rows, under 0.6")
    learn("correct", 58, 60)
    ok, why = may("judge_correct")
    assert ok and why.startswith("the judge judge on correct: kappa 0.97")
    ok, why = may("judge")
    assert not ok and "on clear as it is asked now" in why
    learn("clear", 58, 60)
    assert may("judge")[0]
    assert measured(store, who, RUBRIC.digest(CORRECT.name)).source == "experts.csv"
    assert not trusted(store, "judge at elsewhere", RUBRIC, CLEAR.metric, settings)[0]
    store.close()


def test_a_panel_is_one_judge_whatever_the_order() -> None:
    one, two = judge_at("http://a"), judge_at("http://b", "another")
    assert panel_id([one, two], "mean") == panel_id([two, one], "mean")
    assert panel_id([one, two], "mean") != panel_id([one, two], "majority")
    many = [judge_at("http://host.example/" + "x" * 90, f"model-{n}") for n in range(5)]
    assert len(panel_id(many, "mean")) <= 240
