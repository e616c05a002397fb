"""Rates, addresses and budgets by name: pure parts, with a clock of their own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tutelage.core.config_usage import UsageBudget
from tutelage.core.example import Message
from tutelage.serving.access.accounts import (
    accounts_of,
    likely_prompt_tokens,
    most_prompt_tokens,
    number,
    period_end,
    period_of,
)
from tutelage.serving.access.keys import LOCAL, Allowance, Caller
from tutelage.serving.access.limits import _length
from tutelage.serving.access.throttle import Bucket, Throttle

NOON = datetime(2026, 12, 31, 12, 30, 15, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_allows_a_minutes_worth_and_refills_evenly() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    for _ in range(60):
        assert bucket.wait_for(1) == 0.0
        bucket.take(1)
    assert bucket.wait_for(1) == pytest.approx(1.0)
    assert (bucket.left, bucket.full_in) == (0.0, pytest.approx(60.0))
    clock.now = 1.0
    assert bucket.wait_for(1) == 0.0
    clock.now = 1000.0
    assert bucket.left == 60


def test_a_request_larger_than_the_bucket_starts_when_it_is_full_and_is_paid_back() -> None:
    clock = Clock()
    bucket = Bucket(100, clock)
    assert bucket.wait_for(500) == 0.0
    bucket.take(500)
    assert bucket.wait_for(1) == pytest.approx(401 * 0.6)
    bucket.give_back(480)  # it was far smaller
    assert bucket.left == 80
    assert bucket.wait_for(500) == pytest.approx(12.0)
    bucket.rate(50)
    assert bucket.left == 50


def test_addresses_are_throttled_apart_and_forgotten_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    throttle = Throttle(2, clock)
    assert [throttle.take("10.0.0.1") for _ in range(3)] == [0.0, 0.0, pytest.approx(30.0)]
    assert throttle.take("10.0.0.2") == 0.0
    assert throttle.take("2001:db8::1") == throttle.take("2001:db8::2") == 0.0
    assert throttle.take("2001:db8::ffff") > 0  # one /64 is one host
    assert throttle.take("2001:db8:0:1::1") == 0.0
    monkeypatch.setattr("tutelage.serving.access.throttle._MOST_ADDRESSES", 3)
    for number_ in range(50):
        throttle.take(f"10.1.0.{number_}")
    assert len(throttle) <= 5


def test_the_most_particular_budget_holds() -> None:
    budgets = [
        UsageBudget(key="*", tokens=100, per="day"),
        UsageBudget(key="vip", tokens=500, per="day"),
        UsageBudget(tokens=9000, per="month"),
        UsageBudget(key="*", deployment="other", requests=1, per="day"),
    ]

    def limits(caller: Caller) -> dict[str, float]:
        found = accounts_of(budgets, caller, "colours")
        return {f"{a.key} {a.unit}/{a.per}": a.limit for a in found}

    everybody = {"None tokens/month": 9000.0}
    assert limits(Caller("shop", "client")) == {"shop tokens/day": 100.0, **everybody}
    assert limits(Caller("vip", "client")) == {"vip tokens/day": 500.0, **everybody}
    own = Caller(
        "vip", "client", budgets=(Allowance("tokens", "day", 7), Allowance("cost", "total", 2))
    )
    assert limits(own) == {"vip tokens/day": 7.0, "vip cost/total": 2.0, **everybody}
    assert limits(LOCAL) == {"(local) tokens/day": 100.0, **everybody}
    assert len(accounts_of(budgets, Caller("shop", "client"), "other")) == 3


def test_an_account_keeps_its_name_when_its_limit_changes() -> None:
    ids = {
        accounts_of([UsageBudget(tokens=limit, per="day")], LOCAL, "colours")[0].id
        for limit in (1, 2)
    }
    assert ids == {"tokens/day key=* deployment=*"}


@pytest.mark.parametrize(
    ("per", "name", "end"),
    [
        ("minute", "2026-12-31T12:30", datetime(2026, 12, 31, 12, 31, tzinfo=UTC)),
        ("hour", "2026-12-31T12", datetime(2026, 12, 31, 13, tzinfo=UTC)),
        ("day", "2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("month", "2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        ("total", "all", None),
    ],
)
def test_periods_are_of_the_calendar_in_utc(per: str, name: str, end: datetime | None) -> None:
    assert period_of(per, NOON) == name
    assert period_end(per, NOON) == end


def test_the_bound_on_a_prompt_holds_for_any_text() -> None:
    texts = ["word " * 50, "ünï©ode 漢字 🙂" * 20, "\n\n\x00", ""]
    for text in texts:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 5}
        assert most_prompt_tokens(body) >= len(text.encode())
    more = {"messages": [], "tools": [{"type": "function", "function": {"name": "f" * 100}}]}
    assert most_prompt_tokens(more) > 100
    assert likely_prompt_tokens([Message(role="user", content="a" * 40)], "b" * 4) == 11


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.02, "20ms"), (1.5, "1.5s"), (59.99, "59.99s"), (360, "6m0s")]
)
def test_lengths_are_written_as_openai_does(seconds: float, words: str) -> None:
    assert _length(seconds) == words


def test_amounts_are_written_out() -> None:
    assert [number(v) for v in (1_000_000.0, 0.25, 0.0)] == ["1,000,000", "0.25", "0"]
