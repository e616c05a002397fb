"""Which served answers are scored, by what, and that nothing is scored or paid for twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.gateway import make_release
from tests.fakes.judge_server import JudgeServer
from tests.unit.feedback.live_rows import WARM, WRONG, kept, live_project, log_answers

from tutelage.core.artifact import utc_now
from tutelage.core.errors import ConfigError
from tutelage.feedback.live import draw
from tutelage.feedback.live.judging import allowance, spent
from tutelage.feedback.live.scores import live_scores
from tutelage.feedback.live.scoring import Scoring
from tutelage.serving.records.retention import delete_old
from tutelage.store.judgements import JudgeVerdictRow
from tutelage.store.live import LiveRow, forget_live
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.live_evaluation import make_parts

Open = Callable[..., Context]


@pytest.fixture(scope="module")
def running() -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        yield server


@pytest.fixture
def server(running: JudgeServer) -> JudgeServer:
    running.judge.asked.clear()
    running.script.by_model.pop("judge", None)
    running.judge.opinion = lambda question, pieces, levels: levels
    running.judge.reply = running.judge.before = None
    return running


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Open]:
    opened: list[Context] = []

    def make(*args: Any, **more: Any) -> Context:
        ctx = live_project(tmp_path / "project", *args, **more)
        opened.append(ctx)
        return ctx

    yield make
    for ctx in opened:
        ctx.store.close()


def score_all(ctx: Context, now: datetime | None = None) -> Scoring:
    worker = Scoring(ctx.store, make_parts(ctx))
    worker.draw(utc_now() - timedelta(days=1))
    while worker.step(now):
        pass
    return worker


def test_the_sample_is_the_ids_end_and_a_rollout_has_a_share_of_its_own(project: Open) -> None:
    ctx = project({"share": 0.25, "rollout_share": 1.0})
    plain = log_answers(ctx, [WARM] * 80)
    rolled = log_answers(ctx, [WARM] * 5, rollout="ro_1")
    log_answers(ctx, [WARM] * 5, status=502)
    score_all(ctx)
    drawn = set(kept(ctx, "format"))
    assert drawn == {name for name in plain if int(name[-8:], 16) < 2**30} | set(rolled)
    assert 5 < len(drawn) < 80


def test_checks_say_what_is_wrong_with_an_answer(project: Open) -> None:
    ctx = project()
    good, odd, cut, leak, rude = log_answers(
        ctx, [WARM, WRONG, WARM, '{"family": "warm"} jo@example.org', f"{WARM} you fucking idiot"]
    )
    noted = log_answers(
        ctx, [WARM], checks={"content": {"ok": False, "why": "held back", "checks": ["secrets"]}}
    )[0]
    with ctx.store.begin() as session:
        session.query(draw.RecordRow).filter_by(id=cut).update({"finish_reason": "length"})
    score_all(ctx)
    shape = kept(ctx, "format")
    assert shape[good].value == 1.0 and shape[good].source == "rule"
    assert shape[odd].value == 0.0 and shape[odd].evidence["why"]
    assert "cut off" in shape[cut].evidence["why"]
    leaks = kept(ctx, "no_leak")
    assert leaks[good].value == 1.0
    assert "e-mail" in leaks[leak].evidence["why"]
    assert (leaks[noted].value, leaks[noted].evidence["why"]) == (0.0, "held back")
    assert kept(ctx, "no_toxicity")[rude].value == 0.0
    assert kept(ctx, "no_refusal") == {}, "a closed list of labels has no room for a refusal"
    assert shape[good].candidate == make_release(ctx, "Name the colour family of the thing.").id


def test_a_redacted_log_can_not_show_a_leak_but_the_gateways_word_counts(project: Open) -> None:
    ctx = project(redact=True)
    plain = log_answers(ctx, ["Write to [EMAIL]"])[0]
    note = {"content": {"ok": False, "why": "an address", "checks": ["pii"]}}
    seen = log_answers(ctx, ["Write to [EMAIL]"], checks=note)[0]
    score_all(ctx)
    leaks = kept(ctx, "no_leak")
    assert leaks[plain].value is None and "redacted" in leaks[plain].evidence["why"]
    assert leaks[seen].value == 0.0


def test_answers_without_texts_are_left_out_and_counted(project: Open) -> None:
    ctx = project()
    record = log_answers(ctx, [""], messages=[])[0]
    done = Scoring(ctx.store, make_parts(ctx))
    done.draw(utc_now() - timedelta(hours=1))
    assert done.step().skipped == 1 and not done.step()
    with ctx.store.session() as session:
        row = session.get_one(LiveRow, record)
    assert (row.state, row.problem) == ("skipped", "its texts were not logged")


def test_own_scorers_join(project: Open) -> None:
    named = {"name": "regex", "as": "names_warm", "pattern": "warm"}
    ctx = project({"scorers": [named], "checks": ["format"]})
    first, second = log_answers(ctx, [WARM, '{"family": "cold"}'])
    score_all(ctx)
    found = kept(ctx, "names_warm")
    assert (found[first].value, found[second].value) == (1.0, 0.0)
    assert kept(ctx, "no_toxicity") == {}


@pytest.mark.parametrize("name", ["exact_match", "accuracy", "pass_at_k"])
def test_a_scorer_that_needs_more_than_the_answer_is_refused(project: Open, name: str) -> None:
    ctx = project({"scorers": [name]})
    with pytest.raises(ConfigError, match=f"{name}' can't score an answer alone"):
        make_parts(ctx)


def test_the_judge_sees_the_release_prompt_and_no_reference(
    project: Open, server: JudgeServer
) -> None:
    ctx = project(judge=server.url)
    server.judge.opinion = lambda question, pieces, levels: 1 if "9" in pieces["INPUT"] else levels
    other = make_release(ctx, "Another prompt.").id
    ids = log_answers(ctx, [WARM] * 10)
    tuned = log_answers(ctx, [WARM], release=other)[0]
    score_all(ctx, now=datetime(2026, 5, 4, 23, 0, tzinfo=UTC))
    marks = kept(ctx, "judge")
    assert [marks[name].value for name in ids] == [1.0] * 9 + [0.0]
    assert marks[tuned].source == "judge" and marks[tuned].candidate == other
    pieces = [asked["pieces"] for asked in server.judge.asked]
    assert all("REFERENCE" not in one for one in pieces)
    assert {one["INSTRUCTIONS"] for one in pieces} == {
        "Another prompt.", "Name the colour family of the thing.",
    }  # fmt: skip


def test_the_mark_of_the_judge_is_written_first(project: Open, server: JudgeServer) -> None:
    """A rollout gives the metric that comes first most of its risk."""
    ctx = project(judge=server.url)
    log_answers(ctx, [WARM])
    score_all(ctx, now=datetime(2026, 5, 4, 23, 0, tzinfo=UTC))
    assert next(live_scores(ctx.store)).metric == "judge"


def test_the_budget_of_a_day_is_kept_and_rules_go_on_without_the_judge(
    project: Open, server: JudgeServer
) -> None:
    ctx = project({"tokens": 1_300}, judge=server.url)
    log_answers(ctx, [WARM] * 40)
    late = datetime.combine(utc_now().date(), datetime.max.time(), UTC)
    score_all(ctx, now=late)
    assert 0 < len(kept(ctx, "judge")) < 40
    assert len(kept(ctx, "format")) == 40
    assert 0 < spent(ctx.store, late) <= 1_300
    asked = len(server.judge.asked)
    log_answers(ctx, [WARM] * 5, ago_s=1)
    score_all(ctx, now=late)
    assert len(server.judge.asked) == asked, "what is spent stays spent in another process too"
    assert spent(ctx.store, late + timedelta(days=1)) == 0


def test_the_budget_is_spread_over_the_day() -> None:
    midnight = datetime(2026, 5, 4, tzinfo=UTC)
    hours = [allowance(2_400, midnight + timedelta(hours=h)) for h in (0, 1, 11, 23, 23.9)]
    assert hours == [100, 200, 1_200, 2_400, 2_400]


def test_a_judge_that_is_down_keeps_nothing_from_being_scored(
    project: Open, server: JudgeServer
) -> None:
    ctx = project(judge=server.url)
    log_answers(ctx, [WARM] * 3)
    server.script.by_model["judge"] = {"status": 401, "message": "no such key"}
    worker = Scoring(ctx.store, make_parts(ctx))
    worker.draw(utc_now() - timedelta(hours=1))
    done = worker.step()
    assert (done.scored, done.judged) == (3, 0)
    assert "no such key" in done.problem
    log_answers(ctx, [WARM], ago_s=1)
    worker.draw(utc_now() - timedelta(hours=1))
    seen = len(server.script.seen)
    assert worker.step().scored == 1
    assert len(server.script.seen) == seen, "it is left alone for a while"


def test_two_workers_on_one_store_score_each_answer_once(project: Open) -> None:
    ctx = project()
    ids = log_answers(ctx, [WARM] * 150)
    workers = [threading.Thread(target=score_all, args=(ctx,)) for _ in range(2)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert set(kept(ctx, "format")) == set(ids)


def test_a_claim_ends_by_itself_and_its_owner_can_not_write_any_more(project: Open) -> None:
    ctx = project()
    ids = log_answers(ctx, [WARM] * 3)
    slow = Scoring(ctx.store, make_parts(ctx))
    slow.draw(utc_now() - timedelta(hours=1))
    claimed = draw.claim(ctx.store, slow._owner, 10)
    assert len(claimed) == 3
    other = Scoring(ctx.store, make_parts(ctx))
    assert not other.step(), "claimed by another"
    assert other.step(utc_now() + draw.LEASE + timedelta(seconds=1)).scored == 3
    with ctx.store.begin() as session:
        assert draw.still_owned(session, slow._owner, ids) == []


def test_a_worker_that_is_closed_gives_back_what_it_claimed(project: Open) -> None:
    ctx = project()
    log_answers(ctx, [WARM] * 3)
    worker = Scoring(ctx.store, make_parts(ctx))
    worker.draw(utc_now() - timedelta(hours=1))
    draw.claim(ctx.store, worker._owner, 10)
    worker.close()
    assert Scoring(ctx.store, make_parts(ctx)).step().scored == 3


def test_scores_are_read_by_time_release_and_place(project: Open) -> None:
    ctx = project({"checks": ["format"]})
    old = log_answers(ctx, [WARM], ago_s=7_200)[0]
    score_all(ctx)
    other = make_release(ctx, "Another prompt.").id
    new = log_answers(ctx, [WRONG], release=other)[0]
    score_all(ctx)
    hour_ago = utc_now() - timedelta(hours=1)
    assert [one.record for one in live_scores(ctx.store)] == [old, new]
    assert [one.record for one in live_scores(ctx.store, since=hour_ago)] == [new]
    assert [one.record for one in live_scores(ctx.store, until=hour_ago)] == [old]
    (found,) = live_scores(ctx.store, release=other)
    assert (found.deployment, found.metric, found.value) == ("colours", "format", 0.0)
    assert found.at.tzinfo is not None and found.evidence["why"]
    assert list(live_scores(ctx.store, after=found.id)) == []


def test_old_records_leave_values_and_forgotten_ones_nothing(
    project: Open, server: JudgeServer
) -> None:
    ctx = project(judge=server.url)
    old = log_answers(ctx, [WRONG], ago_s=7_200)[0]
    new = log_answers(ctx, [WRONG])[0]
    score_all(ctx, now=datetime.combine(utc_now().date(), datetime.max.time(), UTC))
    assert delete_old(ctx.store, utc_now() - timedelta(hours=1)) == 1
    assert kept(ctx, "format")[old].value == 0.0 and kept(ctx, "format")[old].evidence == {}
    with ctx.store.begin() as session:
        items = set(session.scalars(select(JudgeVerdictRow.item)))
        assert items == {new}, "what the judge wrote went with the record"
        forget_live(session, [new])
        assert set(session.scalars(select(ScoreRow.item))) == {old}
        assert session.get(LiveRow, new) is None
        assert list(session.scalars(select(JudgeVerdictRow.item))) == []
