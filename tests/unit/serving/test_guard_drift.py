"""Drift from the golden rows: what the alarm sees, and how seldom it is wrong."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tutelage.serving.guards.drift import Drift, LabelSeries, NumberSeries, Watch, bets
from tutelage.serving.guards.window import OTHER


def test_every_bet_is_fair_against_uniform_p_values() -> None:
    """Each is a density on (0, 1): its mean over uniform p-values is 1."""
    places = (np.arange(2_000_000) + 0.5) / 2_000_000
    assert bets(places).mean(axis=1) == pytest.approx(np.ones(8), abs=0.01)
    assert (bets(places) >= 0).all()


class Heard:
    """Stands in for the sums: keeps the first p-value of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, p: np.ndarray) -> float:
        self.values.append(float(p[0]))
        return 0.0


@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_p_values_are_uniform_while_nothing_changes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conformal p-values are uniform for any number of golden rows, ties included."""
    rng, heard = np.random.default_rng(3), Heard()
    for _ in range(60):
        values = rng.poisson(4, 60)
        series: NumberSeries | LabelSeries
        if kind == "numbers":
            series, live = NumberSeries(values[:20].tolist(), rng, 200), values[20:].tolist()
        else:
            series = LabelSeries(Counter(map(str, values[:20] % 3)), rng, 200)
            live = [str(value % 3) for value in values[20:]]
        monkeypatch.setattr(series, "_sums", heard)
        for value in live:
            series.add(value)
    counts = np.histogram(heard.values, bins=10, range=(0, 1))[0]
    expected = len(heard.values) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-squared, 9 df: p > 0.0004


def watch(
    threshold: float = 5e4, rows: int = 200, seed: int = 0
) -> tuple[Watch, np.random.Generator]:
    rng = np.random.default_rng(seed)
    golden = np.exp(rng.normal(5, 0.5, rows)).astype(int).tolist()
    return Watch("request length", NumberSeries(golden, rng, 200), threshold, 0.1), rng


def lengths(rng: np.random.Generator, shift: float, count: int) -> list[int]:
    found: list[int] = np.exp(rng.normal(5 + shift, 0.5, count)).astype(int).tolist()
    return found


def test_a_change_of_lengths_is_told_once_and_its_end_too() -> None:
    alarm, rng = watch()
    changes = [alarm.add(v) for v in lengths(rng, 0, 400)]
    assert not any(changes)
    changes = [alarm.add(v) for v in lengths(rng, 1, 400)]
    (found,) = [c for c in changes if c]
    assert found.drifted and found.index > 0.1 and found.evidence >= 1
    assert "characters lately" in found.why and changes.index(found) < 200
    back = [alarm.add(v) for v in lengths(rng, 0, 600)]
    ends = [c for c in back if c is not None]
    assert ends and not ends[0].drifted and not alarm.state().drifted


def test_labels_that_swap_places_are_seen() -> None:
    """Two classes of equal share that become unequal leave a p-value of rarity uniform."""
    rng = np.random.default_rng(5)
    series = LabelSeries({"a": 200, "b": 200}, rng, 200)
    alarm = Watch("label", series, 2e4, 0.1)
    changes = [alarm.add("a" if rng.random() < 0.9 else "b") for _ in range(400)]
    (found,) = [c for c in changes if c]
    assert found.why.startswith("'a' ") and "50% in the evaluated rows" in found.why


def test_a_label_that_no_golden_row_has_counts_as_other() -> None:
    rng = np.random.default_rng(5)
    series = LabelSeries({"a": 100, OTHER: 2}, rng, 200)
    alarm = Watch("label", series, 2e4, 0.1)
    changes = [alarm.add("new") for _ in range(40)]
    (found,) = [c for c in changes if c]
    assert found.why == "none of the usual ones 100% lately, 2% in the evaluated rows"


def test_alarms_without_a_change_are_as_rare_as_was_asked() -> None:
    """Shiryaev-Roberts: in n values an alarm has at most the chance n / threshold."""
    alarms = 0
    for seed in range(20):
        alarm, rng = watch(threshold=2_000, rows=60, seed=seed)
        alarms += any(change and change.drifted for change in map(alarm.add, lengths(rng, 0, 300)))
    assert alarms <= 7  # mean at most 3; P(more than 7 of 20 at 0.15) = 0.006


def test_what_is_known_is_plain_data() -> None:
    drift = Drift("label", True, 1.23456, 0.2345, 100, "'a' 90%")
    assert drift.as_dict() == {
        "series": "label", "drifted": True, "evidence": 1.2346, "index": 0.234, "values": 100,
        "why": "'a' 90%",
    }  # fmt: skip
