"""Answers are kept as they come: a killed run goes on, a torn line costs one batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.evaluation_rows import colour_task, right_answers

from tutelage.core.events import Event
from tutelage.evaluation.candidates import make_candidates
from tutelage.evaluation.rows import Journal, RowResult
from tutelage.evaluation.runner import Bench, batches, run
from tutelage.evaluation.usage import p95_ratio, usage

TASK = colour_task(test=10)
RIGHT = right_answers(TASK)
WRONG = dict.fromkeys(RIGHT, "no idea")
ADAPTER = Path("adapter")


def test_every_candidate_answers_every_row_and_tells_how_far_it_is(tmp_path: Path) -> None:
    engine = FakeEngine(WRONG, RIGHT)
    events: list[Event] = []
    journal = Journal(tmp_path / "rows.jsonl")
    candidates = make_candidates(TASK, few_shot=2, tuned=True)
    run(TASK, candidates, Bench(engine, ADAPTER, 4, events.append), journal)
    for candidate in candidates:
        texts = [journal.get(candidate.name, row.id).text for row in TASK.rows]
        if candidate.adapter:
            assert texts == [RIGHT[row.input_text] for row in TASK.rows]
    assert events[-1].done == events[-1].total == 60
    assert {e.message for e in events} >= {"base model, zero-shot", "tuned model"}
    assert all(len(asked) <= 4 for _, asked in engine.calls)


def test_a_killed_run_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    candidates = make_candidates(TASK, few_shot=0, tuned=True)
    first = FakeEngine(WRONG, RIGHT, dies_after=4)  # base has 3 batches; tuned dies in its second
    with pytest.raises(KeyboardInterrupt):
        run(TASK, candidates, Bench(first, ADAPTER, 4), Journal(path))
    second = FakeEngine(WRONG, RIGHT)
    run(TASK, candidates, Bench(second, ADAPTER, 4), Journal(path))
    assert [who for who, _ in first.calls + second.calls] == ["base"] * 3 + ["tuned"] * 3
    whole = FakeEngine(WRONG, RIGHT)
    run(TASK, candidates, Bench(whole, ADAPTER, 4), Journal(tmp_path / "other.jsonl"))
    assert first.calls + second.calls == whole.calls
    assert answers(path) == answers(tmp_path / "other.jsonl")


def answers(path: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["candidate"], row["item"], row["text"]) for row in rows]


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    journal = Journal(path)
    journal.append([RowResult("base", "a", "one", "stop"), RowResult("base", "b", "two", "stop")])
    path.write_bytes(path.read_bytes()[:-9])
    again = Journal(path)
    assert again.get("base", "a") is not None and again.get("base", "b") is None
    again.append([RowResult("base", "b", "two", "stop")])
    assert [json.loads(line)["item"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_failed_request_is_asked_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.append([RowResult("base", "a", "", "error")])
    assert journal.get("base", "a") is None
    assert journal.any("base", "a").failed


def test_batches_do_not_depend_on_the_order_of_rows() -> None:
    rows = list(TASK.rows)
    assert batches(rows, 4) == batches(rows[::-1], 4)


def result(item: str, ms: float, tokens: int, **more: object) -> RowResult:
    return RowResult("tuned", item, "t", "stop", 10, 0, tokens, ms, **more)  # type: ignore[arg-type]


def test_usage_counts_time_tokens_and_cut_answers() -> None:
    rows = [result(str(i), 100.0 + i, 5) for i in range(101)]
    rows.append(RowResult("tuned", "cut", "t", "length", 10, 0, 10, 150.0))
    rows.append(RowResult("tuned", "gone", "", "error"))
    found = usage(rows)
    assert found is not None
    assert (found.rows, found.cut) == (102, 1)
    assert found.p50_ms == pytest.approx(150.0, abs=0.6)
    assert found.per_token_ms == pytest.approx(sum(r.latency_ms for r in rows) / 515)
    assert usage([]) is None


def test_latency_ratio_pairs_rows_and_draws_batches_whole() -> None:
    base = [result(str(i), 100.0 + i % 7, 5, batch=i // 8) for i in range(64)]
    ours = [result(str(i), 2 * (100.0 + i % 7), 5, batch=i // 8) for i in range(64)]
    ratio = p95_ratio(ours, base, confidence=0.95, seed=0)
    assert ratio is not None
    assert (ratio.low, ratio.estimate, ratio.high) == pytest.approx((2, 2, 2), rel=0.03)
    assert p95_ratio([], base, confidence=0.95, seed=0) is None
