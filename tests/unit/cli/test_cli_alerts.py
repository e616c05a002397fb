"""`tutelage events` and `tutelage alerts`, typed as a person does, and the same from Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from tests.fakes.webhook import Receiver
from typer.testing import CliRunner

import tutelage as tt
from tutelage.cli.main import app
from tutelage.serving.monitoring.alert_store import AlertBook
from tutelage.serving.monitoring.alerts import Look, rules_of
from tutelage.serving.monitoring.events import Happening, add_event
from tutelage.workflows.context import open_context
from tutelage.workflows.serving import monitor

Run = Callable[..., Result]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, receiver: Receiver) -> Path:
    """A project with a webhook, an engine that crashed, and a budget that is spent."""
    alerts = {
        "webhooks": [{"name": "ops", "url": receiver.url}],
        "rules": [{"name": "slow", "metric": "latency_p99", "above": 2}],
    }
    settings = {"name": "colours", "model": "demo", "alerts": alerts}
    (tmp_path / "tutelage.yaml").write_text(yaml.safe_dump(settings))
    ctx = open_context(tmp_path)
    with ctx.store.begin() as session:
        add_event(session, Happening("engine.crashed", "the engine stopped answering", "error"))
        add_event(session, Happening("budget.spent", "the budget is used up", "warning", "other"))
    AlertBook(ctx.store, "colours", ctx.config.alerts, rules_of(ctx.config.alerts)).settle(Look())
    ctx.store.close()
    return tmp_path


@pytest.fixture
def run(project: Path) -> Run:
    def call(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--project", str(project)])

    return call


def data(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_events_are_listed_oldest_first_and_by_kind_deployment_and_time(run: Run) -> None:
    rows = data(run("events", "--json"))["events"]
    assert [row["kind"] for row in rows] == ["engine.crashed", "budget.spent", "alert.firing"]
    assert [r["kind"] for r in data(run("events", "--kind", "engine", "--json"))["events"]] == [
        "engine.crashed"
    ]
    assert len(data(run("events", "--deployment", "other", "--json"))["events"]) == 1
    assert len(data(run("events", "--since", "1h", "-n", "2", "--json"))["events"]) == 2
    shown = run("events").stdout
    assert "error" in shown and "the engine stopped answering" in shown


def test_following_goes_on_from_what_was_shown(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = open_context(project)
    assert next(monitor.follow(ctx, 1))["kind"] == "budget.spent"
    ctx.store.close()
    asked: list[int] = []

    def soon(ctx: Any, after: int, **_: Any) -> Iterator[dict[str, Any]]:
        asked.append(after)
        yield {**monitor.events(ctx)[0], "message": "it came later"}

    monkeypatch.setattr(monitor, "follow", soon)
    lines = run("events", "--follow", "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [
        "engine.crashed", "budget.spent", "alert.firing", "engine.crashed",
    ]  # fmt: skip
    assert asked == [3]
    assert run("events", "-f").stdout.splitlines()[-1].endswith("it came later")


def test_what_fires_and_what_was_told(run: Run) -> None:
    found = data(run("alerts", "list", "--json"))
    assert [row["alert"] for row in found["alerts"]] == ["engine-crashed"]
    both = data(run("alerts", "list", "--all", "--json"))["alerts"]
    assert [(row["alert"], row["state"]) for row in both] == [
        ("budget-spent", "resolved"), ("engine-crashed", "firing"),
    ]  # fmt: skip
    notices = data(run("alerts", "notices", "--json"))["notices"]
    assert {(n["alert"], n["status"], n["state"]) for n in notices} == {
        ("engine-crashed", "firing", "waiting"), ("budget-spent", "noted", "waiting"),
    }  # fmt: skip
    assert "engine-crashed" in run("alerts", "list").stdout
    assert "waiting" in run("alerts", "notices").stdout
    assert "the engine stopped answering" in run("status").stdout
    assert [row["alert"] for row in data(run("status", "--json"))["alerts"]] == ["engine-crashed"]


def test_rules_and_measures_are_listed(run: Run) -> None:
    rules = {row["name"]: row for row in data(run("alerts", "rules", "--json"))["rules"]}
    assert rules["slow"]["when"] == "latency_p99 > 2 over 5m"
    assert rules["slow"]["source"] == "tutelage.yaml"
    assert rules["rolled-back"]["when"] == "an event rollout.rolled_back"
    result = CliRunner().invoke(app, ["alerts", "measures", "--json"])
    names = {row["name"] for row in data(result)["measures"]}
    assert {"error_rate", "tutelage_requests_total", "tutelage_engine_memory_ratio"} <= names


def test_a_test_notice_is_sent_now_and_a_refusal_ends_with_1(run: Run, receiver: Receiver) -> None:
    (row,) = data(run("alerts", "test", "--json"))["tests"]
    assert row == {"webhook": "ops", "delivered": True, "status": 200, "error": None}
    assert receiver.got[0].body["text"] == "[test] colours: alerts arrive here"
    receiver.answers = [(403, {})]
    refused = run("alerts", "test", "ops")
    assert refused.exit_code == 1
    assert "ops: the receiver said 403" in refused.stdout
    wrong = run("alerts", "test", "opps")
    assert wrong.exit_code == 2
    assert "Did you mean 'ops'" in wrong.stderr


def test_events_that_were_not_asked_for_rightly_are_not_denied(run: Run) -> None:
    result = run("events", "--kind", "buget")
    assert result.exit_code == 2
    assert "there is no event 'buget'. Did you mean 'budget'?" in result.stderr
    assert run("events", "--kind", "backend").stdout == "no such event has happened\n"


def test_silences_from_the_terminal(run: Run) -> None:
    row = data(run("alerts", "silence", "slow", "--for", "2h", "--reason", "a move", "--json"))
    assert (row["rule"], row["reason"]) == ("slow", "a move")
    assert "slow is silent until" in run("alerts", "list").stdout
    assert data(run("alerts", "unsilence", "slow", "--json")) == {"rule": "slow", "ended": 1}
    for words, says in (
        (("unsilence", "slow"), "no silence of 'slow'"),
        (("silence", "slo"), "Did you mean 'slow'"),
        (("silence", "slow", "--deployment", "nowhere"), "there is no deployment 'nowhere'"),
        (("silence", "slow", "--for", "soon"), "'soon' is no length of time"),
    ):
        result = run("alerts", *words)
        assert result.exit_code == 2
        assert says in result.stderr


def test_the_same_from_python(project: Path, receiver: Receiver) -> None:
    with_monitor = tt.open(project).monitor
    assert [row["kind"] for row in with_monitor.events(kind="budget")] == ["budget.spent"]
    assert [row["alert"] for row in with_monitor.alerts()] == ["engine-crashed"]
    assert len(with_monitor.alerts(ended=True)) == 2
    assert with_monitor.rules()[0]["name"] == "slow"
    assert len(with_monitor.notices()) == 2
    assert with_monitor.test()[0]["delivered"]
    with_monitor.silence("slow", "10m")
    assert with_monitor.unsilence("slow")["ended"] == 1


def test_a_wrong_rule_is_told_with_its_name(project: Path, run: Run) -> None:
    path = project / "tutelage.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["alerts"]["rules"][0]["metric"] = "latency_p9"
    path.write_text(yaml.safe_dump(settings))
    result = run("alerts", "rules")
    assert result.exit_code == 2
    assert "alerts.rules, slow: there is no metric 'latency_p9'" in result.stderr
