"""Scores of live answers: a drop is proven, or excluded, and otherwise said to be unknown."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.core.config import Limits
from tutelage.release import sequential as seq
from tutelage.release.arms import ArmLog, Sample, Scores
from tutelage.release.means import BETS, ScoreBlocks, drop_seen, information_needed
from tutelage.release.power import Blocks, rate_seen
from tutelage.release.quality import score_tests
from tutelage.release.rollback import judge, unseen

LIMITS = Limits()


def scores(
    rng: np.random.Generator, count: int, *, drop: float = 0.0, weight: float = 0.25
) -> Scores:
    """Return scores of 0 or 1; stable is right in 80 %."""
    canary = rng.random(count) < weight
    return Scores(canary, (rng.random(count) < 0.8 - drop * canary).astype(float))


def requests(count: int, *, canary: bool) -> ArmLog:
    return ArmLog.of(Sample(2.0 * i + canary, 100.0 + i % 7) for i in range(count))


def test_blocks_compare_the_means_of_the_same_time() -> None:
    canary = np.array([True, False] * 8)
    value = np.where(canary, 0.25, 0.75)
    blocks = ScoreBlocks.of(Scores(canary, value))
    assert len(blocks) == 1
    assert blocks.difference == pytest.approx([0.5])
    assert (blocks.canary == 8).all() and (blocks.baseline == 8).all()
    assert (blocks.weight == 1).all() and blocks.information == 4
    steps = np.log1p(np.array(BETS)[:, None] * blocks.weight * blocks.difference)
    assert blocks.worse() == pytest.approx(seq.log_capital(steps))


def test_a_user_who_rates_everything_counts_once_in_a_block() -> None:
    canary, value = np.array([True, False] * 400), np.tile([0.0, 1.0], 400)
    angry = np.where(canary, 0, 1 + np.arange(800))  # one on the canary, many on stable
    apart = ScoreBlocks.of(Scores(canary, value))
    of_users = ScoreBlocks.of(Scores(canary, value, angry))
    assert apart.canary.sum() == 400
    assert (of_users.canary == 1).all() and len(of_users) < 80


def test_a_block_of_one_arm_says_nothing() -> None:
    only = Scores(np.ones(40, bool), np.zeros(40))
    assert len(ScoreBlocks.of(only)) == 0
    assert len(ScoreBlocks.of(only).worse()) == 0


def test_equal_scores_are_rarely_a_drop_and_a_drop_is_rarely_excluded() -> None:
    rng = np.random.default_rng(2)
    limit = np.log(1 / LIMITS.alpha)
    equal = [ScoreBlocks.of(scores(rng, 2000)).worse().max() for _ in range(100)]
    assert sum(peak >= limit for peak in equal) <= 3
    worse = [ScoreBlocks.of(scores(rng, 2000, drop=0.05)).within(0.05).max() for _ in range(100)]
    assert sum(peak >= limit for peak in worse) <= 3


def test_scores_drawn_often_enough_decide() -> None:
    rng = np.random.default_rng(3)
    (found,) = score_tests({"judge": scores(rng, 14_000)}, LIMITS, 7, 3500)
    assert found.held and not found.failed and not found.withheld
    (found,) = score_tests({"judge": scores(rng, 14_000, drop=0.1)}, LIMITS, 7, 3500)
    assert found.failed and not found.held
    assert "the mean score of" in found.sentence()


def test_the_scores_needed_find_a_drop_in_most_runs() -> None:
    rng = np.random.default_rng(4)
    limit = float(np.log(100))
    many = scores(rng, 20_000)
    blocks = ScoreBlocks.of(many)
    needed = information_needed(0.1, blocks.sd, limit)
    assert drop_seen(needed, blocks.sd, limit) == pytest.approx(0.1)
    count = round(len(many.value) * needed / blocks.information)
    peaks = [ScoreBlocks.of(scores(rng, count, drop=0.1)).worse().max() for _ in range(80)]
    assert 0.7 <= np.mean([peak >= limit for peak in peaks]) <= 0.95


def test_a_later_metric_takes_nothing_from_the_first() -> None:
    rng = np.random.default_rng(5)
    first = scores(rng, 400)
    (alone,) = score_tests({"judge": first}, LIMITS, 7, 100)
    both = score_tests({"judge": first, "rating": scores(rng, 400)}, LIMITS, 7, 100)
    assert both[0] == alone
    assert both[1].threshold == pytest.approx(alone.threshold + np.log(5))


def test_all_traffic_waits_only_for_scores_that_can_decide() -> None:
    rng = np.random.default_rng(6)
    many = judge(requests(300, canary=False), requests(100, canary=True), LIMITS,
                 {"judge": scores(rng, 400)})  # fmt: skip
    assert many.verdict == "pass"
    assert "do not exclude a drop of 5 points yet" in many.withheld
    few = judge(requests(9000, canary=False), requests(3000, canary=True), LIMITS,
                {"judge": scores(rng, 100)})  # fmt: skip
    assert (few.verdict, few.withheld) == ("pass", "")
    said = unseen(requests(9000, canary=False), requests(3000, canary=True), LIMITS,
                  {"judge": scores(rng, 100)})  # fmt: skip
    assert said[-1].startswith("quality: a drop under ") and "in judge" in said[-1]


def test_what_can_not_be_seen_is_said() -> None:
    alone = unseen(ArmLog.of([]), requests(50, canary=True), LIMITS)
    assert alone[0].startswith("no request of the stable release ran beside")
    assert alone[-1].startswith("quality: nothing scores live answers")
    beside = unseen(requests(300, canary=False), requests(100, canary=True), LIMITS)
    assert [line.split(":")[0] for line in beside] == ["latency", "errors", "checks", "quality"]
    assert beside[0].startswith("latency: a slowdown of all requests under 1.")
    tiny = unseen(requests(30, canary=False), requests(3, canary=True), LIMITS)
    assert tiny[1] == "errors: no rise could have been seen with so few requests"


@pytest.mark.parametrize(("weight", "base"), [(0.25, 0.01), (0.05, 0.05), (0.5, 0.2)])
def test_the_rate_that_is_seen_is_found_in_most_runs(weight: float, base: float) -> None:
    rng = np.random.default_rng(7)
    limit, count = float(np.log(700)), round(200 / weight)
    canary = rng.random(count) < weight
    rate = rate_seen(Blocks.of(canary), base, limit)
    assert base < rate < 1

    def share_found(rate: float) -> float:
        found = 0
        for _ in range(50):
            canary = rng.random(count) < weight
            bad = rng.random(count) < np.where(canary, rate, base)
            found += bool(seq.share_test(bad, canary, seq.cut(canary).ends).max() >= limit)
        return found / 50

    assert share_found(rate) >= 0.75
    assert share_found(base + 0.3 * (rate - base)) <= 0.5
