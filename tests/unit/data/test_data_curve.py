"""The learning curve: known laws are found again, too little is said to be too little."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.data.curve import Point, fit_curve, forecast, nested, sizes
from tutelage.data.curve_html import section


def simulated(
    law: tuple[float, float, float], counts: list[int], *, scored: int, repeats: int, seed: int
) -> list[Point]:
    """Return points whose errors follow a · n^(−b) + c; a hard row is hard at every size."""
    a, b, c = law
    rng = np.random.default_rng(seed)
    found = []
    for repeat in range(repeats):
        hardness = rng.random(scored)
        for count in counts:
            noise = rng.normal(0, 0.01, scored)
            found.append(Point(count, repeat, (hardness + noise > a * count**-b + c).astype(float)))
    return found


@pytest.mark.parametrize("law", [(2.0, 0.5, 0.05), (1.2, 0.3, 0.0), (6.0, 0.8, 0.12)])
def test_a_known_law_is_found_again(law: tuple[float, float, float]) -> None:
    counts = sizes(2000)
    points = simulated(law, counts, scored=2000, repeats=5, seed=1)
    found = fit_curve(points)
    assert found.law is not None
    assert found.doubled is not None
    assert found.gain is not None
    expected = law[0] * 4000 ** -law[1] + law[2]
    assert found.doubled.accuracy == pytest.approx(1 - expected, abs=0.01)
    assert found.doubled.low <= 1 - expected <= found.doubled.high
    true_gain = law[0] * (2000 ** -law[1] - 4000 ** -law[1])
    assert found.gain[1] <= true_gain <= found.gain[2]
    assert found.enough
    assert found.check is not None
    assert found.check["off"] < 0.03
    assert "4,000 rows instead of 2,000 would bring " in found.sentence
    assert [p.rows for p in found.points] == counts


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    law = (2.0, 0.45, 0.06)
    truth = 1 - (law[0] * 2000 ** -law[1] + law[2])
    inside = 0
    for seed in range(20):
        points = simulated(law, [60, 120, 240, 480, 1000], scored=300, repeats=2, seed=seed)
        found = forecast(points, 2000)
        inside += found.low <= truth <= found.high
    assert inside >= 16  # 18 expected


def test_a_plateau_is_no_promise() -> None:
    points = simulated((0.0, 1.0, 0.2), sizes(1000), scored=1500, repeats=3, seed=2)
    found = fit_curve(points)
    assert found.gain is not None
    assert abs(found.gain[0]) < 0.01
    assert found.gain[1] <= 0.001
    assert "More rows would bring little" in "".join(section(found, "On embeddings."))


def test_too_few_points_are_said_to_be_too_few() -> None:
    points = simulated((1.0, 0.3, 0.1), [10, 14, 20, 28, 40], scored=30, repeats=1, seed=3)
    found = fit_curve(points, labels=5)
    assert not found.enough
    assert found.law is None
    assert found.sentence == (
        "too few rows to say: 3 of 5 training sizes have 20 rows or more, 4 are needed"
    )
    assert len(found.points) == 5
    assert "Too few rows" in "".join(section(found, "On embeddings."))
    many = fit_curve(points, labels=60)
    assert "0 of 5 training sizes have 180 rows or more" in many.sentence


def test_few_scored_rows_are_said_to_be_too_few() -> None:
    points = simulated((4.0, 0.55, 0.0), [25, 50, 100, 200], scored=12, repeats=1, seed=1)
    found = fit_curve(points)
    assert not found.enough
    assert found.sentence == "too few rows to say: 12 rows are scored, 40 are needed"
    assert found.law is not None  # it is shown, as what it is


def test_ten_rows_a_label_are_needed() -> None:
    points = simulated((2.0, 0.5, 0.05), sizes(600, 77), scored=2000, repeats=2, seed=1)
    found = fit_curve(points, labels=77)
    assert not found.enough
    assert found.sentence == "too few rows to say: 600 rows are 7.8 a label, 10 are needed"
    points = simulated((2.0, 0.5, 0.05), sizes(800, 77), scored=2000, repeats=2, seed=1)
    assert fit_curve(points, labels=77).enough


def test_a_wide_interval_is_no_answer() -> None:
    rng = np.random.default_rng(1)
    shares = {20: 0.35, 28: 0.4, 40: 0.5, 60: 0.6}
    points = [Point(n, 0, (rng.random(45) < share).astype(float)) for n, share in shares.items()]
    found = fit_curve(points)
    assert found.gain is not None
    assert found.gain[2] - found.gain[1] > 0.08
    assert not found.enough
    assert re.match(r"too few rows to say: doubling would bring between", found.sentence)


def test_a_curve_that_fails_its_own_test_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    accuracy = {50: 0.3, 100: 0.31, 200: 0.32, 400: 0.33, 800: 0.80}  # learning starts late
    points = [
        Point(count, repeat, (rng.random(1000) < share).astype(float))
        for count, share in accuracy.items()
        for repeat in range(3)
    ]
    found = fit_curve(points)
    assert not found.enough
    assert found.sentence.startswith("too few rows to say: from up to 400 rows the curve expects")
    assert found.check is not None
    assert not found.check["inside"]


def test_scores_that_are_no_hits_count_by_their_mean() -> None:
    rng = np.random.default_rng(5)
    points = []
    for count in sizes(1000):
        mean = 1 - (1.5 * count**-0.5 + 0.3)
        points.append(Point(count, 0, np.clip(rng.normal(mean, 0.05, 400), 0, 1)))
    found = fit_curve(points)
    assert found.doubled is not None
    assert found.doubled.accuracy == pytest.approx(1 - (1.5 * 2000**-0.5 + 0.3), abs=0.015)


@pytest.mark.parametrize(
    ("rows", "labels"), [(20, 2), (45, 2), (100, 3), (300, 77), (1000, 77), (8500, 77)]
)
def test_sizes_rise_to_all_rows(rows: int, labels: int) -> None:
    found = sizes(rows, labels)
    assert found == sorted(set(found))
    assert found[-1] == rows
    assert found[0] >= 10 or found[0] == rows
    if rows >= 1000:
        assert sum(size >= 3 * labels for size in found) >= 6
        assert sum(size <= rows / 2 for size in found) >= 3


def test_under_twenty_rows_there_is_no_curve() -> None:
    with pytest.raises(DataError, match="19 training rows are too few for a learning curve"):
        sizes(19)
    with pytest.raises(DataError, match="there is no point to fit"):
        fit_curve([])


def test_beginnings_of_an_order_hold_whole_groups() -> None:
    groups = ["a", "b", "a", "c", "d", "b", "e"]
    order = nested(7, groups, seed=1)
    assert sorted(order) == list(range(7))
    names = [groups[i] for i in order]
    assert len([k for k in range(7) if k == 0 or names[k] != names[k - 1]]) == 5
    assert nested(7, groups, seed=1) == order != nested(7, groups, seed=2)


def test_banking77_at_all_rows_is_foretold_from_half_of_them(shared_data: Path) -> None:
    """Within 3 points. Hashed words stand in for embeddings, to be fast."""
    folder = shared_data / "banking77"
    texts, labels = [], []
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                texts.append(row["text"])
                labels.append(row["category"])
    vectors = _hashed(texts)
    cut = len(texts) - 3080
    wanted = np.array(labels[cut:])
    order = np.random.default_rng(7).permutation(cut)
    points = []
    for share in (0.08, 0.12, 0.18, 0.27, 0.37, 0.5, 1.0):
        part = order[: round(share * cut)]
        found = _centroids(vectors[part], [labels[i] for i in part], vectors[cut:])
        points.append(Point(len(part), 0, (found == wanted).astype(float)))
    expected = forecast(points[:-1], cut, labels=77)
    measured = float(points[-1].hits.mean())
    assert measured > 0.6
    assert abs(expected.accuracy - measured) <= 0.03
    assert expected.low - 0.01 <= measured <= expected.high + 0.01


def _hashed(texts: list[str]) -> NDArray[np.float32]:
    from sklearn.feature_extraction.text import HashingVectorizer

    hashed = HashingVectorizer(n_features=512, ngram_range=(1, 2), alternate_sign=True)
    dense: NDArray[np.float32] = hashed.transform(texts).toarray().astype(np.float32)
    return dense


def _centroids(
    train: NDArray[np.float32], labels: list[str], asked: NDArray[np.float32]
) -> NDArray[np.str_]:
    """Return the label that ridge regression on indicators chooses."""
    names = np.array(sorted(set(labels)))
    marks = (np.array(labels)[:, None] == names).astype(np.float32)
    size = train.shape[1]
    weights = np.linalg.solve(train.T @ train + np.eye(size, dtype=np.float32), train.T @ marks)
    return names[(asked @ weights).argmax(axis=1)]


def test_the_chart_has_a_mark_a_point_and_a_band() -> None:
    points = simulated((2.0, 0.5, 0.05), sizes(600), scored=500, repeats=2, seed=4)
    found = fit_curve(points)
    page = "".join(section(found, "On embeddings."))
    assert page.count("<circle") == len(found.points)
    assert page.count("<polygon") == 1
    assert "all your rows" in page
    assert "On embeddings." in page
    assert not math.isnan(found.line[0].accuracy)
    assert "nan" not in page
