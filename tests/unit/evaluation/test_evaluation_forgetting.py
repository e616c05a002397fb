"""The general probes: sound items, honest figures, and what was forgotten by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tutelage.evaluation.forgetting import ProbeResult, compare, measure, probes, texts


class Marks:
    """Gives the right ending a likelihood of its own; everything else is equal."""

    def __init__(self, right: Sequence[float], nll: float = 3.0) -> None:
        self._right = {
            f"{p.stem} {p.choices[0]}.": -math.log(3 * r / (1 - r))
            for p, r in zip(probes(), right, strict=True)
        }
        self._nll = nll
        self._general = set(texts())

    def mean_nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        return [
            (self._right.get(text, 0.0) + (self._nll * 10 if text in self._general else 0.0), 10)
            for text in texts
        ]


def test_the_probes_are_distinct_four_way_questions() -> None:
    assert len(probes()) >= 120 and len(texts()) == 40
    assert len({p.stem for p in probes()}) == len(probes())
    assert all(len(set(p.choices)) == 4 for p in probes())
    assert not {p.right + "." for p in probes()} & set(texts())


def test_a_chance_is_the_probability_among_the_four() -> None:
    right = np.linspace(0.1, 0.9, len(probes())).tolist()
    found = measure(Marks(right))
    assert found.right == pytest.approx(right, abs=1e-5)
    assert sum(found.hits) == sum(r > 0.25 for r in right)
    assert found.tokens == [10] * 40


def test_nothing_forgotten_is_nothing() -> None:
    same = measure(Marks([0.5] * len(probes())))
    found = compare(same, same)
    assert (found.number, found.chance_drop.estimate, found.perplexity_ratio.estimate) == (0, 0, 1)
    assert found.lost == [] and found.gained == []


def test_what_was_forgotten_is_named() -> None:
    before = [0.6] * len(probes())
    after = [0.1] * 3 + before[3:]
    found = compare(measure(Marks(before)), measure(Marks(after)))
    assert [item["stem"] for item in found.lost] == [p.stem for p in probes()[:3]]
    assert found.lost[0]["right"] == probes()[0].choices[0]
    assert found.lost[0]["instead"] in probes()[0].choices[1:]
    assert found.number == pytest.approx(3 / len(probes()))
    back = compare(measure(Marks(after)), measure(Marks(before)))
    assert back.number == 0.0 and len(back.gained) == 3


def test_perplexity_is_that_of_all_tokens_together() -> None:
    base = ProbeResult([[1.0, 0, 0, 0]] * len(probes()), [20.0, 30.0], [10, 10])
    tuned = ProbeResult([[1.0, 0, 0, 0]] * len(probes()), [22.0, 33.0], [10, 10])
    found = compare(base, tuned)
    assert found.base_perplexity == pytest.approx(math.exp(2.5))
    assert found.perplexity_ratio.estimate == pytest.approx(math.exp(0.25))
    assert found.perplexity_ratio.low == pytest.approx(math.exp(0.2), rel=1e-6)
    assert found.perplexity_ratio.high == pytest.approx(math.exp(0.3), rel=1e-6)


def test_the_chance_sees_a_loss_that_the_count_can_not() -> None:
    """Why the gate reads the chance: same rows, a tenth of the uncertainty."""
    rng = np.random.default_rng(0)
    before = rng.uniform(0.3, 0.9, len(probes()))
    after = np.clip(before - 0.03 + rng.normal(0, 0.03, len(probes())), 0.02, 0.97)
    found = compare(measure(Marks(before.tolist())), measure(Marks(after.tolist())))
    assert found.chance_drop.low > 0.02
    assert found.chance_drop.detectable < 0.25 * found.accuracy_drop.detectable
