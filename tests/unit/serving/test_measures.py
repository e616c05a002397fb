"""Figures over a window of the metrics, against counting by hand and against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tutelage.core.config_alerts import AlertRule
from tutelage.core.errors import ConfigError
from tutelage.serving.monitoring.measures import (
    MEASURES,
    Window,
    bucket_quantile,
    check,
    evaluate,
    needed,
)
from tutelage.serving.monitoring.telemetry import Telemetry


def rule(metric: str, **more: Any) -> AlertRule:
    return AlertRule.model_validate({"name": "r", "metric": metric, "above": 0, **more})


def values(asked: AlertRule, window: Window) -> dict[Any, float | None]:
    return {dict(f.labels).get("deployment"): f.value for f in evaluate(asked, window)}


def answer(telemetry: Telemetry, status: int = 200, seconds: float = 0.2, name: str = "d") -> None:
    telemetry.finished((name, "r" * 40, "stable"), status, seconds * 1000, None, (10, 5))


def test_an_error_rate_counts_the_window_alone_and_each_deployment_apart() -> None:
    telemetry = Telemetry()
    asked = rule("error_rate", window="1m", least=5)
    window = Window(telemetry.registry, 60)
    for _ in range(10):
        answer(telemetry, 500)
    window.look(0, needed(asked))
    for _ in range(8):
        answer(telemetry)
    answer(telemetry, 503)
    answer(telemetry, 502)
    answer(telemetry, name="quiet")
    window.look(60, needed(asked))
    assert values(asked, window) == {"d": pytest.approx(0.2), "quiet": None}
    only = rule("error_rate", window="1m", least=1, labels={"deployment": "quiet"})
    assert values(only, window) == {"quiet": 0.0}


@pytest.mark.parametrize("metric", ["error_rate", "latency_p90", "refused_rate"])
def test_copies_that_nobody_sees_are_no_request_that_failed_or_was_slow(metric: str) -> None:
    telemetry = Telemetry()
    asked = rule(metric, least=5)
    window = Window(telemetry.registry, 300)
    window.look(0, needed(asked))
    for _ in range(20):
        answer(telemetry)
        answer(telemetry, 429)
        telemetry.finished(("d", "c" * 40, "shadow"), 502, 90_000, None, (10, 5))
    window.look(300, needed(asked))
    clients = {"error_rate": 0.0, "latency_p90": pytest.approx(0.25, abs=0.05), "refused_rate": 0.5}
    assert [figure.value for figure in evaluate(asked, window)] == [clients[metric]]
    if metric != "refused_rate":
        copies = rule(metric, least=5, labels={"arm": "shadow"})
        (figure,) = evaluate(copies, window)
        assert figure.value is not None and figure.value >= 1


def test_a_quantile_lies_in_the_bucket_that_numpy_s_does() -> None:
    telemetry = Telemetry()
    asked = rule("latency_p90", least=10)
    window = Window(telemetry.registry, 300)
    window.look(0, needed(asked))
    drawn = np.random.default_rng(4).lognormal(-1, 1, 500)
    for seconds in drawn:
        answer(telemetry, seconds=float(seconds))
    window.look(10, needed(asked))
    (figure,) = evaluate(asked, window)
    exact = float(np.quantile(drawn, 0.9))
    bounds = [0.0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]
    at = int(np.searchsorted(bounds, exact))
    assert figure.value is not None
    assert bounds[at - 1] <= figure.value <= bounds[at]


def test_bucket_quantiles_are_linear_inside_a_bucket_and_capped_by_the_last_bound() -> None:
    buckets = [(1.0, 10.0), (2.0, 20.0), (math.inf, 21.0)]
    assert bucket_quantile(0.5, [(1.0, 10.0), (2.0, 20.0), (math.inf, 20.0)]) == 1.0
    assert bucket_quantile(0.75, [(1.0, 10.0), (2.0, 20.0), (math.inf, 20.0)]) == 1.5
    assert bucket_quantile(1.0, buckets) == 2.0
    assert bucket_quantile(0.5, []) is None
    assert bucket_quantile(0.5, [(math.inf, 0.0)]) is None


def test_refusals_are_weighed_against_all_that_came() -> None:
    telemetry = Telemetry()
    asked = rule("refused_rate", least=4)
    window = Window(telemetry.registry, 300)
    window.look(0, needed(asked))
    answer(telemetry)
    answer(telemetry, 429)
    telemetry.refused.labels("429").inc()
    telemetry.refused.labels("401").inc()
    window.look(5, needed(asked))
    assert [f.value for f in evaluate(asked, window)] == [0.5]


def test_counters_grow_gauges_stand_and_rates_are_by_the_second() -> None:
    telemetry = Telemetry()
    lost, backlog = rule("tutelage_records_lost_total"), rule("tutelage_log_backlog")
    rate, tokens = rule("requests_per_second"), rule("tokens_per_second")
    window = Window(telemetry.registry, 300)
    names = {name for asked in (lost, backlog, rate, tokens) for name in needed(asked)}
    telemetry.lost.labels("shed").inc(5)
    window.look(0, names)
    telemetry.lost.labels("shed").inc(3)
    telemetry.backlog.set(7)
    for _ in range(20):
        answer(telemetry)
    window.look(10, names)
    assert [f.value for f in evaluate(lost, window)] == [3]
    assert [f.value for f in evaluate(backlog, window)] == [7]
    assert values(rate, window) == {"d": 2.0}
    assert values(tokens, window) == {"d": 30.0}


def test_what_was_never_sampled_is_not_known() -> None:
    telemetry = Telemetry()
    telemetry.backlog.set(math.nan)
    asked = rule("tutelage_log_backlog")
    window = Window(telemetry.registry, 300)
    assert evaluate(asked, window) == []
    window.look(0, needed(asked))
    assert evaluate(asked, window) == []


def test_the_window_forgets_what_is_older_than_it_needs() -> None:
    telemetry = Telemetry()
    window = Window(telemetry.registry, 60)
    for second in range(0, 600, 10):
        window.look(second, ["tutelage_requests"])
    assert len(window.moments) == 7
    assert window.moments[0][0] == 590 - 60


def test_a_rule_on_nothing_is_an_error_that_names_the_nearest() -> None:
    registry = Telemetry().registry
    for name in MEASURES:
        check(rule(name), registry)
    check(rule("tutelage_log_commit_seconds", quantile=0.99), registry)
    with pytest.raises(ConfigError, match="Did you mean 'latency_p99'"):
        check(rule("latency_p9"), registry)
    with pytest.raises(ConfigError, match="is a histogram and needs quantile"):
        check(rule("tutelage_log_commit_seconds"), registry)
    with pytest.raises(ConfigError, match="is a gauge and takes no quantile"):
        check(rule("tutelage_log_backlog", quantile=0.5), registry)
