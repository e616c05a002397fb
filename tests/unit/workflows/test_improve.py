"""Turns of the loop: killed anywhere they go on, nothing twice, no label lost, people are asked."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import BASIC_CONFIG
from tests.unit.workflows.killed_turn import parts, work
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.config_improve import Improve
from tutelage.core.errors import Conflict, DataError, PlanRefused
from tutelage.core.lock import sole
from tutelage.data.version import load_version
from tutelage.feedback.edits import Edit, checked, judge_edits, trust, trust_together
from tutelage.feedback.schedule import Seen, due, quiet_until, retry_at
from tutelage.store.annotations import BatchRow
from tutelage.store.improve import TurnRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context, find_artifact, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts import Given, submit, todo
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.improve import improve as loop
from tutelage.workflows.improve import improve_gate, improve_rows, schedule
from tutelage.workflows.improve import improve_turns as kept
from tutelage.workflows.improve.improve_turns import Hold, Move, Turn

MakeProject = Callable[..., Path]
THINGS = ("fire", "ice", "ember", "snow", "sunset", "glacier", "lava", "frost", "amber", "sea")
ROWS = [
    (f"the {adjective} {thing}", "warm" if place % 2 == 0 else "cold")
    for adjective in ("old", "bright", "quiet")
    for place, thing in enumerate(THINGS)
]
CONFIG = BASIC_CONFIG.replace("  columns:", "  quality: {embedder: tfidf}\n  columns:") + (
    "improve: {new_rows: 3, review: {count: 6, edits: all}}\n"
)
ASKED = (
    "which shade has a winter morning in the mountains",
    "tell me about painting a kitchen like terracotta",
    "my scarf looks like the deep ocean",
    "a brick wall at noon",
    "what would you call the tint of mint leaves",
    "the cover of this book resembles rust",
    "is steel closer to one side or the other",
    "peaches and apricots in a bowl",
    "an evening with heavy rain clouds",
    "the label on the jar of honey",
)
SIDES = ("train", "train", "train", "validation", "test")


@pytest.fixture
def ctx(make_project: MakeProject) -> Iterator[Context]:
    """A project with a data set, ten requests of production, two of them corrected."""
    lines = "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in ROWS)
    opened = open_context(make_project({"rows.jsonl": lines}, CONFIG))
    curate(opened)
    add_annotators(opened, ["anna"])
    with opened.store.begin() as session:
        for number in range(10):
            session.add(_record(number))
        for number in (0, 1):
            session.add(_edit(number, "cold"))
    yield opened
    opened.store.close()


def _record(number: int) -> RecordRow:
    return RecordRow(
        id=f"r{number}", deployment="colours", release="x" * 64, arm="stable",
        split=SIDES[number % 5], group_key=f"g{number}",
        messages=[{"role": "user", "content": ASKED[number]}],
        response='{"family": "warm"}', finish_reason="stop", status=200, latency_ms=1.0,
        prompt_tokens=1, completion_tokens=1, checks={},
    )  # fmt: skip


def _edit(number: int, label: str, author: str = "user") -> SignalRow:
    return SignalRow(
        key=f"k{number}-{author}", record=f"r{number}", kind="edit", explicit=True, author=author,
        value={"value": json.dumps({"family": label})},
    )  # fmt: skip


def _answer_all(ctx: Context) -> list[str]:
    items = todo(ctx, "anna")
    for shown in items:
        submit(ctx, Given(shown.item, "anna", label="cold"))
    return [shown.text for shown in items]


def _done(ctx: Context) -> list[str]:
    file = ctx.workspace.root / "done.txt"
    return file.read_text().splitlines() if file.exists() else []


def _kill_in(ctx: Context, state: str, when: str) -> None:
    """Let another process work on the turn until it kills itself."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.unit.workflows.killed_turn"])
    child = processes.Process(target=work, args=(str(ctx.workspace.root), state, when))
    child.start()
    child.join(120)
    assert child.exitcode == -9


def test_a_turn_killed_in_every_state_goes_on_trains_once_and_loses_no_label(ctx: Context) -> None:
    """Killed before, after and in the middle; each next process takes up what is there."""
    _kill_in(ctx, "mine", "before")
    _kill_in(ctx, "mine", "after")  # the batch is given out, the move is not written
    turn = loop.improve(ctx, parts=parts())
    assert (turn.state, bool(turn.waits)) == ("review", True)
    with ctx.store.session() as session:
        assert session.query(BatchRow).count() == 1, "nobody is asked twice"
    answered = _answer_all(ctx)
    assert len(answered) >= 4
    for state in ("review", "dataset", "start"):
        _kill_in(ctx, state, "after")
    _kill_in(ctx, "train", "half")
    _kill_in(ctx, "train", "after")
    for state in ("gate", "release", "canary"):
        _kill_in(ctx, state, "after")
    turn = loop.resume(ctx, parts=parts())
    assert turn.state == "done"
    steps = Counter(line.split(" of ")[0] for line in _done(ctx))
    assert steps == {f"step {number}": 1 for number in range(4)}, "no step is trained twice"
    told = [(row["from_state"], row["to_state"]) for row in kept.journal(ctx.store, turn.id)]
    assert told == [
        ("", "mine"), ("mine", "review"), ("review", "review"), ("review", "dataset"),
        ("dataset", "start"), ("start", "train"), ("train", "gate"), ("gate", "release"),
        ("release", "canary"), ("canary", "done"),
    ]  # fmt: skip
    found = find_artifact(ctx.store, turn.facts["dataset"])
    assert found is not None
    version = load_version(ctx.path_of(found))
    there = {row.input_text for row in version.all_rows()}
    assert {*answered, ASKED[0], ASKED[1]} <= there, "every answer and every edit is in"
    train = {row.input_text for row in version.rows("train")}
    held = {text for n, text in enumerate(ASKED) if SIDES[n % 5] != "train"}
    assert not train & held, "what arrived for the test is never trained on"


def test_one_turn_at_a_time_and_one_worker_on_it(ctx: Context) -> None:
    """A second turn is refused; so is a second process on the same one, and a stale move."""
    turn = kept.begin(ctx.store, "colours", "a test")
    with pytest.raises(Conflict, match="under way"):
        kept.begin(ctx.store, "colours", "another")
    with sole(ctx.workspace.home / "improve.lock", Conflict("")), Hold(ctx.store, turn) as hold:
        with pytest.raises(Conflict, match="being worked on"):
            loop.improve(ctx, parts=parts())
        moved = kept.move(ctx.store, turn, Move("review", "x"), holder=hold.name)
        with pytest.raises(Conflict, match="moved by somebody else"):
            kept.move(ctx.store, turn, Move("dataset", "late"), holder=hold.name)
        with pytest.raises(Conflict):
            kept.move(ctx.store, moved, Move("dataset", "thief"), holder="elsewhere:1:x")
    with ctx.store.begin() as session:
        row = session.get_one(TurnRow, turn.id)
        assert row.holder is None
        row.holder, row.lease_until = "otherhost:1:x", utc_now() + timedelta(minutes=1)
    with pytest.raises(Conflict, match="otherhost"), Hold(ctx.store, turn):
        pass


def test_a_person_cancels_while_it_works(ctx: Context) -> None:
    """The worker's move loses against the person's, and the turn has ended."""
    entered, go = threading.Event(), threading.Event()

    def slow(ctx: Context, turn: Turn) -> Move:
        entered.set()
        assert go.wait(30)
        return Move("review", "too late")

    fast: dict[str, Any] = {**parts(), "mine": slow}
    ended: list[Turn] = []
    thread = threading.Thread(target=lambda: ended.append(loop.improve(ctx, parts=fast)))
    thread.start()
    assert entered.wait(30)
    loop.cancel(ctx, why="not today", author="eve")
    with pytest.raises(Conflict, match="is still stopping, and no turn was begun"):
        loop.improve(ctx, parts=parts())
    assert kept.current(ctx.store, "colours") is None, "nobody would work on it"
    go.set()
    thread.join()
    assert ended[0].state == "cancelled"
    assert kept.journal(ctx.store, ended[0].id)[-1]["reason"] == "cancelled: not today"
    assert kept.current(ctx.store, "colours") is None


def test_what_goes_wrong_is_told_and_tried_again(ctx: Context) -> None:
    """An error leaves the turn in its state; a refusal ends it with the reason."""
    calls = []

    def broken(ctx: Context, turn: Turn) -> Move:
        calls.append(turn.tries)
        if len(calls) == 1:
            raise DataError("the disk of labels is away", fix="Bring it back")
        raise PlanRefused("too few rows to train on")

    fast: dict[str, Any] = {**parts(), "mine": broken}
    with pytest.raises(DataError):
        loop.improve(ctx, parts=fast)
    stuck = kept.find(ctx.store, "colours")
    assert stuck.problem == "the disk of labels is away. Bring it back."
    assert "is stuck in mine" in loop.sentence(stuck)
    turn = loop.improve(ctx, parts=fast)
    assert turn.state == "kept"
    assert calls == [0, 1]
    assert loop.history(ctx)[0]["ended"] == "too few rows to train on."


def test_people_decide_what_the_rows_can_not(ctx: Context) -> None:
    """The turn waits in the gate; accepting releases with the decision in the journal."""

    def unsure(ctx: Context, turn: Turn) -> Move:
        decision = loop.decision_of(turn)
        if decision is None:
            return Move("gate", "too few rows", waits="a person decides")
        return Move("release" if decision["accept"] else "kept", f"{decision['author']} decided")

    def jump(ctx: Context, turn: Turn) -> Move:
        return Move("gate", "straight to the gate")

    fast: dict[str, Any] = {**parts(), "mine": jump, "gate": unsure}
    turn = loop.improve(ctx, parts=fast)
    assert turn.waits == "a person decides"
    lines = len(kept.journal(ctx.store, turn.id))
    assert loop.improve(ctx, parts=fast).waits, "it still waits, and says so once"
    assert len(kept.journal(ctx.store, turn.id)) == lines
    loop.decide(ctx, True, why="the edge cases matter", author="eve")
    assert loop.improve(ctx, parts=fast).state == "done"
    told = [row["reason"] for row in kept.journal(ctx.store, turn.id)]
    assert "accepted: the edge cases matter" in told
    with pytest.raises(DataError, match="no turn of the loop is under way"):
        loop.decide(ctx, True)


def test_a_turn_that_is_cancelled_as_it_is_resumed_begins_no_other(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both commands find it under way; the one that gives it up comes first."""
    kept.begin(ctx.store, "colours", "a test")
    real = kept.busy

    def cancelled(turn: kept.Turn | None) -> Any:
        loop.cancel(ctx)
        return real(turn)

    monkeypatch.setattr(kept, "busy", cancelled)
    with pytest.raises(DataError, match="no turn of the loop is under way"):
        loop.resume(ctx, parts=parts())
    assert [turn.state for turn in kept.turns(ctx.store, "colours", 5)] == ["cancelled"]


def test_a_spent_budget_asks_and_quiet_hours_wait(ctx: Context) -> None:
    """Both are told as what the turn waits for; a person may waive the budget."""
    turn = kept.begin(ctx.store, "colours", "a test")
    turn = kept.move(ctx.store, turn, Move("train", "on"), seconds=4000.0)
    found = loop.improve(ctx, parts=parts())
    assert found.waits is not None
    assert "budget of 60 minutes is spent" in found.waits
    loop.decide(ctx, True, author="eve")
    moved = kept.find(ctx.store, "colours")
    assert moved.waits is None
    late = datetime(2026, 5, 1, 23, 0).astimezone()
    quiet = ctx.config.improve.model_copy(update={"quiet": ["22:00-06:00"]})
    config = ctx.config.model_copy(update={"improve": quiet})
    night = Context(ctx.workspace, config, ctx.store)
    assert loop.improve(night, parts=parts(), patient=True, now=lambda: late).waits == (
        "quiet hours until 06:00"
    )


def test_too_few_new_rows_keep_the_stable_release(ctx: Context) -> None:
    """Nobody to ask and two edits: the turn ends, and what came in stays for the next one."""
    settings = ctx.config.improve.model_copy(update={"new_rows": 5})
    review = settings.review.model_copy(update={"count": 0})
    improve = settings.model_copy(update={"review": review})
    small = Context(ctx.workspace, ctx.config.model_copy(update={"improve": improve}), ctx.store)
    turn = loop.improve(small, parts=parts())
    assert turn.state == "kept"
    ended = loop.history(small)[0]["ended"]
    assert ended == "2 new rows, 5 make a turn worthwhile; they stay for the next one"
    again = loop.improve(small, parts=parts())
    assert again.facts["new"] == turn.facts["new"], "they count as new until they are trained on"


def test_edits_count_where_people_agree() -> None:
    """Two people, or an author whom experts have confirmed often enough."""
    from tutelage.core.example import Example, Message

    row = Example(messages=(Message(role="user", content="x"),))

    def edit(item: str, value: str, author: str) -> Edit:
        return Edit(f"r-{item}-{author}", item, value, author, row)

    seen = [edit(f"i{n}", "cold", "ann") for n in range(20)]
    decided = {f"i{n}": "cold" for n in range(20)}
    fresh = [edit("a", "cold", "ann"), edit("b", "warm", "bob"), edit("c", "warm", "cat")]
    everything = [*seen, *fresh, edit("b", "Warm ", "dan")]
    found = judge_edits(fresh, everything, decided, policy="agreed", agreement=0.8)
    assert [one.accepted for one in found] == [True, True, False]
    assert found[1].why == "2 people say the same"
    assert trust(checked(everything, decided))["ann"] == pytest.approx(0.8808, abs=1e-3)
    wrong = dict.fromkeys(decided, "warm")
    found = judge_edits(fresh, everything, wrong, policy="agreed", agreement=0.8)
    assert not found[0].accepted
    over = judge_edits(seen[:1], everything, decided, policy="all", agreement=0.8)
    assert over[0].why == "experts decided this one"


def test_edits_of_strangers_count_while_all_of_them_together_are_confirmed() -> None:
    """Many people with one checked edit each speak for the next; a known bad author does not."""
    from tutelage.core.example import Example, Message

    row = Example(messages=(Message(role="user", content="x"),))

    def edit(item: str, author: str) -> Edit:
        return Edit(f"r-{item}", item, "cold", author, row)

    seen = [edit(f"i{n}", f"user {n}") for n in range(30)]
    bad = [edit(f"j{n}", "bad") for n in range(6)]
    decided = {one.item: "cold" for one in seen} | {one.item: "warm" for one in bad}
    fresh = [edit("a", "new"), edit("b", "bad")]
    everything = [*seen, *bad, *fresh]
    low = trust_together(checked([*seen, *fresh], decided))
    assert low == pytest.approx(0.917, abs=1e-3)  # Wilson's lower end of 30 in 30
    assert trust_together(checked(everything, decided)) == pytest.approx(
        0.734, abs=1e-3
    )  # 30 in 35
    found = judge_edits(fresh, everything, decided, policy="agreed", agreement=0.7)
    assert [one.accepted for one in found] == [True, False]
    assert found[0].why == "users' edits are what experts say at least 73% of times"
    found = judge_edits(fresh, everything, decided, policy="agreed", agreement=0.8)
    assert not found[0].accepted
    few = judge_edits(fresh, [*seen[:4], *fresh], decided, policy="agreed", agreement=0.1)
    assert not any(one.accepted for one in few), "four people do not speak for all"


def test_balance_keeps_one_label_from_taking_over(ctx: Context) -> None:
    """Edits of a label that has its share wait for a later turn."""
    tight = ctx.config.improve.model_copy(update={"balance": 1.0})
    strict = Context(ctx.workspace, ctx.config.model_copy(update={"improve": tight}), ctx.store)
    judged = [one for one in improve_rows.edits(strict) if one.accepted]
    assert len(judged) == 2
    many = judged * 20
    chosen, waiting = improve_rows.within_balance(strict, many)
    assert len(chosen) + len(waiting) == 40
    assert 0 < len(chosen) < 40


@pytest.mark.parametrize(
    ("wins", "losses", "outcome"), [(0, 30, "fail"), (30, 0, "pass"), (1, 1, "not_enough_evidence")]
)
def test_the_gate_compares_on_old_and_new_rows(wins: int, losses: int, outcome: str) -> None:
    """A certain loss fails, a certain gain passes, two rows say nothing."""
    ids = [f"i{n}" for n in range(wins + losses)]
    ours = {name: float(place < wins) for place, name in enumerate(ids)}
    theirs = {name: 1.0 - value for name, value in ours.items()}
    part = improve_gate.compare("new", ids, ours, theirs, 0.05, ids)
    assert part.outcome == outcome
    empty = improve_gate.compare("old", [], {}, {}, 0.05, [])
    found, told = improve_gate.conclude("pass", "", [empty, part])
    assert (found, told) == (outcome, part.sentence)
    assert improve_gate.conclude("fail", "It forgot.", [part])[0] == "fail"


NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("settings", "seen", "starts", "words"),
    [
        ({}, Seen(NOW), False, "nothing starts a turn by itself"),
        ({"every": "30d"}, Seen(None), False, "no data set yet"),
        ({"every": "30d"}, Seen(NOW - timedelta(days=29)), False, "the next turn by the clock"),
        ({"every": "30d"}, Seen(NOW - timedelta(days=31)), True, "every 30d: due since"),
        ({"every": "30d"}, Seen(NOW - timedelta(days=99), NOW), False, "the next turn"),
        ({"cron": "0 3 1 * *"}, Seen(NOW - timedelta(days=31)), True, "cron"),
        ({"on_labels": 25}, Seen(NOW, labels=24), False, "24 of 25 new labels"),
        ({"on_labels": 25}, Seen(NOW, labels=25), True, "25 new labels, 25 start a turn"),
        ({"on_drift": True}, Seen(NOW), False, "no drift alarm stands"),
        ({"on_drift": True}, Seen(NOW, drift="requests moved"), True, "drift: requests moved"),
    ],
)
def test_when_a_turn_is_due(settings: dict[str, Any], seen: Seen, starts: bool, words: str) -> None:
    """The clock, new labels or drift; and why not, in words."""
    found = due(Improve(**settings), seen, NOW)
    assert found.now is starts
    assert words in found.reason


def test_quiet_hours_and_retries() -> None:
    """Hours over midnight, hours that follow each other, and waits that double."""
    at = datetime(2026, 3, 10, 23, 30).astimezone()
    end = quiet_until(["22:00-06:00", "06:00-07:30"], at)
    assert end is not None
    assert (end.day, end.hour, end.minute) == (11, 7, 30)
    assert quiet_until(["22:00-06:00"], at.replace(hour=12)) is None
    settings = Improve(on_labels=1, quiet=["00:00-23:59"])
    assert "quiet hours are until" in due(settings, Seen(NOW, labels=1), NOW).reason
    assert [retry_at(NOW, n) - NOW for n in (1, 2, 9)] == [
        timedelta(hours=1), timedelta(hours=2), timedelta(days=1),
    ]  # fmt: skip


def test_the_schedule_begins_a_turn_and_goes_on_with_it(ctx: Context) -> None:
    """Two edits start it, the answers of the expert carry it on, once each."""
    improve = ctx.config.improve.model_copy(update={"on_labels": 2})
    config = ctx.config.model_copy(update={"improve": improve})
    timed = Context(ctx.workspace, config, ctx.store)
    assert schedule.look(timed).reason == "2 new labels, 2 start a turn"
    begun = schedule.act(timed, parts=parts())
    assert begun.turn is not None
    assert begun.turn.state == "review"
    assert not schedule.look(timed).act, "it waits for the expert"
    _answer_all(timed)
    assert schedule.act(timed, parts=parts()).turn.state == "done"  # type: ignore[union-attr]
    assert not schedule.look(timed).act
    shown = schedule.show(timed)
    assert [row["turn"] for row in shown["begun"]] == [begun.turn.id]


def test_the_command_line_says_it_in_one_sentence(ctx: Context) -> None:
    """Nothing to show, nothing to resume, files that are no source, two opposite decisions."""
    root = str(ctx.workspace.root)

    def run(*words: str) -> tuple[int, str]:
        found = CliRunner().invoke(app, [*words, "--project", root])
        return found.exit_code, found.output + (found.stderr if found.stderr_bytes else "")

    assert "there was no turn of the loop yet" in run("improve", "status")[1]
    assert run("improve", "resume") == (2, run("improve", "resume")[1])
    assert "no turn of the loop is under way" in run("improve", "resume")[1]
    assert run("improve", "history")[0] == 0
    assert run("improve", "resume", "--accept", "--reject")[0] == 2
    assert "nothing starts a turn by itself" in run("schedule", "show")[1]
    code, text = run("improve", "--json")
    data = json.loads(text.splitlines()[-1])
    assert (code, data["state"]) == (0, "review")
    assert data["waits"].startswith("experts answer what was given out")
    code, text = run("improve", "cancel", "--why", "a test")
    assert code == 0
    assert "cancelled: a test" in text
    config = ctx.workspace.config_path
    config.write_text(config.read_text().replace("data/*", "data/rows.jsonl"))
    code, text = run("improve")
    assert code == 2
    assert "data.sources does not read what a turn of the loop writes" in text
