"""The value of training rows: exact on tiny sets, and planted wrong labels come out harmful."""

from __future__ import annotations

import csv
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message
from tutelage.data.valuation import (
    gradient_influence,
    knn_shapley,
    value_gradient,
    value_knn,
)
from tutelage.data.valuation_html import section

Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.float64]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def row(text: str, label: str | None) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=label or "x"))
    return Example(messages=turns, label=label)


def worth(
    rows: tuple[int, ...], cosines: Vectors, labels: list[str], wanted: list[str], k: int
) -> float:
    """Return the utility of a set of training rows: right neighbours over k, summed."""
    total = 0.0
    for one, label in zip(cosines, wanted, strict=True):
        nearest = sorted(rows, key=lambda i: (-one[i], i))[:k]
        total += sum(labels[i] == label for i in nearest) / k
    return total


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 6),
    asked=st.integers(1, 3),
    k=st.integers(1, 8),
)
def test_the_closed_form_is_the_shapley_value(seed: int, count: int, asked: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    train, validation = unit(rng.normal(size=(count, 4))), unit(rng.normal(size=(asked, 4)))
    labels = [str(x) for x in rng.integers(0, 2, count)]
    wanted = [str(x) for x in rng.integers(0, 3, asked)]
    cosines = validation @ train.T
    expected = np.zeros(count)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for size in range(count):
            for part in combinations(others, size):
                gain = worth((*part, i), cosines, labels, wanted, k)
                gain -= worth(part, cosines, labels, wanted, k)
                expected[i] += gain / (count * comb(count - 1, size))
    found = knn_shapley(train, labels, validation, wanted, k)
    assert found == pytest.approx(expected, abs=1e-9)
    everything = worth(tuple(range(count)), cosines, labels, wanted, k)
    assert found.sum() == pytest.approx(everything, abs=1e-9)


def ranking(values: NDArray[np.float64], bad: NDArray[np.bool_]) -> float:
    """Return the chance that a bad row has a lower value than a good one (AUC)."""
    order = np.argsort(np.argsort(values, kind="stable"))
    positions = order[~bad].sum() - comb(int((~bad).sum()), 2)
    return float(positions / ((~bad).sum() * bad.sum()))


def test_flipped_labels_come_out_harmful_on_clouds() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 12))
    names = rng.integers(0, 4, 400)
    points = unit(centres[names] + 0.7 * rng.normal(size=(400, 12)))
    shown = names.copy()
    bad = np.zeros(300, dtype=bool)
    bad[rng.choice(300, 30, replace=False)] = True
    shown[:300][bad] = (shown[:300][bad] + 1 + rng.integers(0, 3, 30)) % 4
    labels = [str(x) for x in shown]
    values = knn_shapley(points[:300], labels[:300], points[300:], labels[300:])
    assert ranking(values, bad) > 0.95


def test_flipped_labels_come_out_harmful_on_real_rows(shared_data: Path) -> None:
    from tutelage.inference.embed import load_embedder

    with (shared_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(r["text"], r["category"]) for r in csv.DictReader(stream)]
    names = sorted({label for _, label in rows})[:12]
    rows = [pair for pair in rows if pair[1] in names]
    rng = np.random.default_rng(1)
    rows = [rows[i] for i in rng.permutation(len(rows))[:900]]
    vectors = load_embedder("tfidf").embed([text for text, _ in rows])
    labels = [label for _, label in rows]
    bad = np.zeros(700, dtype=bool)
    bad[rng.choice(700, 70, replace=False)] = True
    for i in np.flatnonzero(bad):
        labels[i] = str(rng.choice([name for name in names if name != labels[i]]))
    train = [row(text, label) for (text, _), label in zip(rows[:700], labels[:700], strict=True)]
    validation = [row(*pair) for pair in rows[700:]]
    found = value_knn(train, validation, (vectors[:700], vectors[700:]))
    by_id = {one.id: one.value for one in found.rows}
    values = np.array([by_id[one.id] for one in train])
    assert ranking(values, bad) > 0.85
    worst = found.harmful[:30]
    flipped = {train[i].id for i in np.flatnonzero(bad)}
    assert sum(one.id in flipped for one in worst) >= 20
    assert all("of" in one.reason and one.value < 0 for one in worst)


def test_each_row_has_its_reason() -> None:
    angles = np.array([0.0, 0.1, 0.2, 1.5, 1.6, 3.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    train = [row("a", "x"), row("b", "y"), row("c", "x"), row("d", "z"), row("e", None),
             row("f", "x")]  # fmt: skip
    asked = np.array([0.05, 0.12, 1.52])
    validation = [row("one", "x"), row("two", "x"), row("three", "z")]
    sides = (vectors, np.stack([np.cos(asked), np.sin(asked)], axis=1).astype(np.float32))
    found = value_knn(train, validation, sides, k=2)
    reasons = {one.text: one.reason for one in found.rows}
    assert [one.rank for one in found.rows] == [1, 2, 3, 4, 5]  # the row without a label is not
    assert reasons["b"] == "among the 2 nearest of 2 validation rows: 0 are 'y' too, 2 are 'x'"
    assert reasons["d"] == "among the 2 nearest of 1 validation row: all are 'z' too"
    assert reasons["f"] == "not among the 2 nearest of any validation row"
    assert found.harmful[0].text == "b"
    page = "".join(section(found))
    assert "Most harmful" in page
    assert "among the 2 nearest of 2 validation rows" in page


def test_rows_without_labels_can_not_be_valued_by_neighbours() -> None:
    vectors = np.eye(2, dtype=np.float32)
    rows = [row("a", "x"), row("b", "y")]
    free = [row("c", None), row("d", None)]
    with pytest.raises(DataError, match="the train split has no row with a label"):
        value_knn(free, rows, (vectors, vectors))
    with pytest.raises(DataError, match="the validation split has no row with a label"):
        value_knn(rows, free, (vectors, vectors))


def test_influence_is_the_mean_cosine_and_length_does_not_count() -> None:
    train = np.array([[2.0, 0.0], [0.0, -5.0], [0.0, 0.0], [0.1, 0.1]], dtype=np.float32)
    validation = np.array([[10.0, 0.0], [0.0, 0.01]], dtype=np.float32)
    expected = [0.5, -0.5, 0.0, 0.5 * 2**0.5]
    assert gradient_influence(train, validation) == pytest.approx(expected, abs=1e-6)


def test_gradient_reasons_name_the_validation_row_that_is_moved() -> None:
    train = np.array([[1.0, 0.0], [-1.0, 0.1], [0.0, 0.0]], dtype=np.float32)
    validation = np.array([[1.0, 0.2], [0.1, 1.0]], dtype=np.float32)
    rows = [row("good", "x"), row("bad", "y"), row("known", "x")]
    asked = [row("first question", "x"), row("second question", "z")]
    found = value_gradient(rows, asked, (train, validation))
    assert [one.text for one in found.rows] == ["good", "known", "bad"]
    reasons = {one.text: one.reason for one in found.rows}
    assert reasons["good"] == (
        "a step on it lowers the loss of 100% of the validation rows; most it lowers that of "
        "'first question' (x)"
    )
    assert "raises that of 'first question' (x)" in reasons["bad"]
    assert reasons["known"] == "it has no gradient: the adapter writes its answer already"
