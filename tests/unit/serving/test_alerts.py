"""Rules, alerts in the store, and their notices: once, in order, across gateways and restarts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import AlertRule, Alerts
from tutelage.core.config_file import parse_config
from tutelage.core.errors import ConfigError
from tutelage.serving.monitoring.alert_store import (
    AlertBook,
    list_alerts,
    list_notices,
    list_silences,
    silence,
    unsilence,
)
from tutelage.serving.monitoring.alerts import BUILT_IN, Finding, Look, Watch, rules_of
from tutelage.serving.monitoring.events import (
    EventLog,
    Happening,
    add_event,
    forget_old,
    read_events,
)
from tutelage.serving.monitoring.telemetry_catalog import registry_of_all
from tutelage.store.base import Store, open_store

NOW = utc_now()
SLOW = AlertRule(name="slow", metric="latency_p99", above=2, level="error")
HOOKS = [
    {"name": "ops", "url": "http://127.0.0.1:9/"},
    {"name": "loud", "url": "http://127.0.0.1:9/", "level": "error"},
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


def book(store: Store, **settings: Any) -> AlertBook:
    alerts = Alerts.model_validate({"webhooks": HOOKS, "rules": [SLOW], **settings})
    return AlertBook(store, "colours", alerts, rules_of(alerts))


def slow(value: float = 3.0) -> Look:
    labels = {"deployment": "colours"}
    return Look(holds=[Finding(SLOW, labels, f"latency_p99 is {value:g}", value)])


def fine() -> Look:
    (finding,) = slow().holds
    return Look(fine={finding.key})


def after(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def told(store: Store) -> list[tuple[str, str]]:
    rows = sorted(list_notices(store), key=lambda row: (row.created_at, row.webhook))
    return [(row.webhook, row.status) for row in rows]


def test_an_alert_fires_once_and_tells_those_who_listen_when_it_begins_and_ends(
    store: Store,
) -> None:
    kept = book(store)
    for second in range(0, 50, 10):
        (row,) = kept.settle(slow(3 + second), after(second))
    assert (row.rule, row.count, row.value, row.threshold) == ("slow", 5, 43.0, 2.0)
    assert told(store) == [("loud", "firing"), ("ops", "firing")]
    assert len(kept.settle(fine(), after(60))) == 1  # not seen for 20 s: perhaps another saw it
    assert kept.settle(fine(), after(90)) == []
    assert told(store)[2:] == [("loud", "resolved"), ("ops", "resolved")]
    (ended,) = list_alerts(store, ended=True)
    assert (ended.state, ended.ended_at) == ("resolved", after(90))
    assert [e.kind for e in read_events(store)] == ["alert.firing", "alert.resolved"]
    bodies = [row.body for row in list_notices(store)]
    assert {body["text"] for body in bodies if body["status"] == "firing"} == {
        "[firing] colours, slow: latency_p99 is 3"
    }
    assert all(body["id"].startswith("ntc_") for body in bodies)


def test_two_gateways_on_one_store_tell_once_and_one_that_sees_it_keeps_it_open(
    store: Store,
) -> None:
    a, b = book(store), book(store)
    a.settle(slow(), after(0))
    b.settle(slow(), after(1))
    for second in range(10, 200, 10):
        a.settle(fine(), after(second))
        b.settle(slow(), after(second + 1))
    assert told(store) == [("loud", "firing"), ("ops", "firing")]


def test_a_restart_forgets_nothing_and_tells_nobody_again(store: Store) -> None:
    book(store).settle(slow(), after(0))
    again = book(store)
    again.settle(slow(), after(20))
    assert len(told(store)) == 2
    # The new process has seen too little to know: it waits the window out, then ends it.
    assert len(again.settle(Look(), after(300))) == 1
    assert again.settle(Look(), after(400)) == []
    assert told(store)[2:] == [("loud", "resolved"), ("ops", "resolved")]


def test_an_alert_that_goes_on_is_told_again(store: Store) -> None:
    kept = book(store, repeat="1h")
    kept.settle(slow(), after(0))
    kept.settle(slow(), after(3000))
    kept.settle(slow(), after(3600))
    assert told(store) == [(name, "firing") for name in ("loud", "ops", "loud", "ops")]


def test_an_alert_of_a_rule_that_was_taken_out_ends(store: Store) -> None:
    book(store).settle(slow(), after(0))
    assert book(store, rules=[]).settle(Look(), after(60)) == []
    (row,) = list_alerts(store, ended=True)
    assert row.state == "resolved"
    assert "no longer in force" in read_events(store)[-1].message


def test_a_silenced_alert_is_listed_and_told_of_when_the_silence_ends(store: Store) -> None:
    silence(store, "sl*", after(100), deployment="colours", author="anna", reason="a test")
    kept = book(store)
    kept.settle(slow(), after(0))
    assert len(list_alerts(store)) == 1
    assert told(store) == []
    assert [(s.rule, s.author) for s in list_silences(store, NOW)] == [("sl*", "anna")]
    kept.settle(slow(), after(101))
    assert len(told(store)) == 2
    assert unsilence(store, "sl*", NOW) == 1
    assert list_silences(store, NOW) == []


def test_the_end_of_what_was_told_is_told_though_it_is_silenced_by_then(store: Store) -> None:
    kept = book(store)
    kept.settle(slow(), after(0))
    silence(store, "slow", after(1000))
    assert kept.settle(fine(), after(100)) == []
    assert told(store)[2:] == [("loud", "resolved"), ("ops", "resolved")]


def test_a_silenced_alert_that_ended_unheard_is_not_told_of(store: Store) -> None:
    silence(store, "slow", after(1000))
    kept = book(store)
    kept.settle(slow(), after(0))
    assert kept.settle(fine(), after(100)) == []
    assert told(store) == []


def test_a_rollout_s_end_is_told_once_and_stays_not_open(store: Store) -> None:
    happening = Happening(
        "rollout.rolled_back", "colours: rolled_back at 0 %: errors", "error", "colours", "r1",
        once="move_1",
    )  # fmt: skip
    with store.begin() as session:
        assert add_event(session, happening)
        assert not add_event(session, happening)
    kept = book(store)
    assert kept.settle(Look(), after(0)) == []
    assert kept.settle(Look(), after(10)) == []
    assert told(store) == [("loud", "noted"), ("ops", "noted")]
    assert list_notices(store)[0].body["text"] == (
        "[error] colours, rolled-back: colours: rolled_back at 0 %: errors"
    )


def test_a_crashing_engine_is_one_alert_that_its_return_ends(store: Store) -> None:
    log, kept = EventLog(store), book(store)
    log.start()
    for _ in range(5):
        log.tell(Happening("engine.crashed", "the engine stopped answering", "error"))
    assert log.flush()
    (row,) = kept.settle(Look(), after(0))
    assert (row.rule, row.count) == ("engine-crashed", 5)
    log.tell(Happening("engine.restarted", "the engine answers again", "warning"))
    log.close()
    assert kept.settle(Look(), after(10)) == []
    assert told(store) == [
        ("loud", "firing"), ("ops", "firing"), ("loud", "resolved"), ("ops", "resolved"),
    ]  # fmt: skip


def test_an_event_whose_end_nobody_tells_ends_after_its_window(store: Store) -> None:
    with store.begin() as session:
        add_event(session, Happening("improve.failed", "a turn went wrong", "warning"))
    own = AlertRule(name="own", event="improve.failed", window="10m")
    kept = book(store, rules=[own])
    assert len(kept.settle(Look(), after(0))) == 1
    assert len(kept.settle(Look(), after(590))) == 1
    assert kept.settle(Look(), after(610)) == []


def test_drift_stays_open_until_its_own_end(store: Store) -> None:
    def tell(kind: str, deployment: str) -> None:
        with store.begin() as session:
            add_event(session, Happening(kind, "m", "warning", deployment, "r1 length"))

    kept = book(store)
    tell("drift.found", "a")
    kept.settle(Look(), after(0))
    tell("drift.ended", "b")
    assert len(kept.settle(Look(), after(7200))) == 1
    tell("drift.ended", "a")
    assert kept.settle(Look(), after(7210)) == []


def test_events_are_lost_from_the_oldest_on_and_counted_when_nothing_can_be_written() -> None:
    heard: list[str] = []
    log = EventLog(None, told=lambda happening: heard.append(happening.message))
    log.tell(Happening("gateway.started", "one"))
    assert heard == ["one"]
    assert log.flush()
    log.close()


def test_events_wait_for_a_store_that_is_locked_and_the_same_one_is_kept_once(
    tmp_path: Path,
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    store.engine.dispose()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)

    @event.listens_for(store.engine, "connect")
    def impatient(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA busy_timeout=1")

    other.execute("BEGIN IMMEDIATE")
    log = EventLog(store)
    log.start()
    log.tell(Happening("engine.crashed", "one", once="a"))
    assert not log.flush(0.2)
    log.tell(Happening("engine.crashed", "two"))
    log.tell(Happening("engine.crashed", "one", once="a"))
    other.execute("COMMIT")
    assert log.flush(30)
    log.close()
    assert [row.message for row in read_events(store)] == ["one", "two"]
    assert log.lost == 0
    other.close()
    store.close()


def test_what_a_closed_log_could_not_write_is_counted(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    with store.begin() as session:
        session.connection().exec_driver_sql("DROP TABLE events")
    log = EventLog(store, capacity=2)
    log.start()
    for text in "abc":
        log.tell(Happening("engine.crashed", text))
    log.close()
    assert log.lost == 3
    store.close()


def test_old_events_and_ended_alerts_are_forgotten(store: Store) -> None:
    kept = book(store)
    kept.settle(slow(), after(0))
    kept.settle(fine(), after(100))
    assert forget_old(store, after(1000)) > 0
    assert list_alerts(store, ended=True) == []
    assert list_notices(store) == []
    assert read_events(store) == []


def test_a_metric_must_hold_for_a_time_before_it_fires() -> None:
    registry = registry_of_all()
    backlog = AlertRule(name="b", metric="tutelage_log_backlog", above=5, hold="30s")
    watch = Watch([backlog], registry)
    gauge: Any = next(c for c in registry._collector_to_names if "tutelage_log_backlog" in
                      registry._collector_to_names[c])  # fmt: skip
    gauge.set(9)
    assert watch.look(0).holds == []
    assert watch.look(20).holds == []
    (finding,) = watch.look(30).holds
    assert finding.message == "tutelage_log_backlog is 9, above 5"
    gauge.set(5)
    look = watch.look(40)
    assert look.holds == []
    assert look.fine == {finding.key}
    gauge.set(9)
    assert watch.look(50).holds == []  # the time begins anew


def test_every_built_in_rule_can_be_evaluated() -> None:
    Watch(BUILT_IN, registry_of_all())
    assert len({rule.name for rule in BUILT_IN}) == len(BUILT_IN)


def test_own_rules_take_the_place_of_built_in_ones_and_off_turns_them_off() -> None:
    own = AlertRule(name="error-rate", metric="error_rate", above=0.5)
    found = rules_of(Alerts(rules=[own], off=["disk"]))
    assert [rule for rule in found if rule.name == "error-rate"] == [own]
    assert "disk" not in {rule.name for rule in found}
    with pytest.raises(ConfigError, match="Did you mean 'disk'"):
        rules_of(Alerts(off=["disc"]))


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ("rollout.rolledback", r"Did you mean 'rollout\.rolled_back'"),
        ("rolout", "Did you mean 'rollout'"),
        ("disk.*", "Topics are rollout, engine, release, backend"),
    ],
)
def test_a_rule_on_an_event_that_never_comes_is_refused(event: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"alerts\.rules, mine: there is no event .*{says}"):
        rules_of(Alerts(rules=[AlertRule(name="mine", event=event)]))


def test_rules_may_name_a_kind_a_topic_or_a_pattern() -> None:
    rules = [AlertRule(name=f"r{n}", event=e) for n, e in enumerate(("engine", "*.up", "drift.*"))]
    assert len(rules_of(Alerts(rules=rules))) == len(BUILT_IN) + 3


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("rules: [{name: x}]", "either metric or event"),
        ("rules: [{name: x, metric: error_rate}]", "either above or below"),
        ("rules: [{name: x, metric: error_rate, above: 1, window: 2h}]", "between 1s and 1h"),
        ("rules: [{name: x, event: engine, above: 1}]", "neither above nor below"),
        ("webhooks: [{name: x}]", "either url or url_env"),
        ("webhooks: [{name: x, url: ftp://a}]", "match pattern"),
        ("webhooks: [{name: x, url_env: A}, {name: x, url_env: B}]", "two webhooks are named 'x'"),
        ("webhook: []", "did you mean 'webhooks'"),
    ],
)
def test_a_wrong_section_says_what_is_wrong(section: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(f"name: x\nmodel: demo\nalerts:\n  {section}\n", "tutelage.yaml")
