"""`tutelage rollout` as people and scripts see it: every move, and one sentence for bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.controller import NOWHERE
from tests.fakes.gateway import gateway_project, make_release
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.core.errors import Conflict
from tutelage.release.deployments import apply_transition
from tutelage.release.rollout import begin
from tutelage.release.routes import active_rollout, state_of
from tutelage.workflows.context import Context

RUN = CliRunner()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Context]:
    ctx = gateway_project(tmp_path / "project", NOWHERE)
    make_release(ctx, "Candidate: name the colour family.")
    yield ctx
    ctx.store.close()


def call(ctx: Context, *words: str) -> tuple[int, str]:
    result = RUN.invoke(app, ["rollout", *words, "--project", str(ctx.workspace.root)])
    return result.exit_code, result.output


def document(ctx: Context, *words: str) -> dict[str, Any]:
    code, text = call(ctx, *words, "--json")
    assert code == 0, text
    found: dict[str, Any] = json.loads(text)
    return found


def run(ctx: Context) -> None:
    """Do what the gateway does when the candidate is loaded."""
    row = active_rollout(ctx.store, "colours")
    assert row is not None
    move = begin(state_of(row))
    assert move is not None
    apply_transition(ctx.store, row.id, row.fence, move)


def test_a_rollout_s_life(project: Context) -> None:
    started = document(project, "start", "colours-base-v2", "--steps", "5,50,100")["rollout"]
    assert (started["strategy"], started["steps"]) == ("canary", [5, 50, 100])
    run(project)
    shown = document(project, "status")
    assert shown["sentence"] == (
        "colours-base-v2 gets 5 % of the requests (step 1 of 3, 0 seen, 50 needed), "
        "colours-base the rest"
    )
    assert shown["rollout"]["verdict"] == "no_data"
    paused = document(project, "pause")
    assert paused["sentence"].endswith("the rest; the rollout is paused")
    assert document(project, "resume", "--rollout", started["id"])["rollout"]["state"] == "running"
    code, text = call(project, "promote", "--rollout", "another")
    assert code == 2 and "another rollout is under way" in text
    assert document(project, "promote")["stable"] == "colours-base-v2"
    assert document(project, "rollback")["stable"] == "colours-base"
    listed = document(project, "list")["rollouts"]
    assert [(row["strategy"], row["why"]) for row in listed] == [
        ("rollback", "rolled back by hand"), ("canary", "promoted by hand"),
    ]  # fmt: skip
    code, text = call(project, "list")
    assert code == 0 and listed[0]["id"] in text and "canary" in text
    _, text = call(project, "status")
    assert "rolled back by hand" in text


def test_a_rollback_after_a_rollback_moves_nothing_unless_it_is_named(project: Context) -> None:
    document(project, "start", "colours-base-v2")
    document(project, "promote")
    make_release(project, "Third: name the colour family.")
    ended = document(project, "start", "colours-base-v3")["rollout"]["id"]
    assert document(project, "rollback")["rollout"]["state"] == "rolled_back"
    code, text = call(project, "rollback")
    assert code == 2 and f"rollout {ended} was already rolled back" in text
    assert "colours-base-v2 answers every request" in text
    assert document(project, "status")["stable"] == "colours-base-v2"
    assert document(project, "rollback", "--to", "colours-base")["stable"] == "colours-base"


def test_a_shadow_and_an_ab_say_what_they_are(project: Context) -> None:
    document(project, "start", "colours-base-v2", "--strategy", "shadow")
    run(project)
    assert document(project, "status")["sentence"] == (
        "colours-base-v2 sees 100 % of the requests (step 1 of 1, 0 seen, 50 needed), "
        "colours-base answers them all"
    )
    assert document(project, "abort")["rollout"]["state"] == "aborted"
    started = document(project, "start", "colours-base-v2", "--strategy", "ab", "--split", "20")
    assert started["rollout"]["steps"] == [20]
    run(project)
    code, text = call(project, "status")
    assert code == 0 and "gets 20 % of the requests" in text
    assert "no data: the candidate has no request yet" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("start", "colours-base-v9"), "Did you mean 'colours-base-v2'"),
        (("start", "colours-base"), "this release is stable already"),
        (("start", "colours-base-v2", "--strategy", "cannary"), "Did you mean 'canary'"),
        (("start", "colours-base-v2", "--strategy", "rolling"), "needs two backends or more"),
        (("start", "colours-base-v2", "--steps", "5,x"), "'5,x' is no list of numbers"),
        (("start", "colours-base-v2", "--steps", "50,5"), "must rise and end with 100"),
        (("start", "colours-base-v2", "--split", "100"), "split 100.0 can't be used"),
        (("start", "colours-base-v2", "--split", "20"), "the strategy canary has no split"),
        (("start", "colours-base-v2", "--strategy", "ab", "--steps", "5,100"), "ab has no steps"),
        (("start", "colours-base-v2", "-d", "coluors"), "Did you mean 'colours'"),
        (("status", "-d", "coluors"), "there is no deployment 'coluors'"),
        (("list", "-d", "coluors"), "there is no deployment 'coluors'"),
        (("pause",), "no rollout is under way"),
        (("rollback",), "there is no earlier release to go back to"),
    ],
)
def test_bad_input_is_one_sentence(project: Context, words: tuple[str, ...], says: str) -> None:
    code, text = call(project, *words)
    assert code == 2, text
    (line,) = [line for line in text.splitlines() if line.strip()]
    assert says in line


def test_what_can_t_be_done_now_is_said(project: Context) -> None:
    document(project, "start", "colours-base-v2")
    code, text = call(project, "status")
    assert code == 0 and "here no gateway runs; `tutelage up` starts it" in text
    code, text = call(project, "resume")
    assert code == 2 and "the rollout is pending: that can't be done now" in text
    code, text = call(project, "start", "colours-base-v2")
    assert code == 2 and "a rollout is under way (pending, step 1)" in text


def test_python_has_the_same_moves(project: Context) -> None:
    opened = tutelage.open(project.workspace.root)
    started = opened.rollouts.start("colours-base-v2", strategy="ab", split=10)
    rollout = started["rollout"]["id"]
    run(project)
    assert opened.rollouts.pause()["rollout"]["state"] == "paused"
    assert opened.rollouts.resume(rollout=rollout)["rollout"]["state"] == "running"
    with pytest.raises(Conflict, match="another rollout is under way"):
        opened.rollouts.abort(rollout="another")
    assert opened.rollouts.status()["rollout"]["weight"] == 10
    assert opened.rollouts.rollback()["rollout"]["state"] == "rolled_back"
    assert [row["state"] for row in opened.rollouts.history()] == ["rolled_back"]
    opened.close()
