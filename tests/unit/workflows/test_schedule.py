"""When the loop turns by itself: cron lines, changing clocks, labels, alarms, what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.workflows.killed_turn import parts
from tests.unit.workflows.test_improve import ctx

from tutelage.core.artifact import utc_now
from tutelage.core.config_improve import Improve
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event
from tutelage.feedback.cron import next_time
from tutelage.feedback.schedule import quiet_until
from tutelage.serving.monitoring.events import EventLog
from tutelage.store.drift import DriftReportRow, DriftWatchRow
from tutelage.store.improve import ScheduleRow, TurnRow
from tutelage.workflows.context import Context
from tutelage.workflows.improve import improve as loop
from tutelage.workflows.improve import improve_turns as kept
from tutelage.workflows.improve import schedule
from tutelage.workflows.improve.improve_turns import Move

__all__ = ["ctx"]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock changes on 2026-03-29 and 2026-10-25."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("line", "since", "wanted"),
    [
        ("0 3 * * 0", "2026-11-25T12:00", "2026-11-29T02:00"),  # Sunday, as cron counts
        ("0 3 * * 7", "2026-11-25T12:00", "2026-11-29T02:00"),
        ("0 3 * * 1-5", "2026-11-27T12:00", "2026-11-30T02:00"),  # Friday, then Monday
        ("0 3 * * sat-mon", "2026-11-27T12:00", "2026-11-28T02:00"),
        ("0 3 1 * 0", "2026-11-25T12:00", "2026-11-29T02:00"),  # the first, or a Sunday
        ("0 3 1 * *", "2026-03-15T12:00", "2026-04-01T01:00"),  # three o'clock in summer too
        ("0 3 1 * *", "2026-10-15T12:00", "2026-11-01T02:00"),
        ("30 2 * * *", "2026-03-28T12:00", "2026-03-29T01:30"),  # there is no 2:30 that night
    ],
)
def test_cron_lines_mean_what_cron_means(berlin: None, line: str, since: str, wanted: str) -> None:
    """Weekdays from Sunday, either kind of day, and the hour on the wall."""
    moments = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (since, wanted))
    assert next_time(line, next(moments)) == next(moments)


def test_a_gateway_does_not_start_with_a_clock_that_means_nothing(ctx: Context) -> None:
    """It would look each minute, and tell nobody but its log why no turn ever begins."""
    wrong = ctx.config.model_copy(update={"improve": Improve(cron="61 3 1 * *")})
    with pytest.raises(ConfigError, match="is no cron line"):
        schedule.schedule_hooks(replace(ctx, config=wrong), EventLog(ctx.store))
    with pytest.raises(ValueError, match="every"):
        Improve(every="0h")  # a turn begins as soon as one has ended


@pytest.mark.parametrize("spans", [["00:00-00:00"], ["06:00-22:30", "22:00-06:00"]])
def test_quiet_hours_leave_some_to_work_in(spans: list[str]) -> None:
    with pytest.raises(ValueError, match="no turn would ever begin"):
        Improve(quiet=spans)
    assert Improve(quiet=["06:00-22:00", "22:01-06:00"])


@pytest.mark.parametrize("line", ["0 3 * * 8", "0 25 * * *", "0 3 31 2 *", "a b c d e"])
def test_a_cron_line_that_means_nothing_is_named(line: str) -> None:
    """Also one whose day never comes."""
    with pytest.raises(ConfigError, match="is no cron line"):
        next_time(line, datetime(2026, 1, 1, tzinfo=UTC))


def test_quiet_hours_end_on_the_clock_of_that_morning(berlin: None) -> None:
    """Six o'clock is six o'clock, though the night has an hour less or more."""
    for day, utc in ((28, 4), (24, 5)):
        late = datetime(2026, 3 if day == 28 else 10, day, 22, 30).astimezone()
        end = quiet_until(["22:00-06:00"], late)
        assert end is not None
        assert end.astimezone(UTC).hour == utc


def _with(ctx: Context, **settings: object) -> Context:
    improve = ctx.config.improve.model_copy(update=settings)
    return Context(ctx.workspace, ctx.config.model_copy(update={"improve": improve}), ctx.store)


def test_a_turn_that_a_person_gave_up_is_not_begun_again_for_the_same_labels(ctx: Context) -> None:
    """Two edits started it; given up while experts answer, it takes two more."""
    timed = _with(ctx, on_labels=2)
    assert schedule.act(timed, parts=parts()).turn.state == "review"  # type: ignore[union-attr]
    loop.cancel(timed)
    found = schedule.look(timed)
    assert not found.act
    assert "0 of 2 new labels are there" in found.reason


def test_an_alarm_that_was_accepted_starts_no_turn(ctx: Context) -> None:
    """Only one that stands does."""
    timed = _with(ctx, on_drift=True)
    with ctx.store.begin() as session:
        session.add(DriftReportRow(id="dr_1", deployment="colours", kind="alarm", moved=True,
                                   sentence="requests moved", report={}))  # fmt: skip
        session.add(DriftWatchRow(deployment="colours", reference="none", fence=1, state={},
                                  alarm="dr_1"))  # fmt: skip
    assert schedule.look(timed).reason == "drift: requests moved"
    with ctx.store.begin() as session:
        session.delete(session.get_one(DriftWatchRow, "colours"))  # as `drift accept` does
    assert not schedule.look(timed).act


def test_a_turn_that_can_not_begin_is_told_once_and_tried_an_hour_later(ctx: Context) -> None:
    """Sources that do not read what a turn writes: one decision in the journal, then a wait."""
    data = ctx.config.data.model_copy(update={"sources": ["data/rows.jsonl"]})
    config = _with(ctx, on_labels=2).config.model_copy(update={"data": data})
    timed = Context(ctx.workspace, config, ctx.store)
    at = utc_now()
    with pytest.raises(DataError, match="does not read"):
        schedule.act(timed, lambda: at, parts=parts())
    waits = schedule.act(timed, lambda: at + timedelta(minutes=59), parts=parts())
    assert "no turn could begin" in waits.reason
    with pytest.raises(DataError, match="does not read"):
        schedule.act(timed, lambda: at + timedelta(minutes=61), parts=parts())
    with ctx.store.session() as session:
        assert session.query(ScheduleRow).count() == 2
    assert schedule.show(timed)["begun"] == []


def test_the_watch_goes_on_after_what_went_wrong(ctx: Context) -> None:
    """A problem of one look is told, and ends nothing."""
    path = ctx.workspace.config_path
    path.write_text(path.read_text().replace("data/*", "data/rows.jsonl").replace(
        "new_rows: 3", "new_rows: 3, on_labels: 2"))  # fmt: skip
    said: list[Event] = []
    looks = iter((None, None, KeyboardInterrupt()))

    def sleep(seconds: float) -> None:
        if (stop := next(looks)) is not None:
            raise stop

    watched = Context(ctx.workspace, ctx.config, ctx.store, said.append)
    with pytest.raises(KeyboardInterrupt):
        schedule.watch(watched, sleep)
    told = [(event.kind, event.message) for event in said if event.stage == "schedule"]
    assert [kind for kind, _ in told] == ["warning", "note"], "the same is not said twice"
    assert "does not read what a turn of the loop writes" in told[0][1]


def test_what_nobody_foresaw_waits_too_before_it_is_tried_again(ctx: Context) -> None:
    """A bug or a full memory is kept as the turn's problem, so it is not tried every minute."""

    def broken(ctx: Context, turn: kept.Turn) -> Move:
        raise RuntimeError("out of memory")

    timed = _with(ctx, on_labels=2)
    with pytest.raises(RuntimeError):
        schedule.act(timed, parts={**parts(), "mine": broken})
    found = schedule.look(timed)
    assert not found.act
    assert "an unexpected RuntimeError: out of memory; it is tried again at" in found.reason


def test_going_on_over_the_budget_accepts_no_candidate(ctx: Context) -> None:
    """In the gate a person said yes to more minutes, not to a candidate nobody has seen yet."""
    asked = []

    def unsure(ctx: Context, turn: kept.Turn) -> Move:
        asked.append(loop.decision_of(turn))
        return Move("gate", "too few rows", waits="a person decides")

    turn = kept.begin(ctx.store, "colours", "a test")
    kept.move(ctx.store, turn, Move("gate", "on"), seconds=4000.0)
    fast = {**parts(), "gate": unsure}
    assert "budget of 60 minutes is spent" in str(loop.improve(ctx, parts=fast).waits)
    loop.decide(ctx, True, author="eve")
    assert loop.improve(ctx, parts=fast).waits == "a person decides"
    assert asked == [None]


def test_quiet_hours_ask_nobody(ctx: Context) -> None:
    """They end by themselves: a decision about them would be one about something else."""
    turn = kept.begin(ctx.store, "colours", "a test")
    kept.move(ctx.store, turn, Move("gate", "on"))
    late = datetime(2026, 5, 1, 23, 0).astimezone()
    night = _with(ctx, quiet=["22:00-06:00"])
    assert loop.improve(night, parts=parts(), patient=True, now=lambda: late).waits
    assert not loop.status(night)["asks"]
    with pytest.raises(DataError, match=r"waits for no decision: .*quiet hours"):
        loop.decide(night, False)


def test_somebody_unknown_who_shall_be_asked_is_named(ctx: Context) -> None:
    """A typing error in improve.review.people is no reason to ask nobody."""
    review = ctx.config.improve.review.model_copy(update={"people": ["ana"]})
    from tutelage.workflows.improve.improve_steps import steps

    with pytest.raises(DataError, match="ana"):
        loop.improve(_with(ctx, review=review), parts={**parts(), "mine": steps()["mine"]})


def test_the_journal_tells_all_seconds_of_work(ctx: Context) -> None:
    """Those that heartbeats wrote too, of a worker that was killed as well."""
    turn = kept.begin(ctx.store, "colours", "a test")
    with ctx.store.begin() as session:
        session.get_one(TurnRow, turn.id).seconds += 45.0  # three heartbeats, then a kill
    turn = kept.move(ctx.store, turn, Move("train", "on"), seconds=5.0)
    turn = kept.move(ctx.store, turn, Move("gate", "trained"), seconds=7.0)
    assert [row["seconds"] for row in kept.journal(ctx.store, turn.id)] == [0, 50, 7]
    assert turn.seconds == 57


def test_work_ends_where_it_is_once_a_person_cancels(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training of hours is not brought to its end for nobody: its next event stops it."""
    monkeypatch.setattr(kept, "_BEAT_S", 0.001)

    def endless(ctx: Context, turn: kept.Turn) -> Move:
        loop.cancel(ctx, author="eve")
        while True:
            ctx.emit(Event("train", "progress", "one more step"))

    assert loop.improve(ctx, parts={**parts(), "mine": endless}).state == "cancelled"
