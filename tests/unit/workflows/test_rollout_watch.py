"""The figures of a live rollout: both arms, their course, each test's line under its bound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tutelage.core.config_deploy import Limits
from tutelage.release.arms import ArmLog, Sample, Scores
from tutelage.release.evidence import Evidence
from tutelage.release.rollback import TESTS, judge
from tutelage.workflows.release.rollout_watch import POINTS, SPANS, figures_of, shown_e


def _samples(count: int, seed: int, slow: float, *, fails: float = 0.0) -> Iterator[Sample]:
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield Sample(
            float(number), float(rng.lognormal(4.6, 0.3) * slow), bool(rng.random() < fails)
        )


def _evidence(slow: float = 1.0, fails: float = 0.0, count: int = 400) -> Evidence:
    before = [Sample(-1.0 - n, 100.0 + n % 7, step=-1) for n in range(60)]
    stable = ArmLog.of([*before, *_samples(count, 1, 1.0)])
    return Evidence(stable, ArmLog.of(_samples(count, 2, slow, fails=fails)))


def test_arms_show_their_own_percentiles_and_no_request_from_before() -> None:
    found = _evidence()
    arms = figures_of(found, Limits())["arms"]
    live = found.baseline.latency_ms[found.baseline.live]
    assert arms["baseline"]["requests"] == 400
    assert arms["baseline"]["p95"] == pytest.approx(float(np.quantile(live, 0.95)))
    assert arms["canary"]["error_rate"] == 0


def test_a_slow_canary_crosses_the_bound_where_judge_says_fail() -> None:
    found, limits = _evidence(slow=3.0), Limits()
    figures = figures_of(found, limits)
    assert figures["verdict"] == judge(found.baseline, found.canary, limits).verdict == "fail"
    lines = {line["name"]: line for line in figures["bounds"]}
    assert set(lines) == set(TESTS) - {"scores"}
    slow = lines["latency_p90"]
    assert slow["peak"] >= slow["bound"] == pytest.approx(np.log10(len(TESTS) / limits.alpha))
    assert max(y for _, y in slow["points"]) == pytest.approx(slow["peak"], abs=0.001)
    assert len(slow["points"]) <= POINTS + 2
    assert figures["ratios"]["p95"] == pytest.approx(3.0, rel=0.3)


def test_an_equal_canary_stays_under_every_bound_and_says_what_it_could_not_show() -> None:
    figures = figures_of(_evidence(), Limits())
    assert figures["verdict"] == "pass"
    assert all(line["peak"] < line["bound"] for line in figures["bounds"])
    assert figures["unseen"]
    assert figures_of(_evidence(), Limits(), under_way=False)["unseen"] == []


def test_the_course_counts_every_answered_request_once() -> None:
    found = _evidence(fails=0.1)
    course = figures_of(found, Limits())["course"]
    assert len(course) == SPANS
    answered = int((~found.canary.failed).sum())
    assert sum(row["canary"]["requests"] for row in course) == answered


def test_scores_have_a_line_of_their_own() -> None:
    rng = np.random.default_rng(4)
    rows = [(bool(n % 2), float(rng.random() * (0.4 if n % 2 else 1.0)), -1) for n in range(800)]
    found = _evidence()
    scored = Evidence(found.baseline, found.canary, {"rating": Scores.of(rows)})
    figures = figures_of(scored, Limits())
    line = next(one for one in figures["bounds"] if one["name"] == "score rating")
    assert line["peak"] >= line["bound"]
    assert figures["scores"][0]["canary"] < figures["scores"][0]["baseline"]


def test_nothing_seen_yet_is_no_data() -> None:
    figures = figures_of(Evidence(ArmLog.of(()), ArmLog.of(())), Limits())
    assert figures["verdict"] == "no_data"
    assert figures["course"] == figures["bounds"] == []
    assert figures["ratios"]["p95"] is None


def test_a_log_that_cannot_be_read_shows_no_plot() -> None:
    broken = ArmLog.of((), problem="the request log can't be read (disk I/O error)")
    figures = figures_of(Evidence(broken, broken), Limits())
    assert figures["verdict"] == "collector_error"
    assert "disk I/O error" in figures["reasons"][0]


@pytest.mark.parametrize(("power", "text"), [(0.5, "3.16"), (2.0, "100"), (12.2, "10^12")])
def test_an_e_value_reads_short(power: float, text: str) -> None:
    assert shown_e(power) == text
