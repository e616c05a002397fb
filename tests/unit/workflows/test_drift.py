"""Drift from the log: comparisons, the watch, what is accepted, what is kept, and the command."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import Artifact, utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, write_version
from tutelage.serving.monitoring.events import read_events
from tutelage.store.drift import DriftReportRow, DriftWatchRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context, open_context, run_stage
from tutelage.workflows.feedback import drift_watch
from tutelage.workflows.feedback.drift import accept, check_traffic, forget_words, history, show
from tutelage.workflows.feedback.drift_watch import look, standing
from tutelage.workflows.feedback.forget import forget
from tutelage.workflows.improve.improve_steps import answer_drift
from tutelage.workflows.improve.improve_turns import Turn

START = datetime(2026, 3, 1, tzinfo=UTC)
NOUNS = {
    "warm": ("ember", "sunset", "brick", "rust", "poppy", "fox", "autumn leaf", "chilli"),
    "cold": ("glacier", "lake", "steel", "winter sky", "mint", "moss", "midnight", "frost"),
}
FRAMES = ("what family is {} in", "which colour has {}", "is the {} warm or cold",
          "tell me about the tone of {}", "sort {} please")  # fmt: skip
NEW = ("cancel my paint order number {}", "refund the parcel {} that never came",
       "where is delivery {} of my order")  # fmt: skip


def asked(rng: random.Random) -> tuple[str, str]:
    label = rng.choice(("warm", "cold"))
    return rng.choice(FRAMES).format(rng.choice(NOUNS[label])), label


def turned(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.6:
        return asked(rng)
    return rng.choice(NEW).format(rng.randint(1000, 9999)), "warm"


def log(ctx: Context, start: int, count: int, draw: Callable[[random.Random], tuple[str, str]],
        *, good: float = 0.9) -> None:  # fmt: skip
    """Log requests a minute apart, from the `start`-th on; one in four is rated."""
    rng = random.Random(start)
    with ctx.store.begin() as session:
        for place in range(start, start + count):
            text, label = draw(rng)
            at = START + timedelta(minutes=place)
            session.add(
                RecordRow(
                    id=f"rec-{place:024d}", deployment="colours", release="r" * 64, arm="stable",
                    user=f"u{place % 400}", key_name="shop" if place % 2 else "web", split="train",
                    group_key="g", messages=[{"role": "user", "content": text}],
                    response=json.dumps({"family": label}), finish_reason="stop", status=200,
                    latency_ms=5.0, prompt_tokens=9, completion_tokens=3, checks={}, at=at,
                )
            )  # fmt: skip
            if place % 4 == 0:
                value = {"value": float(rng.random() < good)}
                session.add(SignalRow(key=f"s{place}", record=f"rec-{place:024d}", kind="rating",
                                      explicit=True, value=value, at=at))  # fmt: skip


def at(place: int) -> datetime:
    return START + timedelta(minutes=place, seconds=30) + drift_watch.SETTLE


def freeze(ctx: Context) -> None:
    """Make a dataset version of rows like those that are asked."""
    rng = random.Random(99)
    rows = [
        Example(messages=(Message(role="user", content=text),), label=label)
        for text, label in sorted({asked(rng) for _ in range(100)})
    ]  # fmt: skip
    draft = VersionDraft({"train": rows[::2], "validation": [], "test": rows[1::2]}, {})

    def work() -> Artifact:
        version = write_version(ctx.workspace.artifacts / "dataset", draft)
        path = str(version.directory.relative_to(ctx.workspace.home))
        return Artifact(kind="dataset", hash=version.hash, path=path, created_at=utc_now())

    run_stage(ctx, "curate", {}, work)


@pytest.fixture
def ctx(make_project: Callable[..., Path]) -> Context:
    return open_context(make_project())


def test_the_watch_alarms_once_says_what_moved_and_ends_when_it_is_accepted(ctx: Context) -> None:
    log(ctx, 0, 350, asked)
    (quiet,) = look(ctx, now=at(349) + timedelta(days=2))  # users have had time to judge
    assert not quiet["moved"] and quiet["looked_at"] == 350
    assert [one["looks"] for one in quiet["series"] if one["series"] == "score"] == [1]
    log(ctx, 350, 400, turned)
    (found,) = look(ctx, now=at(750))
    assert found["moved"] and found["looked_at"] - 350 <= 400
    shown = show(ctx, found["alarm"]["id"])
    assert "Since 2026-03-01" in shown["sentence"] and "order" in shown["sentence"]
    examples = [e["text"] for part in shown["report"]["parts"] for e in part["examples"]]
    assert any("order" in text or "parcel" in text for text in examples)
    (event,) = read_events(ctx.store, kind="drift.found")
    assert "parcel" not in event.message and event.level == "warning"
    assert look(ctx, now=at(750)) == [standing(ctx)]  # it stands: nothing new is told
    assert len(read_events(ctx.store, kind="drift.found")) == 1

    taken = accept(ctx, note="orders are ours now", now=at(750))
    assert taken["rows"] >= 300 and not standing(ctx)["moved"]
    assert len(read_events(ctx.store, kind="drift.ended")) == 1
    log(ctx, 752, 240, turned)
    (later,) = look(ctx, now=at(1_000))
    assert not later["moved"] and later["looked_at"] == 240
    assert "accepted on" in later["reference"]


def test_what_was_accepted_is_not_read_again_whatever_traffic_is_held_against(
    ctx: Context,
) -> None:
    drift = ctx.config.drift.model_copy(update={"against": "training"})
    held = replace(ctx, config=ctx.config.model_copy(update={"drift": drift}))
    log(ctx, 0, 350, asked)
    log(ctx, 350, 400, turned)
    assert look(held, now=at(750))[0]["moved"]
    accept(held, now=at(750))
    (found,) = look(held, now=at(760))
    assert (found["moved"], found["looked_at"]) == (False, 0)
    assert len(read_events(ctx.store, kind="drift.found")) == 1


def test_traffic_that_moves_once_more_is_told_while_an_alarm_stands(ctx: Context) -> None:
    def elsewhere(rng: random.Random) -> tuple[str, str]:
        return f"my ladder {rng.randint(1, 99)} wobbles on wet grass", "cold"

    log(ctx, 0, 350, asked)
    log(ctx, 350, 400, turned)
    (first,) = look(ctx, now=at(750))
    turn = Turn(
        "t", "colours", "canary", 1, "drift", None, None, 0, {}, 0.0, at(500), at(500), None
    )
    log(ctx, 750, 200, elsewhere)
    (second,) = look(ctx, now=at(950))
    assert first["moved"] and second["alarm"]["id"] != first["alarm"]["id"]
    assert second["reference"].startswith("the requests since the alarm of 2026-03-01")
    assert len(history(ctx)) == 2 and len(read_events(ctx.store, kind="drift.found")) == 2

    answer_drift(ctx, turn, at(950))  # it began before traffic moved again
    assert standing(ctx)["moved"]
    late = replace(turn, started_at=at(900))
    answer_drift(ctx, late, at(950))
    assert not standing(ctx)["moved"]
    (again,) = look(ctx, now=at(951))
    assert again["looked_at"] == 48 and not again["moved"]  # those since the turn began


def test_a_dataset_is_the_reference_and_looks_go_on_where_they_stopped(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(ctx)
    log(ctx, 0, 220, asked)
    (whole,) = look(ctx, now=at(219))
    with ctx.store.begin() as session:
        state = session.get_one(DriftWatchRow, "colours").state
        session.delete(session.get_one(DriftWatchRow, "colours"))
    monkeypatch.setattr(drift_watch, "_PART", 30)
    for place in (50, 51, 130, 219):
        (cut,) = look(ctx, now=at(place))
    assert cut["series"] == whole["series"] and "rows of dataset" in cut["reference"]
    with ctx.store.session() as session:
        assert session.get_one(DriftWatchRow, "colours").state["watch"] == state["watch"]


def test_of_two_looks_at_once_one_gives_way(ctx: Context) -> None:
    log(ctx, 0, 60, asked)
    first = drift_watch._open(ctx, "colours", at(60))
    look(ctx, now=at(60))
    assert first is not None
    with pytest.raises(drift_watch.Overtaken):
        drift_watch._write(ctx, first, None, at(60))


def test_a_check_tells_segments_labels_and_verdicts(ctx: Context) -> None:
    log(ctx, 0, 240, asked)
    log(ctx, 240, 240, turned, good=0.3)
    found = check_traffic(ctx, against="before", last=240, now=at(480))
    names = {(part.name, part.segment) for part in found.parts if part.moved}
    assert found.moved and ("topics", None) in names and ("score", None) in names
    assert ("score", "key: web") in names and ("request length", None) in names
    assert "users judge answers worse" in " ".join(part.sentence for part in found.parts)
    kept = history(ctx)
    assert [row["kind"] for row in kept] == ["check"] and kept[0]["sentence"] == found.sentence
    with ctx.store.session() as session:
        stored = json.dumps(session.get_one(DriftReportRow, kept[0]["id"]).report)
    assert "that never came" not in stored and '"text"' not in stored

    same = check_traffic(ctx, against="before", last=100, now=at(239), keep=False)
    assert not same.moved and same.verdict == "as_before"


def test_forgetting_leaves_no_word_that_anybody_wrote(ctx: Context) -> None:
    log(ctx, 0, 200, asked)
    log(ctx, 200, 200, turned)
    found = check_traffic(ctx, against="before", last=200, now=at(400))
    assert found.moved and "order" in found.sentence
    assert forget_words(ctx) == 1 and forget_words(ctx) == 0
    (row,) = history(ctx)
    assert row["sentence"].startswith("Moved: ") and "order" not in json.dumps(show(ctx))


def test_a_user_who_is_forgotten_leaves_the_watch_and_it_goes_on(ctx: Context) -> None:
    log(ctx, 0, 130, asked)
    look(ctx, now=at(129))
    forget(ctx, "u129")  # whose record was the last one read
    with ctx.store.session() as session:
        state = json.dumps(session.get_one(DriftWatchRow, "colours").state)
    assert f"rec-{129:024d}" not in state and f"rec-{128:024d}" in state
    log(ctx, 130, 20, asked)
    (stands,) = look(ctx, now=at(150))
    assert stands["looked_at"] == 150


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "--deployment", "colour"], "colours"),
        (["check", "--against", "training"], "no dataset"),
        (["check", "--against", "accepted"], "tutelage drift accept"),
        (["check", "--against", "nothing"], "Use auto, training"),
        (["check", "--since", "soon"], "is no time"),
        (["check", "--last", "5", "--since", "1d"], "Give one of them"),
        (["accept", "--since", "1h"], "only 0 requests"),
        (["show", "dr_none"], "no report"),
    ],
)
def test_what_can_not_be_done_is_one_sentence(
    ctx: Context, arguments: Sequence[str], told: str
) -> None:
    log(ctx, 0, 60, asked)
    ran = CliRunner().invoke(app, ["drift", *arguments, "--project", str(ctx.workspace.root)])
    assert ran.exit_code == 2 and told in ran.stderr and "Traceback" not in ran.stderr


def test_the_commands_print_one_document_and_say_no_by_their_exit_code(ctx: Context) -> None:
    now = utc_now().replace(second=0, microsecond=0)
    shift = now - timedelta(minutes=610) - START

    log(ctx, 0, 250, asked)
    log(ctx, 250, 350, turned)
    with ctx.store.begin() as session:
        for row in session.query(RecordRow):
            row.at = row.at + shift
    place = ["--project", str(ctx.workspace.root), "--json"]
    run = CliRunner()
    ran = run.invoke(
        app, ["drift", "check", "--against", "before", "--last", "250", "--html", *place]
    )
    data = json.loads(ran.stdout)
    assert ran.exit_code == 1 and data["moved"]
    page = Path(data["page"]).read_text(encoding="utf-8")
    assert "Traffic has moved" in page and "What is asked about" in page
    ran = run.invoke(app, ["drift", "look", *place])
    assert ran.exit_code == 1 and json.loads(ran.stdout)["watches"][0]["moved"]
    assert run.invoke(app, ["drift", "status", *place]).exit_code == 1
    assert len(json.loads(run.invoke(app, ["drift", "history", *place]).stdout)["reports"]) == 2
    ran = run.invoke(app, ["drift", "accept", *place])
    assert ran.exit_code == 0 and json.loads(ran.stdout)["rows"] >= 100
    ran = run.invoke(app, ["drift", "status", *place[:2]])
    assert ran.exit_code == 0 and "0 requests looked at" in ran.stdout


def test_nothing_is_known_without_requests(ctx: Context) -> None:
    assert look(ctx) == []
    with pytest.raises(DataError, match="no deployment"):
        standing(ctx)
