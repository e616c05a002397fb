"""Known faults planted in real rows are found by the commands a user runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_planted_faults_are_found(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    found = importlib.import_module("banking77").measure(seed=4)
    assert found["exact"] == 1.0
    assert found["near"] >= 0.95
    assert found["near_precision"] >= 0.95
    assert found["flips"] >= 0.70  # of 100, within the first 150
    assert found["outliers"] >= 0.80  # of 50, within the first 100
    assert found["refusals"] == 1.0
    assert found["identifiers"] >= 0.95
    assert found["peak_mb"] < 1500
