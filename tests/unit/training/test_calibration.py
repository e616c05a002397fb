"""The temperature that makes chances honest, and when none is fitted."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.training.calibration import calibrated, cross_entropy, fit_temperature


def drawn(rows: int, labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels that are drawn from the scores' own chances."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 2, (rows, labels))
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    truth = np.array([generator.choice(labels, p=row) for row in chances])
    return scores, truth


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_scores_that_are_too_sure_by_a_factor_are_cooled_by_it(factor: float) -> None:
    scores, truth = drawn(4000)
    assert fit_temperature(scores * factor, truth) == pytest.approx(factor, rel=0.08)


def test_the_temperature_has_no_better_neighbour() -> None:
    scores, truth = drawn(60, seed=3)
    scores = scores * 2.5
    best = fit_temperature(scores, truth)
    loss = cross_entropy(scores / best, truth)
    grid = [cross_entropy(scores / t, truth) for t in np.geomspace(0.2, 20, 400)]
    assert loss <= min(grid) + 1e-5
    report = calibrated(scores, truth)
    assert report["validation"]["calibrated_loss"] <= report["validation"]["loss"]
    assert report["validation"]["rows"] == 60


def test_few_rows_say_nothing_and_no_error_does_not_make_sure() -> None:
    scores, truth = drawn(9)
    assert fit_temperature(scores * 10, truth) == 1.0
    scores = np.eye(3)[np.arange(30) % 3]
    assert fit_temperature(scores, np.arange(30) % 3) == 1.0
    assert calibrated(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == {
        "temperature": 1.0, "validation": {"rows": 0},
    }  # fmt: skip
