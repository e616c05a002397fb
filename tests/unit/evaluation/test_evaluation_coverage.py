"""Equals compared with equals: rarely called better, intervals that hold, power as printed.

The benchmark draws the same with thousands of trials and narrow bands; here few have wide ones.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tutelage.evaluation import significance

TRIALS = 150


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "bench" / "significance.py"
    spec = importlib.util.spec_from_file_location("bench_significance", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n", [50, 100])
@pytest.mark.parametrize("kind", ["0/1", "graded", "0/1, clusters", "graded, clusters"])
def test_equals_are_told_to_be_equals(
    kind: str, n: int, bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(significance, "ROUNDS", 600)
    found = bench.equals(kind, n, TRIALS, seed=3)
    assert found["false_better"] <= 0.06
    assert found["coverage_difference"] >= 0.90
    assert found["coverage_mean"] >= 0.88
    assert 0.66 <= found["power"] <= 0.92


def test_of_eight_equal_metrics_none_looks_sure(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(significance, "ROUNDS", 600)
    found = bench.families(100, 120, seed=3)
    assert found["any_sure_holm"] <= 0.10 < found["any_sure"]
