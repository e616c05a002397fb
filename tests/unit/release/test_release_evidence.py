"""The request log as the judge sees it: who counts, what is a failure, what came before."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete
from tests.unit.release.conftest import Home

from tutelage.core.config import Limits
from tutelage.release.deployments import ensure_deployment, start_rollout
from tutelage.release.evidence import Collector, Facts, count, counts, read_evidence
from tutelage.release.rollback import judge
from tutelage.release.rollout import RolloutPlan
from tutelage.release.sequential import NOBODY
from tutelage.store.base import make_engine
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import RolloutRow
from tutelage.store.scores import ScoreRow

Two = tuple[Home, str, str]


def record(number: int, rollout: RolloutRow | None, at: datetime, **values: object) -> RecordRow:
    """Return a request of the candidate, or of stable; without a rollout of any release."""
    stable = values.get("arm") == "stable"
    release = (rollout.baseline if stable else rollout.candidate) if rollout else "r"
    fields: dict[str, object] = {
        "id": f"rec_{number}", "deployment": "shop", "release": release, "arm": "canary", "step": 0,
        "rollout": rollout.id if rollout else None, "user": None, "key_name": None,
        "split": "train", "group_key": "g", "messages": [], "response": "x",
        "finish_reason": "stop", "status": 200, "error": None, "latency_ms": 100.0,
        "first_token_ms": None, "prompt_tokens": 1, "completion_tokens": 1, "checks": {}, "at": at,
    }  # fmt: skip
    return RecordRow(**(fields | values))


@pytest.fixture
def rollout(two: Two) -> tuple[Home, RolloutRow]:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    return home, start_rollout(home.store, "shop", tuned, RolloutPlan())


def test_arms_hold_what_each_release_answered(rollout: tuple[Home, RolloutRow]) -> None:
    home, row = rollout
    at = row.created_at
    bad = {"schema": {"ok": False, "why": "not JSON"}}
    asked_badly = {"content.request": {"ok": False, "why": "empty"}}
    rows = [
        record(1, row, at, arm="stable"),
        record(2, row, at + timedelta(seconds=2), status=502, error="engine", step=1),
        record(3, row, at + timedelta(seconds=1), checks=bad),
        record(4, row, at + timedelta(seconds=3), checks=asked_badly),
        record(5, row, at, status=429),  # turned away by the gateway: nobody's fault
        record(6, row, at + timedelta(seconds=4), status=499),  # the client left
        record(7, None, at - timedelta(seconds=9), arm="stable", release=row.baseline, step=None),
        record(8, None, at - timedelta(seconds=9), arm="stable", release="another"),
    ]
    with home.store.begin() as session:
        session.add_all(rows)
    found = read_evidence(home.store, row, Facts({"memory": (0.5,)}))
    stable, canary = found.baseline, found.canary
    assert list(stable.step) == [-1, 0]
    assert list(canary.failed) == [False, True, False, False]
    assert list(canary.flagged) == [True, False, False, False]
    assert list(canary.step) == [0, 1, 0, 0]
    assert canary.memory == {"memory": (0.5,)}
    counts = count(home.store, row, now=at + timedelta(seconds=64))
    assert (counts.step, counts.total, counts.quiet_s) == (3, 4, 60)


def test_a_candidate_whose_requests_the_engine_refuses_is_rolled_back(
    rollout: tuple[Home, RolloutRow],
) -> None:
    """A longer prompt that no longer fits, a schema that the engine can't follow."""
    home, row = rollout
    blocked = {"content.request": {"ok": False, "why": "a control token"}}

    def verdict(**refused: object) -> tuple[str, str]:
        with home.store.begin() as session:
            session.execute(delete(RecordRow))
            for number in range(300):
                at = row.created_at + timedelta(seconds=number)
                ours = number % 5 == 0
                user = f"user-{number % 60}"
                asked = {"user": user, **(refused if ours else {"arm": "stable"})}
                session.add(record(number, row, at, **asked))
        found = read_evidence(home.store, row)
        told = judge(found.baseline, found.canary, Limits())
        return told.verdict, told.reasons[0]

    said, why = verdict(status=400)
    assert said == "fail"
    assert "errors: 12 of 12 candidate requests failed or were refused" in why
    assert verdict(status=400, user="one broken client") == (
        "no_data", "the engine refused every request of the candidate, from one user",
    )  # fmt: skip
    assert verdict(status=400, checks=blocked)[0] == "no_data"
    assert verdict(status=200)[0] == "pass"


def test_in_a_shadow_step_copies_are_compared_with_copies(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    plan = RolloutPlan((100.0, 50.0, 100.0), shadow=1)
    row = start_rollout(home.store, "shop", tuned, plan)
    at = row.created_at
    with home.store.begin() as session:
        session.add_all([
            record(1, row, at, arm="stable", latency_ms=1.0),  # its copies came behind it
            record(2, row, at, arm="shadow", latency_ms=300.0, user="ann"),
            record(3, row, at, arm="shadow", release=base, latency_ms=200.0),
            record(4, row, at, arm="stable", latency_ms=100.0, step=1),
            record(5, row, at, arm="canary", latency_ms=150.0, step=1, user="ann"),
            record(6, None, at - timedelta(seconds=9), arm="shadow", release=row.baseline,
                   step=None),
            ScoreRow(item="rec_2", metric="judge", value=1.0, candidate="r", evidence={},
                     source="judge"),
        ])  # fmt: skip
    found = read_evidence(home.store, row)
    assert found.canary.users[0] == NOBODY != found.canary.users[1]  # copies go by request
    assert list(found.scores["judge"].user) == [NOBODY]
    assert list(found.canary.latency_ms) == [300, 150]
    assert list(found.baseline.latency_ms) == [200, 100]
    assert count(home.store, row).total == 2


def test_who_asked_is_known_in_both_arms_and_before(rollout: tuple[Home, RolloutRow]) -> None:
    home, row = rollout
    at = row.created_at
    earlier = {"arm": "stable", "release": row.baseline, "step": None}
    with home.store.begin() as session:
        session.add_all([
            record(1, None, at - timedelta(seconds=9), user="ann", **earlier),
            record(2, row, at, user="bob", arm="stable"), record(3, row, at, user="eve"),
            record(4, row, at + timedelta(seconds=1), user="ann"),
            record(5, row, at + timedelta(seconds=2)),
            ScoreRow(item="rec_3", metric="judge", value=1.0, candidate="r", evidence={},
                     source="judge"),
            ScoreRow(item="rec_5", metric="judge", value=1.0, candidate="r", evidence={},
                     source="judge"),
        ])  # fmt: skip
    collector = Collector(home.store, row)
    for _ in range(2):
        found = collector.read()
        (ann, bob), (eve, again, nobody) = found.baseline.users, found.canary.users
        assert ann == again and len({ann, bob, eve}) == 3 and nobody == NOBODY
        eve, nobody = found.scores["judge"].user
        assert eve != NOBODY and nobody == NOBODY


def test_scores_come_in_order_of_arrival_one_an_answer(rollout: tuple[Home, RolloutRow]) -> None:
    home, row = rollout
    at = row.created_at

    def mark(item: int, metric: str, value: float | None, **more: object) -> ScoreRow:
        fields = {"candidate": "r", "evidence": {}, "source": "judge", **more}
        return ScoreRow(item=f"rec_{item}", metric=metric, value=value, **fields)

    with home.store.begin() as session:
        session.add_all([
            record(1, row, at, arm="stable"), record(2, row, at), record(3, row, at, arm="shadow"),
            record(4, None, at, arm="stable"),
        ])  # fmt: skip
        for one in [
            mark(2, "judge", 0.5), mark(1, "judge", 1.0), mark(2, "judge", 0.0),
            mark(3, "judge", 0.25), mark(4, "judge", 1.0), mark(1, "judge", None),
            mark(1, "judge", 0.1, evaluation="e" * 64), mark(1, "stars", 4.0),
        ]:  # fmt: skip
            session.add(one)
            session.flush()
        session.add_all([
            SignalRow(key="a", record="rec_1", kind="rating", explicit=True, value={"value": 1.0}),
            SignalRow(key="b", record="rec_1", kind="comment", explicit=True, value={"value": "x"}),
        ])  # fmt: skip
    found = read_evidence(home.store, row).scores
    assert list(found) == ["judge", "rating"], "stars are outside 0..1"
    assert list(found["judge"].value) == [0.5, 1.0, 0.25]
    assert list(found["judge"].canary) == [True, False, True]
    assert list(found["rating"].value) == [1.0]


def test_what_is_read_piece_by_piece_is_what_is_read_at_once(
    rollout: tuple[Home, RolloutRow],
) -> None:
    home, row = rollout
    at = row.created_at
    collector = Collector(home.store, row)
    assert len(collector.read().canary) == 0
    for number in range(6):  # two at each time, one of them written late
        with home.store.begin() as session:
            session.add_all([
                record(2 * number, row, at + timedelta(seconds=100 * number), latency_ms=number),
                record(2 * number + 1, row, at + timedelta(seconds=100 * number - 30), step=1),
            ])  # fmt: skip
        found, whole = collector.read(), read_evidence(home.store, row)
        assert list(found.canary.at) == list(whole.canary.at)
        assert list(found.canary.step) == list(whole.canary.step)
        assert list(found.canary.latency_ms) == list(whole.canary.latency_ms)
        now = at + timedelta(seconds=1000)
        assert counts(found, row, now) == count(home.store, row, now)
    assert len(collector._recent) < 12, "what can't come again is forgotten"


def test_quiet_is_counted_from_the_step_when_nobody_came(rollout: tuple[Home, RolloutRow]) -> None:
    home, row = rollout
    counts = count(home.store, row, now=row.step_started_at + timedelta(seconds=30))
    assert (counts.step, counts.total, counts.quiet_s) == (0, 0, 30)
    found = read_evidence(home.store, row)
    assert judge(found.baseline, found.canary, Limits()).verdict == "no_data"


def test_a_store_that_can_not_be_read_is_a_collector_error(
    rollout: tuple[Home, RolloutRow],
) -> None:
    home, row = rollout
    with make_engine(str(home.store.engine.url)).begin() as connection:
        connection.exec_driver_sql("DROP TABLE records")
    read = read_evidence(home.store, row)
    found = judge(read.baseline, read.canary, Limits())
    assert found.verdict == "collector_error"
    assert "the request log can't be read (no such table" in found.reasons[0]


def test_requests_after_the_clock_was_set_back_are_read(rollout: tuple[Home, RolloutRow]) -> None:
    home, row = rollout
    collector = Collector(home.store, row)
    for number, days in enumerate((0, 2, 0, -2, 0)):
        with home.store.begin() as session:
            session.add(record(number, row, row.created_at + timedelta(days=days)))
        assert len(collector.read().canary) == number + 1
