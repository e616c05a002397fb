"""The state machine: every path ends, a fail never raises the weight, an end is an end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.config import Deploy
from tutelage.core.errors import ConfigError
from tutelage.release.rollout import (
    ACTIVE,
    TERMINAL,
    Counts,
    RolloutPlan,
    RolloutState,
    Transition,
    advance,
    begin,
    finish,
    pause,
    resume,
)
from tutelage.release.strategies.ab import AB
from tutelage.release.strategies.blue_green import BlueGreen
from tutelage.release.strategies.canary import Canary
from tutelage.release.strategies.rolling import Rolling
from tutelage.release.strategies.shadow import Shadow
from tutelage.release.verdict import StepVerdict

PLAN = RolloutPlan((5.0, 25.0, 100.0), min_requests=10, min_total=30)
PASS = StepVerdict("pass", ("no test speaks against the canary",))
FAIL = StepVerdict("fail", ("errors: too many",), {"tests": {}})
WAIT = StepVerdict("inconclusive", ("errors: some",))
SILENT = StepVerdict("no_data", ("the canary has no request yet",))
BLIND = StepVerdict("collector_error", ("the log can't be read",))


def after(state: RolloutState, move: Transition | None) -> RolloutState:
    return state if move is None else RolloutState(state.plan, move.to, move.step)


def running(step: int = 0) -> RolloutState:
    return RolloutState(PLAN, "running", step)


def test_a_good_candidate_climbs_to_the_end() -> None:
    state = after(RolloutState(PLAN), begin(RolloutState(PLAN)))
    path = [(state.state, state.weight)]
    for total in (10, 30, 40):
        move = advance(state, PASS, Counts(10, total))
        assert move is not None
        state = after(state, move)
        path.append((state.state, move.weight))
    assert path == [("running", 5), ("running", 25), ("running", 100), ("promoted", 100)]
    assert move.reason == "10 canary requests at 100 % held every limit"


def test_a_step_needs_its_requests() -> None:
    assert advance(running(), PASS, Counts(9, 9)) is None
    assert advance(running(), PASS, Counts(10, 10)) is not None


def test_all_traffic_needs_the_total() -> None:
    assert advance(running(1), PASS, Counts(20, 29)) is None
    move = advance(running(1), PASS, Counts(20, 30))
    assert move is not None and move.weight == 100


def test_a_single_step_plan_needs_the_total_too() -> None:
    state = RolloutState(RolloutPlan((100.0,), 5, 20), "running")
    assert advance(state, PASS, Counts(19, 19)) is None
    move = advance(state, PASS, Counts(20, 20))
    assert move is not None and move.to == "promoted"


@pytest.mark.parametrize("state", ["pending", "running", "paused", "frozen"])
def test_a_fail_rolls_back_from_anywhere(state: str) -> None:
    move = advance(RolloutState(PLAN, state, 1), FAIL, Counts(0, 0))  # type: ignore[arg-type]
    assert move is not None
    assert (move.to, move.weight, move.reason) == ("rolled_back", 0, "errors: too many")
    assert move.evidence == {"verdict": "fail", "tests": {}}


def test_inconclusive_waits_and_says_so_once_a_step() -> None:
    move = advance(running(1), WAIT, Counts(500, 500))
    assert move is not None
    assert (move.to, move.step, move.weight) == ("running", 1, 25)
    assert move.reason == "waits: errors: some"
    assert move.evidence == {"verdict": "inconclusive", "note": "inconclusive"}
    told = RolloutState(PLAN, "running", 1, frozenset(["inconclusive"]))
    assert advance(told, WAIT, Counts(500, 500)) is None


def test_all_traffic_waits_where_scores_can_t_exclude_a_drop_yet() -> None:
    verdict = StepVerdict("pass", withheld="quality: 40 scored answers are too few")
    early = advance(running(0), verdict, Counts(10, 10))
    assert early is not None and early.step == 1
    move = advance(running(1), verdict, Counts(40, 400))
    assert move is not None
    assert (move.to, move.step, move.weight) == ("running", 1, 25)
    assert move.reason == "waits: quality: 40 scored answers are too few"
    told = RolloutState(PLAN, "running", 1, frozenset(["withheld"]))
    assert advance(told, verdict, Counts(40, 400)) is None
    assert advance(told, PASS, Counts(40, 400)) is not None
    at_all = advance(running(2), verdict, Counts(40, 400))
    assert at_all is not None and at_all.to == "promoted", "no baseline is left to compare with"


def test_no_data_freezes_then_returns_to_stable() -> None:
    state = running(1)
    assert advance(state, SILENT, Counts(0, 0, 60)) is None
    move = advance(state, SILENT, Counts(0, 12, PLAN.freeze_after_s))
    assert move is not None
    assert (move.to, move.step, move.weight) == ("frozen", 1, 25)
    assert move.reason == "frozen: no canary request for 60 min"
    frozen = after(state, move)
    assert advance(frozen, SILENT, Counts(0, 12, PLAN.freeze_after_s + 1)) is None
    assert PLAN.return_after_s is not None
    move = advance(frozen, PASS, Counts(0, 12, PLAN.return_after_s))
    assert move is not None
    assert (move.to, move.weight) == ("aborted", 0)
    assert move.reason.endswith("back to stable")


def test_requests_thaw_a_frozen_rollout_without_taking_a_step() -> None:
    move = advance(RolloutState(PLAN, "frozen", 1), PASS, Counts(50, 99, 1))
    assert move is not None
    assert (move.to, move.step, move.weight) == ("running", 1, 25)


def test_a_blind_collector_freezes_and_never_ends_a_rollout() -> None:
    move = advance(running(1), BLIND, Counts(50, 99, 1e9))
    assert move is not None
    assert (move.to, move.weight) == ("frozen", 25)
    assert move.reason == "frozen: the log can't be read"
    assert advance(RolloutState(PLAN, "frozen", 1), BLIND, Counts(50, 99, 1e9)) is None


def test_what_an_operator_paused_waits_for_an_operator() -> None:
    move = pause(running(1), "paused by hand")
    assert move is not None
    assert (move.to, move.step, move.weight, move.reason) == ("paused", 1, 25, "paused by hand")
    still = after(running(1), move)
    for verdict in (PASS, WAIT, SILENT, BLIND):
        assert advance(still, verdict, Counts(99, 999, 1e9)) is None
    assert pause(still, "again") is None
    assert pause(RolloutState(PLAN), "too early") is None
    back = resume(still, "resumed by hand")
    assert back is not None and (back.to, back.step, back.weight) == ("running", 1, 25)
    frozen = resume(RolloutState(PLAN, "frozen", 1), "resumed by hand")
    assert frozen is not None and frozen.to == "running"
    assert resume(running(1), "nothing to do") is None


def test_pending_waits_for_begin() -> None:
    state = RolloutState(PLAN)
    assert state.weight == 0
    for verdict in (PASS, WAIT, SILENT, BLIND):
        assert advance(state, verdict, Counts(99, 99, 1e9)) is None
    assert begin(running()) is None


def test_operators_end_what_is_under_way() -> None:
    move = finish(running(), "promoted", "promoted by hand")
    assert move is not None and move.weight == 100
    move = finish(RolloutState(PLAN), "aborted", "aborted by hand")
    assert move is not None and move.weight == 0
    assert finish(running(), "paused", "not an end") is None


def test_a_plan_survives_the_store() -> None:
    plan = RolloutPlan((1.0, 100.0), 7, 9, 11.0, None, shadow=1, end="stay", replicas=2)
    assert RolloutPlan.from_dict(plan.as_dict()) == plan
    assert RolloutPlan.from_dict({"steps": [50, 100], "added_later": 1}).steps == (50.0, 100.0)


def test_canary_takes_the_configured_steps() -> None:
    plan = Canary().plan(Deploy(canary=[2, 100], min_requests=3, min_total=4))
    assert (plan.steps, plan.min_requests, plan.min_total) == ((2.0, 100.0), 3, 4)


def test_shadow_answers_nobody_and_is_completed() -> None:
    plan = Shadow().plan(Deploy(mirror=40, min_requests=10, min_total=30))
    state = after(RolloutState(plan), begin(RolloutState(plan)))
    assert (state.state, state.weight, state.mirrored) == ("running", 0, 40)
    assert advance(state, PASS, Counts(29, 29)) is None
    move = advance(state, PASS, Counts(30, 30))
    assert move is not None
    assert (move.to, move.weight) == ("completed", 0)
    assert move.reason == "30 mirrored requests at 40 % held every limit"
    fail = advance(state, FAIL, Counts(30, 30))
    assert fail is not None and fail.to == "rolled_back"


def test_blue_green_is_judged_on_copies_and_switches_once() -> None:
    plan = BlueGreen().plan(Deploy(min_requests=10, min_total=30))
    state = after(RolloutState(plan), begin(RolloutState(plan)))
    path = [(state.weight, state.mirrored)]
    assert advance(state, PASS, Counts(10, 10)) is None, "all traffic needs the total"
    for total in (30, 40):
        move = advance(state, PASS, Counts(30, total))
        assert move is not None
        state = after(state, move)
        path.append((state.weight, state.mirrored))
    assert path == [(0, 100), (100, 0), (100, 0)]
    assert state.state == "promoted"
    at_once = BlueGreen().plan(Deploy(rehearse=False))
    assert (at_once.steps, at_once.shadow) == ((100.0,), 0)


def test_a_canary_may_be_rehearsed() -> None:
    plan = Canary().plan(Deploy(rehearse=True, mirror=50))
    assert (plan.steps, plan.shadow) == ((50.0, 1.0, 5.0, 25.0, 100.0), 1)
    assert [plan.answered(step) for step in range(5)] == [0, 1, 5, 25, 100]


def test_an_ab_keeps_its_split_until_somebody_ends_it() -> None:
    plan = AB().plan(Deploy(split=30))
    state = RolloutState(plan, "running")
    assert state.weight == 30
    assert advance(state, PASS, Counts(9999, 9999)) is None
    frozen = advance(state, SILENT, Counts(0, 9, 1e9))
    assert frozen is not None and frozen.to == "frozen", "silence does not end it"
    harm = advance(state, FAIL, Counts(9, 9))
    assert harm is not None and harm.to == "rolled_back"
    won = finish(state, "promoted", "promoted by hand")
    assert won is not None and won.weight == 100


def test_rolling_takes_one_backend_after_the_other() -> None:
    urls = [{"base_url": f"http://{name}/v1", "model": "m"} for name in "abc"]
    plan = Rolling().plan(Deploy.model_validate({"engine": "remote", "endpoints": urls}))
    assert plan.replicas == 3
    assert plan.steps == (pytest.approx(33.333333), pytest.approx(66.666667), 100)
    with pytest.raises(ConfigError, match=r"two backends or more, 'deploy\.endpoints' has 0"):
        Rolling().plan(Deploy())


VERDICTS = st.sampled_from([PASS, FAIL, WAIT, SILENT, BLIND])
COUNTS = st.builds(
    Counts,
    st.integers(0, 100),
    st.integers(0, 500),
    st.sampled_from([0.0, 10.0, 3600.0, 90000.0]),
)
STEPS = st.lists(st.floats(0.5, 99, allow_nan=False), max_size=4, unique=True).map(
    lambda values: (*sorted(values), 100.0)
)
PLANS = st.builds(RolloutPlan, STEPS, st.integers(1, 60), st.integers(1, 300))
STATES = st.sampled_from([*ACTIVE, *TERMINAL])


@given(PLANS, STATES, st.data())
def test_a_fail_never_raises_the_weight_and_ends_stay(
    plan: RolloutPlan, name: str, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, len(plan.steps) - 1))
    state = RolloutState(plan, name, step)  # type: ignore[arg-type]
    verdict, counts = data.draw(VERDICTS), data.draw(COUNTS)
    move = advance(state, verdict, counts)
    if state.terminal:
        assert move is None
        assert begin(state) is None
        assert finish(state, "promoted", "") is None
        return
    if move is None:
        return
    if verdict.verdict != "pass":
        assert move.weight <= state.weight
    if verdict.verdict == "fail":
        assert (move.to, move.weight) == ("rolled_back", 0)
    elif move.to == "rolled_back":
        raise AssertionError("only a fail rolls back by itself")
    assert move.step - state.step in (0, 1)
    assert state.state not in ("pending", "paused") or move.to == "rolled_back"
    assert move.reason
    assert move.weight == after(state, move).weight


@given(PLANS, st.lists(st.tuples(VERDICTS, COUNTS), max_size=60))
@settings(max_examples=60)
def test_every_path_can_end_and_the_steps_never_go_back(
    plan: RolloutPlan, story: list[tuple[StepVerdict, Counts]]
) -> None:
    state = after(RolloutState(plan), begin(RolloutState(plan)))
    for verdict, counts in story:
        moved = after(state, advance(state, verdict, counts))
        assert moved.step >= state.step
        state = moved
    for _ in range(len(plan.steps) + 2):
        state = after(state, advance(state, PASS, Counts(1000, 1000)))
    assert state.terminal
