"""What scores say of a release: reports, events, alerts, and what a rollout does with them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.gateway import begin_rollout
from tests.unit.feedback.live_rows import WARM, WRONG, live_project, log_answers
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.config import Limits
from tutelage.core.config_alerts import Alerts
from tutelage.feedback.live.scoring import Scoring
from tutelage.feedback.live.watch import QualityWatch
from tutelage.release.deployments import promote
from tutelage.release.evidence import read_evidence
from tutelage.release.quality import score_tests
from tutelage.release.routes import active_rollout, route
from tutelage.serving.monitoring.alerts import matching, rules_of
from tutelage.serving.monitoring.events import EventLog, read_events
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.live_desk import LiveDesk
from tutelage.workflows.feedback.live_evaluation import make_parts

LIVE = {"checks": ["format"], "drop": 0.05}


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    opened = live_project(tmp_path / "project", LIVE)
    yield opened
    opened.store.close()


def mixed(good: int, bad: int, seed: int) -> list[str]:
    texts = [WARM] * good + [WRONG] * bad
    random.Random(seed).shuffle(texts)
    return texts


def score(ctx: Context) -> None:
    worker = Scoring(ctx.store, make_parts(ctx))
    worker.draw(utc_now() - timedelta(days=1))
    while worker.step():
        pass


def promoted(ctx: Context) -> tuple[str, str]:
    """Let a rollout end well; return the release before and the one that serves now."""
    begin_rollout(ctx)
    row = promote(ctx.store, "colours")
    return row.baseline, row.candidate


def watch(store: Store, ctx: Context) -> list[Any]:
    """Look once as a new process does; return all events of quality."""
    events = EventLog(store)
    events.start()
    assert ctx.config.live_evaluation is not None
    QualityWatch(store, ctx.config.live_evaluation, events).look()
    events.close()
    return read_events(store, kind="quality")


def test_a_release_that_is_proven_worse_is_told_once_and_ended_when_it_is_gone(
    ctx: Context,
) -> None:
    old, new = promoted(ctx)
    log_answers(ctx, mixed(290, 10, 1), release=old, ago_s=600)
    log_answers(ctx, mixed(60, 6, 2), release=new, ago_s=300)
    score(ctx)
    assert watch(ctx.store, ctx) == [], "66 answers prove nothing yet"
    log_answers(ctx, mixed(80, 60, 3), release=new, ago_s=60)
    score(ctx)
    watch(ctx.store, ctx)
    (event,) = watch(ctx.store, ctx)
    assert (event.kind, event.level, event.deployment) == ("quality.dropped", "warning", "colours")
    assert event.subject == f"{new[:12]} format"
    assert "worse, colours-base" in event.message
    assert event.data["against"]["fallen"] is True and event.data["release"] == new
    found = matching(rules_of(Alerts()), event)
    assert [one.rule.name for one in found] == ["quality"] and not found[0].noted
    with ctx.store.begin() as session:
        session.get_one(DeploymentRow, "colours").stable = old
    kinds = [one.kind for one in watch(ctx.store, ctx)]
    assert kinds == ["quality.dropped", "quality.ended"]
    assert len(watch(ctx.store, ctx)) == 2


def test_a_release_that_is_as_good_is_never_told(ctx: Context) -> None:
    old, new = promoted(ctx)
    log_answers(ctx, mixed(285, 15, 1), release=old, ago_s=600)
    log_answers(ctx, mixed(285, 15, 2), release=new)
    score(ctx)
    assert watch(ctx.store, ctx) == []
    (mine,) = [one for one in LiveDesk(ctx).report()["releases"] if one["id"] == new]
    assert mine["before"] == "colours-base" and mine["serves"]
    (shape,) = mine["metrics"]
    assert shape["low"] < 0.95 < shape["high"] and shape["n"] == 300
    assert "as good, colours-base before it had 0.950" in shape["sentence"]


def test_a_least_mean_needs_no_release_before(tmp_path: Path) -> None:
    ctx = live_project(tmp_path / "project", {**LIVE, "least": {"format": 0.9}})
    stable = route(ctx.store, "colours").stable
    log_answers(ctx, mixed(70, 50, 1), release=stable)
    score(ctx)
    (event,) = watch(ctx.store, ctx)
    assert "proven to be under 0.9, the least that is asked for" in event.message
    ctx.store.close()


def test_a_rollout_hears_of_live_scores(ctx: Context) -> None:
    """The candidate's answers are badly formed four times in ten: the score test fails it."""
    rollout = begin_rollout(ctx)
    row = active_rollout(ctx.store, "colours")
    assert row is not None and row.id == rollout
    texts = zip(mixed(240, 0, 1), mixed(140, 100, 2), strict=True)
    stable = {"release": row.baseline, "rollout": rollout, "step": 0, "arm": "stable"}
    canary = {**stable, "release": row.candidate, "arm": "canary"}
    for number, pair in enumerate(texts):
        for text, arm in zip(pair, (stable, canary), strict=True):
            log_answers(ctx, [text], ago_s=400 - number, **arm)
    score(ctx)
    scores = read_evidence(ctx.store, row).scores
    (test,) = score_tests(scores, Limits(), tests=7, requests=240)
    assert test.metric == "format" and test.failed
    assert "that of stable's beside them 1.000" in test.sentence()


def run(ctx: Context, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["live", *arguments, "-p", str(ctx.workspace.root)])


def test_the_commands(ctx: Context) -> None:
    assert "no answer has been scored yet" in run(ctx, "report").output
    old, new = promoted(ctx)
    log_answers(ctx, mixed(290, 10, 1), release=old, ago_s=600)
    log_answers(ctx, mixed(80, 60, 3), release=new)
    limited = run(ctx, "run", "--limit", "40", "--json")
    assert json.loads(limited.stdout)["waiting"] > 300
    done = run(ctx, "run")
    assert done.exit_code == 0, done.output
    assert "answers scored" in done.output
    again = json.loads(run(ctx, "run", "--json").stdout)
    assert (again["scored"], again["waiting"]) == (0, 0)
    shown = run(ctx, "report", "--check")
    assert shown.exit_code == 1
    assert " ! format is 0.571" in shown.output
    assert "440 answers are scored, 0 wait" in shown.output
    one = json.loads(run(ctx, "report", "--release", "colours-base", "--json").stdout)
    assert [found["id"] for found in one["releases"]] == [old]
    worst = run(ctx, "worst", "--limit", "3", "--metric", "format")
    assert worst.output.count("0.00 format") == 3 and "answered  no family at all" in worst.output
    assert json.loads(run(ctx, "worst", "--json").stdout)["answers"][0]["why"]
    typo = run(ctx, "worst", "--metric", "fromat")
    assert typo.exit_code == 2 and "Did you mean 'format'?" in typo.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--since", "yesterday"], "Write 30m, 24h or 7d"),
        (["report", "--release", "nobody"], "nobody"),
        (["run", "--share", "2"], "--share"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(
    ctx: Context, arguments: list[str], said: str
) -> None:
    done = run(ctx, *arguments)
    assert done.exit_code == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    ctx = live_project(tmp_path / "project", {"least": {"politeness": 0.9}})
    done = run(ctx, "run")
    assert "least names 'politeness', which is not scored" in done.stderr
    ctx.store.close()
    other = live_project(tmp_path / "other", {"judge": True})
    assert "tutelage.yaml names no judge" in run(other, "run").stderr
    other.store.close()
