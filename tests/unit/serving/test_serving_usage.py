"""Tokens and cost, from records and from days whose records are gone; what the log keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from tutelage.core.artifact import utc_now
from tutelage.core.config import Deploy, Project
from tutelage.core.errors import ConfigError, DataError
from tutelage.serving.access.pricing import Pricing
from tutelage.serving.access.usage import report
from tutelage.serving.access.usage_span import span
from tutelage.serving.records.log_policy import keeps_texts
from tutelage.serving.records.retention import _AT_ONCE, delete_old
from tutelage.store.base import Store, open_store
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import DeploymentRow, ReleaseRow, RolloutRow
from tutelage.store.usage import UsageRow

BASE, TUNED = "b" * 64, "c" * 64
DAY = datetime(2026, 11, 26, 12, tzinfo=UTC)
AGES = (DAY - timedelta(days=400), DAY + timedelta(days=400))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    with store.begin() as session:
        for digest, name, adapter in ((BASE, "colours-base", None), (TUNED, "colours-v1", "a")):
            manifest = {"adapter": adapter}
            row = ReleaseRow(id=digest, name=name, kind="x", manifest=manifest, path="p")
            session.add(row)
    yield store
    store.close()


Write = Callable[..., None]


@pytest.fixture
def write(store: Store) -> Write:
    count = iter(range(1_000_000))

    def add(number: int = 1, at: datetime = DAY, **more: Any) -> None:
        with store.begin() as session:
            for _ in range(number):
                fields = {
                    "deployment": "colours", "release": BASE, "rollout": None, "step": None,
                    "arm": "stable", "user": None, "key_name": "shop", "split": "train",
                    "group_key": "g", "messages": [], "response": "", "finish_reason": "stop",
                    "status": 200, "error": None, "latency_ms": 1800.0, "first_token_ms": None,
                    "prompt_tokens": 100, "completion_tokens": 10, "checks": {}, "at": at,
                }  # fmt: skip
                session.add(RecordRow(id=f"r{next(count)}", **{**fields, **more}))

    return add


def priced(**prices: Any) -> Pricing:
    return Pricing(Project(name="colours", model="demo", prices=prices))


def used(store: Store, by: tuple[str, ...], pricing: Pricing | None = None) -> dict[str, Any]:
    return report(store, pricing or priced(), AGES, by)


def test_use_is_added_up_by_any_field(store: Store, write: Write) -> None:
    write(3)
    write(2, key_name=None, status=500, completion_tokens=0)
    write(4, at=DAY - timedelta(days=1), release=TUNED, key_name="app")
    write(1, arm="shadow")
    found = used(store, ("day", "key", "release"))
    rows = {tuple(row[f] for f in ("day", "key", "release")): row for row in found["rows"]}
    assert set(rows) == {
        ("2026-11-25", "app", "colours-v1"),
        ("2026-11-26", "shop", "colours-base"),
        ("2026-11-26", "(local)", "colours-base"),
        ("2026-11-26", "(shadow)", "colours-base"),
    }
    assert rows["2026-11-26", "(local)", "colours-base"]["failed"] == 2
    assert rows["2026-11-25", "app", "colours-v1"]["tokens"] == 440
    assert (found["total"]["requests"], found["total"]["prompt_tokens"]) == (10, 1000)
    assert found["total"]["cost"] is None and found["total"]["unpriced"] == 10


def test_costs_are_by_tokens_where_they_have_a_price_else_by_the_hour(
    store: Store, write: Write
) -> None:
    write(10)
    write(1, release=TUNED)
    pricing = priced(tokens={"base": {"prompt": 2.0, "completion": 10.0}}, hour=2.0)
    rows = {row["release"]: row for row in used(store, ("release",), pricing)["rows"]}
    assert rows["colours-base"]["cost"] == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
    assert rows["colours-v1"]["cost"] == pytest.approx(1.8 / 3600 * 2)
    named = priced(tokens={"colours-v1": {"prompt": 1.0, "completion": 1.0}})
    found = used(store, ("release",), named)
    assert found["total"]["unpriced"] == 10
    assert found["total"]["cost"] == pytest.approx(110 / 1e6)


def test_deleted_records_leave_their_sums(store: Store, write: Write) -> None:
    old = utc_now() - timedelta(days=40)
    write(_AT_ONCE + 3, at=old)
    write(2, at=old, key_name="app", status=429, prompt_tokens=0, completion_tokens=0)
    write(2, at=utc_now())
    before = used(store, ("deployment", "release", "key"))
    with store.begin() as session:
        session.add(SignalRow(key="s", record="r0", kind="edit", explicit=True, value={}))
    assert delete_old(store, utc_now() - timedelta(days=30)) == _AT_ONCE + 5
    assert delete_old(store, utc_now() - timedelta(days=30)) == 0
    assert used(store, ("deployment", "release", "key")) == before
    with store.session() as session:
        assert session.scalar(select(func.count()).select_from(RecordRow)) == 2
        assert session.scalar(select(func.count()).select_from(SignalRow)) == 0
        assert session.scalar(select(func.count()).select_from(UsageRow)) == 2


def test_a_rollout_under_way_keeps_its_records(store: Store, write: Write) -> None:
    old = utc_now() - timedelta(days=40)
    with store.begin() as session:
        session.add(DeploymentRow(name="colours", stable=BASE, salt="s"))
        session.flush()
        for name, state in (("now", "running"), ("then", "promoted")):
            session.add(
                RolloutRow(
                    id=name, deployment="colours", baseline=BASE, candidate=TUNED,
                    strategy="canary", plan={}, state=state, step=0, fence=0,
                )
            )  # fmt: skip
    write(1, at=old, rollout="now")
    write(1, at=old, rollout="then")
    assert delete_old(store, utc_now()) == 1
    with store.session() as session:
        assert session.scalars(select(RecordRow.rollout)).all() == ["now"]


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        ("7d", "2026-11-26", 7 * 24),
        ("2026-11-26", "2026-11-26", 24),
        ("2026-11-01T06:00", "2026-11-02", 42),
    ],
)
def test_spans_are_lengths_or_days(since: str, until: str, hours: int) -> None:
    begin, end = span(since, until)
    assert (end - begin).total_seconds() == hours * 3600
    assert end == datetime.fromisoformat(until).replace(tzinfo=UTC) + timedelta(days=1)


@pytest.mark.parametrize(
    ("since", "until"),
    [("soon", None), ("7d", "x"), ("2027-01-01", "2026-01-01"), ("7d", "9999-12-31")],
)
def test_spans_that_make_no_sense(since: str, until: str | None) -> None:
    with pytest.raises(DataError):
        span(since, until)


def test_use_by_an_unknown_field_names_the_nearest(store: Store) -> None:
    with pytest.raises(DataError, match="Did you mean 'deployment'"):
        used(store, ("deploymet",))


def test_a_sample_of_the_texts_is_kept_the_same_ones_each_time() -> None:
    names = [f"rec_{n * 2654435761 % 2**32:024x}" for n in range(4000)]
    some = Deploy(log="sampled", log_share=0.25)
    kept = [keeps_texts(some, name) for name in names]
    assert sum(kept) == pytest.approx(1000, abs=100)
    assert kept == [keeps_texts(some, name) for name in names]
    assert all(keeps_texts(Deploy(), name) for name in names)
    assert not any(keeps_texts(Deploy(log="none"), name) for name in names)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("budgets: [{key: shop}]", "needs requests, tokens or cost"),
        ("budgets: [{cost: 5}]", "prices has neither tokens nor hour"),
        ("budgets: [{tokens: 5, per: week}]", "tutelage.yaml:3"),
    ],
)
def test_budgets_that_make_no_sense_are_settings_errors(text: str, sentence: str) -> None:
    from tutelage.core.config_file import parse_config

    with pytest.raises(ConfigError) as caught:
        parse_config(f"name: colours\nmodel: demo\n{text}\n", "tutelage.yaml")
    assert sentence in caught.value.sentence()
