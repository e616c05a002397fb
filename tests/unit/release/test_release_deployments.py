"""Deployments: one writer wins, nobody undoes what they have not seen, every move is written."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.release.conftest import Home

from tutelage.core.errors import Conflict, DataError
from tutelage.release.deployments import (
    abort,
    active_rollout,
    apply_transition,
    deployments,
    ensure_deployment,
    journal,
    last_rollout,
    promote,
    rollback,
    route,
    start_rollout,
    state_of,
    switch,
)
from tutelage.release.rollout import Counts, RolloutPlan, advance, begin, finish
from tutelage.release.verdict import StepVerdict
from tutelage.store.base import open_store

PLAN = RolloutPlan((25.0, 100.0), min_requests=2, min_total=4)
PASS = StepVerdict("pass", evidence={"tests": {"errors": {"e": 0.5}}})
Two = tuple[Home, str, str]


def begun(home: Home, candidate: str) -> tuple[str, int]:
    """Start a rollout and let it run; return its id and fence."""
    row = start_rollout(home.store, "shop", candidate, PLAN)
    move = begin(state_of(row))
    assert move is not None
    row = apply_transition(home.store, row.id, row.fence, move)
    return row.id, row.fence


def test_a_deployment_is_made_once(two: Two) -> None:
    home, base, tuned = two
    first = ensure_deployment(home.store, "shop", base)
    again = ensure_deployment(home.store, "shop", tuned)
    assert (again.stable, again.salt) == (base, first.salt)
    assert len(first.salt) == 64
    assert [row.name for row in deployments(home.store)] == ["shop"]
    with pytest.raises(DataError, match="there is no release"):
        ensure_deployment(home.store, "other", "f" * 64)


def test_an_unknown_deployment_names_the_nearest(two: Two) -> None:
    home, base, _ = two
    with pytest.raises(DataError, match="none, run `tutelage up`"):
        route(home.store, "shop")
    ensure_deployment(home.store, "shop", base)
    with pytest.raises(DataError, match=r"Did you mean 'shop'\? Known: shop"):
        route(home.store, "shp")


def test_the_route_follows_the_rollout_to_its_end(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    start_rollout(home.store, "shop", tuned, PLAN)
    seen = []
    for counts in (None, Counts(2, 2), Counts(2, 4), Counts(2, 6)):
        now = route(home.store, "shop")
        seen.append((now.state, now.canary == tuned, now.weight, now.step, now.fence))
        row = active_rollout(home.store, "shop")
        assert row is not None
        state = state_of(row)
        move = begin(state) if counts is None else advance(state, PASS, counts)
        if move is not None:
            apply_transition(home.store, row.id, row.fence, move)
    assert seen == [
        ("pending", True, 0, 0, 0),
        ("running", True, 25, 0, 1),
        ("running", True, 25, 0, 1),
        ("running", True, 100, 1, 2),
    ]
    now = route(home.store, "shop")
    assert (now.stable, now.canary, now.rollout, now.weight) == (tuned, None, None, 0)
    row = last_rollout(home.store, "shop")
    assert row is not None
    moves = journal(home.store, row.id)
    assert [(m.fence, m.from_state, m.to_state, m.weight) for m in moves] == [
        (1, "pending", "running", 25),
        (2, "running", "running", 100),
        (3, "running", "promoted", 100),
    ]
    assert moves[-1].evidence == {"verdict": "pass", "tests": {"errors": {"e": 0.5}}}
    assert all(m.reason for m in moves)


def test_a_rolled_back_candidate_leaves_stable_alone(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    rollout, fence = begun(home, tuned)
    row = active_rollout(home.store, "shop")
    assert row is not None
    move = advance(state_of(row), StepVerdict("fail", ("errors: many",)), Counts(1, 1))
    assert move is not None
    apply_transition(home.store, rollout, fence, move)
    now = route(home.store, "shop")
    assert (now.stable, now.canary) == (base, None)
    assert journal(home.store, rollout)[-1].reason == "errors: many"
    assert begun(home, tuned)[0] != rollout  # and it may be tried again


def test_one_rollout_at_a_time(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    begun(home, tuned)
    with pytest.raises(Conflict, match=r"a rollout is under way \(running, step 1\)"):
        start_rollout(home.store, "shop", tuned, PLAN)
    ensure_deployment(home.store, "other shop", base)
    start_rollout(home.store, "other shop", tuned, PLAN)


def test_what_is_stable_needs_no_rollout(two: Two) -> None:
    home, base, _ = two
    ensure_deployment(home.store, "shop", base)
    with pytest.raises(Conflict, match="stable already"):
        start_rollout(home.store, "shop", base, PLAN)
    with pytest.raises(DataError, match="there is no release 'ffffffffffff'"):
        start_rollout(home.store, "shop", "f" * 64, PLAN)


def test_a_stale_fence_changes_nothing(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    rollout, fence = begun(home, tuned)
    row = active_rollout(home.store, "shop")
    assert row is not None
    late = finish(state_of(row), "promoted", "decided before the abort")
    assert late is not None
    abort(home.store, "shop")
    with pytest.raises(Conflict, match="moved by somebody else"):
        apply_transition(home.store, rollout, fence, late)
    with pytest.raises(Conflict, match=r"has ended \(aborted\)"):
        apply_transition(home.store, rollout, fence + 1, late)
    assert route(home.store, "shop").stable == base
    assert [m.to_state for m in journal(home.store, rollout)] == ["running", "aborted"]


def test_operators_promote_abort_and_roll_back(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    for move in (promote, abort):
        with pytest.raises(Conflict, match="no rollout is under way"):
            move(home.store, "shop")
    with pytest.raises(Conflict, match="no earlier release"):
        rollback(home.store, "shop")
    before, _ = begun(home, tuned)
    promote(home.store, "shop", reason="looks right")
    assert route(home.store, "shop").stable == tuned
    row = rollback(home.store, "shop")
    assert (row.strategy, row.state, row.candidate) == ("rollback", "promoted", base)
    assert route(home.store, "shop").stable == base
    assert [m.reason for m in journal(home.store, row.id)] == ["rolled back by hand"]
    with pytest.raises(Conflict, match="has been brought back already, in place of colours-v1"):
        rollback(home.store, "shop")  # the second operator
    with pytest.raises(Conflict, match="isn't the newest any more"):
        rollback(home.store, "shop", rollout=before)
    assert route(home.store, "shop").stable == base
    switch(home.store, "shop", tuned)  # and forth again, by name
    assert rollback(home.store, "shop").candidate == base


def test_a_return_may_name_the_promotion_that_it_takes_back(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    promoted, _ = begun(home, tuned)
    promote(home.store, "shop")
    assert rollback(home.store, "shop", rollout=promoted).candidate == base
    failed = start_rollout(home.store, "shop", tuned, PLAN).id
    rollback(home.store, "shop", rollout=failed)
    with pytest.raises(Conflict, match=f"{failed} was already rolled back"):  # meanwhile
        rollback(home.store, "shop", rollout=failed)
    assert route(home.store, "shop").stable == base


def test_what_was_taken_back_already_is_not_taken_back_further(two: Two) -> None:
    home, base, tuned = two
    third = home.release(prompt="Third.").id
    ensure_deployment(home.store, "shop", base)
    switch(home.store, "shop", tuned)
    rollout, fence = begun(home, third)
    seen = finish(state_of(last_rollout(home.store, "shop")), "rolled_back", "p90 is worse")  # type: ignore[arg-type]
    assert seen is not None
    apply_transition(home.store, rollout, fence, seen)
    with pytest.raises(Conflict) as told:  # an operator whom the alert woke
        rollback(home.store, "shop")
    said = told.value.sentence()
    assert f"rollout {rollout} was already rolled back at 20" in said
    assert "(p90 is worse); colours-v1 answers every request" in said
    assert (
        "`tutelage rollout rollback -d shop --to colours-base` makes the one before it stable all"
        in said
    )
    for other, says in ((third, "isn't the release before colours-v1, which is colours-base"),
                        (tuned, "colours-v1 answers every request already")):  # fmt: skip
        with pytest.raises(Conflict, match=says):
            rollback(home.store, "shop", to=other)
    assert route(home.store, "shop").stable == tuned
    abort_id, _ = begun(home, third)
    abort(home.store, "shop")
    with pytest.raises(Conflict, match=f"{abort_id} was already aborted"):
        rollback(home.store, "shop")
    assert rollback(home.store, "shop", to=base).candidate == base  # it is meant


def test_a_named_release_is_where_a_return_leads_or_nothing_moves(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    begun(home, tuned)
    with pytest.raises(Conflict, match="a rollout is under way"):
        rollback(home.store, "shop", to=tuned)
    assert rollback(home.store, "shop", to=base).state == "rolled_back"
    switch(home.store, "shop", tuned)
    rollback(home.store, "shop", to=base)
    with pytest.raises(Conflict, match="colours-base answers every request already"):
        rollback(home.store, "shop", to=base)  # from a page that is out of date
    assert rollback(home.store, "shop", to=tuned).candidate == tuned


def test_rolling_back_during_a_rollout_ends_it(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    begun(home, tuned)
    assert rollback(home.store, "shop").state == "rolled_back"
    assert route(home.store, "shop").stable == base


def test_switching_is_one_move_and_is_written(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    row = switch(home.store, "shop", tuned)
    assert route(home.store, "shop").stable == tuned
    assert [(m.to_state, m.weight) for m in journal(home.store, row.id)] == [("promoted", 100)]
    with pytest.raises(Conflict, match="stable already"):
        switch(home.store, "shop", tuned)
    begun(home, base)
    third = home.release(prompt="Third.").id
    with pytest.raises(Conflict, match="a rollout is under way"):
        switch(home.store, "shop", third)
    assert switch(home.store, "shop", base).strategy == "canary"  # its own rollout, promoted
    assert active_rollout(home.store, "shop") is None


def test_a_promotion_that_fails_half_way_leaves_no_trace(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    rollout, fence = begun(home, tuned)
    row = active_rollout(home.store, "shop")
    assert row is not None
    move = finish(state_of(row), "promoted", "go")
    assert move is not None
    bad = type(move)(move.to, move.step, move.weight, move.reason, {"not": object()})
    with pytest.raises(Exception, match="serializable"):
        apply_transition(home.store, rollout, fence, bad)
    assert route(home.store, "shop").stable == base
    assert len(journal(home.store, rollout)) == 1


def together(works: list[Callable[[], object]]) -> list[str]:
    """Run functions at the same moment; return "done" or the error's name for each."""
    gate, results = threading.Barrier(len(works)), [""] * len(works)

    def run(index: int) -> None:
        gate.wait()
        try:
            works[index]()
            results[index] = "done"
        except Conflict:
            results[index] = "Conflict"

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_many_operators_at_once_one_starts(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    results = together([lambda: start_rollout(home.store, "shop", tuned, PLAN)] * 6)
    assert sorted(results) == ["Conflict"] * 5 + ["done"]


def three_at_once(home: Home, base: str, tuned: str, times: int) -> None:
    """Promote, abort and roll back at once, again and again: one wins, and the route says who."""
    for _ in range(times):
        rollout, _fence = begun(home, tuned if route(home.store, "shop").stable == base else base)
        row = active_rollout(home.store, "shop")
        assert row is not None
        automatic = finish(state_of(row), "rolled_back", "errors")
        assert automatic is not None
        results = together([
            lambda: promote(home.store, "shop"),
            lambda: abort(home.store, "shop"),
            lambda r=row, m=automatic: apply_transition(home.store, r.id, r.fence, m),
        ])  # fmt: skip
        assert sorted(results) == ["Conflict", "Conflict", "done"]
        moves = journal(home.store, rollout)
        assert len(moves) == 2
        promoted = moves[-1].to_state == "promoted"
        assert (route(home.store, "shop").stable == row.candidate) == promoted


def test_promote_and_abort_at_once_one_wins(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    three_at_once(home, base, tuned, 5)


def operator(url: str, rollout: str, fence: int, to: str, answers: object) -> None:
    store = open_store(url)
    row = active_rollout(store, "shop")
    try:
        if row is None:
            raise Conflict("ended before this process looked")
        move = finish(state_of(row), to, to)  # type: ignore[arg-type]
        assert move is not None
        apply_transition(store, rollout, fence, move)
        answers.put("done")  # type: ignore[attr-defined]
    except Conflict:
        answers.put("Conflict")  # type: ignore[attr-defined]
    finally:
        store.close()


def two_processes(home: Home, url: str, tuned: str) -> None:
    """Let two processes end one rollout with the same fence: one wins."""
    rollout, fence = begun(home, tuned)
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    workers = [
        spawn.Process(target=operator, args=(url, rollout, fence, to, answers))
        for to in ("promoted", "aborted")
    ]
    for worker in workers:
        worker.start()
    found = sorted(answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == ["Conflict", "done"]
    assert len(journal(home.store, rollout)) == 2


def test_two_processes_with_the_same_fence_one_wins(two: Two) -> None:
    home, base, tuned = two
    ensure_deployment(home.store, "shop", base)
    two_processes(home, f"sqlite:///{Path(home.workspace.home) / 'store.db'}", tuned)
