"""The state machine: every path ends, a fail never raises the weight, an end is an end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.config import Deploy
from tutelage.release.rollback import StepVerdict
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
)
from tutelage.release.strategies.canary import Canary

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


@pytest.mark.parametrize("state", ["pending", "running", "paused"])
def test_a_fail_rolls_back_from_anywhere(state: str) -> None:
    move = advance(RolloutState(PLAN, state, 1), FAIL, Counts(0, 0))  # type: ignore[arg-type]
    assert move is not None
    assert (move.to, move.weight, move.reason) == ("rolled_back", 0, "errors: too many")
    assert move.evidence == {"tests": {}}


def test_inconclusive_waits() -> None:
    assert advance(running(), WAIT, Counts(500, 500)) is None


def test_no_data_freezes_then_returns_to_stable() -> None:
    state = running(1)
    assert advance(state, SILENT, Counts(0, 0, 60)) is None
    move = advance(state, SILENT, Counts(0, 12, PLAN.freeze_after_s))
    assert move is not None
    assert (move.to, move.step, move.weight) == ("paused", 1, 25)
    assert move.reason == "frozen: no canary request for 60 min"
    frozen = after(state, move)
    assert advance(frozen, SILENT, Counts(0, 12, PLAN.freeze_after_s + 1)) is None
    move = advance(frozen, PASS, Counts(0, 12, PLAN.return_after_s))
    assert move is not None
    assert (move.to, move.weight) == ("aborted", 0)
    assert move.reason.endswith("back to stable")


def test_requests_thaw_a_frozen_rollout_without_taking_a_step() -> None:
    move = advance(RolloutState(PLAN, "paused", 1), PASS, Counts(50, 99, 1))
    assert move is not None
    assert (move.to, move.step, move.weight) == ("running", 1, 25)


def test_a_blind_collector_freezes_and_never_ends_a_rollout() -> None:
    move = advance(running(1), BLIND, Counts(50, 99, 1e9))
    assert move is not None
    assert (move.to, move.weight) == ("paused", 25)
    assert move.reason == "frozen: the log can't be read"
    assert advance(RolloutState(PLAN, "paused", 1), BLIND, Counts(50, 99, 1e9)) is None


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
    plan = RolloutPlan((1.0, 100.0), 7, 9, 11.0, 13.0)
    assert RolloutPlan.from_dict(plan.as_dict()) == plan
    assert RolloutPlan.from_dict({"steps": [50, 100], "added_later": 1}).steps == (50.0, 100.0)


def test_canary_takes_the_configured_steps() -> None:
    plan = Canary().plan(Deploy(canary=[2, 100], min_requests=3, min_total=4))
    assert (plan.steps, plan.min_requests, plan.min_total) == ((2.0, 100.0), 3, 4)


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
