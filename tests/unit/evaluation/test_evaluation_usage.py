"""Time, tokens and money of answers: quantiles with intervals, alone and in batches, prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.evaluation_rows import colour_task, right_answers

from tutelage.core.config_prices import Prices, TokenPrice
from tutelage.evaluation.candidates import make_candidates
from tutelage.evaluation.cost import cost_scores, document, rate_of, token_price
from tutelage.evaluation.latency import measure_alone, spread
from tutelage.evaluation.rows import Journal, RowResult
from tutelage.evaluation.runner import Bench, run
from tutelage.evaluation.scoring import Scored
from tutelage.evaluation.significance import Interval
from tutelage.evaluation.usage import (
    alone_ratio,
    gap,
    p95_ratio,
    slowdown,
    usage,
    wall_seconds,
)
from tutelage.inference.base import Completion, Prompt
from tutelage.inference.base import Usage as Tokens


def timed(item: str, latency_ms: float, batch: int = 0, **more: object) -> RowResult:
    fields = {"prompt_tokens": 100, "completion_tokens": 10, "first_token_ms": latency_ms / 2}
    return RowResult("base", item, "text", "stop", latency_ms=latency_ms, batch=batch,
                     **(fields | more))  # type: ignore[arg-type]  # fmt: skip


def rows(times: Sequence[float], batch_size: int = 1) -> list[RowResult]:
    return [timed(str(n), time, n // batch_size) for n, time in enumerate(times)]


# --- in batches -----------------------------------------------------------------------------


def test_quantiles_are_numpys_and_lie_in_their_intervals() -> None:
    times = list(np.random.default_rng(0).lognormal(5, 0.5, 300))
    found = usage(rows(times))
    assert found is not None
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        value = getattr(found, f"{name}_ms")
        low, high = found.intervals[f"{name}_ms"]
        assert value == pytest.approx(np.quantile(times, share)) and low <= value <= high
    assert found.first_token_p95_ms == pytest.approx(np.quantile(times, 0.95) / 2)
    assert found.per_token_p50_ms == pytest.approx(np.median(times) / 2 / 10)


def test_the_interval_of_a_quantile_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(1), 0
    for seed in range(150):
        found = usage(rows(list(rng.exponential(100, 120))), seed=seed)
        assert found is not None
        low, high = found.intervals["p50_ms"]
        held += low <= 100 * np.log(2) <= high
    assert 0.89 <= held / 150 <= 0.99


def test_rows_of_a_batch_are_drawn_together() -> None:
    rng = np.random.default_rng(2)
    times = [float(t) for batch in rng.exponential(100, 15) for t in [batch] * 8]
    together, apart = usage(rows(times, 8)), usage(rows(times, 1))
    assert together is not None and apart is not None and together.batch_rows == 8

    def width(limits: tuple[float, float]) -> float:
        return limits[1] - limits[0]

    assert width(together.intervals["p50_ms"]) > 1.5 * width(apart.intervals["p50_ms"])


def test_throughput_counts_a_batch_as_long_as_its_last_row() -> None:
    batch = [timed("a", 500.0), timed("b", 1000.0), timed("c", 250.0, 1)]
    assert wall_seconds(batch) == 1.25
    found = usage(batch)
    assert found is not None
    assert found.rows_per_second == pytest.approx(3 / 1.25)
    assert found.tokens_per_second == pytest.approx(30 / 1.25)
    one = usage(batch[:1])
    assert one is not None and one.intervals == {}  # a single batch tells no spread


def test_what_failed_or_was_not_measured_is_left_out() -> None:
    failed = RowResult("base", "x", "", "error", latency_ms=9e9)
    plain = RowResult("base", "y", "text", "stop", latency_ms=80.0, completion_tokens=4)
    found = usage([failed, plain])
    assert found is not None and (found.rows, found.p99_ms) == (1, 80.0)
    assert found.first_token_p50_ms is None and found.per_token_p50_ms is None
    assert usage([failed]) is None and found.alone is None


def test_the_end_of_an_answer_is_a_step_too() -> None:
    assert gap(600.0, 100.0, 5, "stop") == 100.0
    assert gap(600.0, 100.0, 6, "length") == 100.0
    assert gap(600.0, None, 5, "stop") is None and gap(600.0, 100.0, 1, "length") is None


def test_ratios_compare_rows_that_both_answered() -> None:
    base = rows([100.0 + n for n in range(40)])
    ours = [timed(row.item, row.latency_ms * 1.5, row.batch) for row in base[:30]]
    found = p95_ratio(ours, base, confidence=0.95, seed=0)
    assert found is not None and found.n == 30
    assert found.estimate == pytest.approx(1.5) and found.low == pytest.approx(1.5)
    assert p95_ratio(ours, [], confidence=0.95, seed=0) is None
    assert alone_ratio(ours, base, confidence=0.95, seed=0) is None


def test_few_batches_tell_nothing_and_rows_that_were_asked_alone_speak_for_them() -> None:
    base = rows([100.0 + n for n in range(40)], 8)  # five batches
    ours = [timed(row.item, 3 * row.latency_ms, row.batch) for row in base]
    assert p95_ratio(ours, base, confidence=0.95, seed=0) is None
    assert slowdown(ours, base, confidence=0.95, seed=0) is None
    for one, times in ((base, 1.0), (ours, 1.1)):
        one[:] = [replace(row, detail={"alone_ms": 50.0 * times}) for row in one]
    found = slowdown(ours, base, confidence=0.95, seed=0)
    assert found is not None and found.alone
    assert found.ratio.estimate == pytest.approx(1.1)
    more = rows([100.0 + n for n in range(48)], 8)
    together = slowdown(more, more, confidence=0.95, seed=0)
    assert together is not None and not together.alone


# --- one at a time --------------------------------------------------------------------------


class Clock(FakeEngine):
    """Takes 10 ms a prompt, all of a batch together."""

    def generate(self, prompts: Sequence[Prompt], on_done: object = None) -> list[Completion]:
        found = super().generate(prompts)
        took = 10.0 * len(prompts)
        return [
            Completion(one.text, one.finish_reason, Tokens(9, 4, 0), took, took / 2)
            for one in found
        ]


def test_a_single_user_is_timed_on_a_few_rows_once_each(tmp_path: Path) -> None:
    task = colour_task(test=10)
    answers = right_answers(task)
    candidates = make_candidates(task, few_shot=2, tuned=True)
    engine = Clock(answers, answers)
    bench = Bench(engine, tmp_path, batch_size=5)
    journal = Journal(tmp_path / "rows.jsonl")
    run(task, candidates, bench, journal)
    before = [journal.get("base", row.id) for row in task.rows]
    asked = len(engine.calls)
    measure_alone(task, candidates, bench, journal, 4)
    assert len(engine.calls) - asked == 3 * (4 + 1)  # three who write, and a warm-up each
    assert [who for who, _ in engine.calls[asked:]] == ["base"] * 10 + ["tuned"] * 5
    measure_alone(task, candidates, bench, Journal(tmp_path / "rows.jsonl"), 4)
    assert len(engine.calls) - asked == 15  # what is in the journal is not asked again
    kept = [found for row in task.rows if (found := journal.get("base", row.id))]
    found = usage(kept)
    assert found is not None and found.alone is not None
    assert (found.alone.rows, found.alone.p50_ms, found.p50_ms) == (4, 10.0, 50.0)
    assert (found.alone.p95_ms, found.alone.p99_ms) == (None, None)  # four rows can't tell
    assert found.alone.per_token_p50_ms == 1.25 and found.alone.tokens_per_second == 400.0
    assert [row.text for row in kept] == [row.text for row in before if row]


def test_a_sample_holds_short_and_long_rows() -> None:
    task = colour_task(test=30)
    chosen = spread(task.rows, 5)
    assert len({row.id for row in chosen}) == 5 and spread(task.rows, 99) != []
    assert spread(task.rows, 5) == chosen and len(spread(task.rows, 99)) == 30


def test_the_ratio_of_single_answers_pairs_rows() -> None:
    base = [timed(str(n), 1.0, detail={"alone_ms": 100.0 + n}) for n in range(20)]
    ours = [timed(str(n), 1.0, detail={"alone_ms": 2 * (100.0 + n)}) for n in range(20)]
    found = alone_ratio(ours, base, confidence=0.95, seed=0)
    assert found is not None and found.estimate == pytest.approx(2.0) and found.n == 20


# --- money ----------------------------------------------------------------------------------

PRICES = Prices(
    currency="EUR", hour=0.9,
    tokens={"gpt-x": TokenPrice(prompt=2.0, cached=0.5, completion=8.0),
            "tuned": TokenPrice(prompt=4.0, completion=16.0)},
)  # fmt: skip


def test_tokens_cost_what_the_table_says_cached_ones_less() -> None:
    row = timed("a", 1.0, prompt_tokens=1000, cached_tokens=400, completion_tokens=50)
    price = PRICES.tokens["gpt-x"]
    assert token_price(row, price) == pytest.approx((600 * 2 + 400 * 0.5 + 50 * 8) / 1e6)
    assert token_price(row, PRICES.tokens["tuned"]) == pytest.approx((1000 * 4 + 50 * 16) / 1e6)
    assert token_price(timed("a", 1.0, prompt_tokens=0, completion_tokens=0), price) is None


def test_a_candidate_is_priced_by_its_name_then_its_model_then_the_hour() -> None:
    named = rate_of(PRICES, "tuned_constrained", ["gpt-x"])
    assert named is not None and named.tokens == PRICES.tokens["tuned"]
    model = rate_of(PRICES, "few_shot", ["gpt-x"])
    assert model is not None and model.tokens == PRICES.tokens["gpt-x"]
    hour = rate_of(PRICES, "base", ["demo"])
    assert hour is not None and (hour.tokens, hour.hour, hour.basis) == (None, 0.9, "time")
    assert rate_of(Prices(), "base", ["demo"]) is None
    lent = rate_of(Prices(), "base", ["demo"], 3.6)
    assert lent is not None and lent.hour == 3.6


def test_by_time_the_rows_of_a_batch_share_its_time() -> None:
    rate = rate_of(Prices(hour=3.6), "base")
    assert rate is not None
    batch = [timed("a", 500.0), timed("b", 1000.0), timed("c", 250.0, 1)]
    chosen = RowResult("base", "d", "text", "chosen", latency_ms=100.0)
    found = {item: score.value for item, score in cost_scores([*batch, chosen], rate).items()}
    # 3.6 an hour is 0.001 a second, so 1,000 answers cost as much as one takes seconds
    assert found == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.25, "d": 0.1})


def test_the_report_says_by_what_a_cost_was_counted() -> None:
    rate = rate_of(PRICES, "base", ["gpt-x"])
    assert rate is not None
    given = cost_scores([timed("a", 1.0)], rate)
    scored = Scored(
        "base", "base model", {}, {"cost": given}, {"cost": Interval(0.28, 0.2, 0.3, 1)}
    )
    found = document({"base": scored, "other": Scored("other", "", {}, {}, {})})
    assert found is not None and "By tokens" in found["note"]
    assert found["candidates"] == [
        {"name": "base", "title": "base model", "EUR_for_1000_answers": 0.28, "low": 0.2,
         "high": 0.3, "by": "tokens"}
    ]  # fmt: skip
    assert document({}) is None


def test_prices_below_zero_are_refused() -> None:
    with pytest.raises(ValidationError):
        TokenPrice(prompt=-1.0, completion=1.0)
    with pytest.raises(ValidationError):
        Prices(hour=-0.1)
