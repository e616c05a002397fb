"""Live curves from events, pages of rows from files: what the pages about runs stand on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.core.errors import DataError
from tutelage.workflows.context import open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data import browse
from tutelage.workflows.training.training_watch import Curve, curve_of, thin, trained, unfinished


def step(number: int, loss: float) -> dict[str, object]:
    data = {"loss": loss, "tokens_per_s": 50.0, "eta_s": 3.0, "learning_rate": 1e-3}
    return {"stage": "train", "kind": "progress", "done": number, "total": 9, "data": data}


def test_a_curve_grows_with_the_events() -> None:
    curve = Curve()
    look = {"stage": "train", "kind": "metric", "done": 0, "data": {"validation_loss": 2.0}}
    assert curve.feed([{"stage": "train", "kind": "start", "total": 9}, look])
    assert curve.feed([step(1, 3.0), step(2, math.nan), step(3, 2.5)])
    assert curve.train == [(1, 3.0), (3, 2.5)] and curve.validation == [(0, 2.0)]
    assert (curve.step, curve.total, curve.eta_s, curve.pace) == (3, 9, 3.0, 50.0)
    told = {"stage": "plan", "kind": "warning", "message": "few rows", "data": {}}
    assert not curve.feed([told])
    assert curve.notes == [("warning", "few rows")]
    curve.feed([{"stage": "train", "kind": "start", "total": 4}])  # the next stage of training
    assert curve.train == []


def test_a_finished_run_has_the_curve_of_its_history() -> None:
    made = curve_of([{"step": 0, "validation_loss": 2.0}, {"step": 1, "loss": 1.5}])
    assert made.validation == [(0, 2.0)] and made.train == [(1, 1.5)] and made.total == 1


def test_thin_keeps_the_last_point_and_the_mean() -> None:
    points = [(float(n), 1.0) for n in range(1000)]
    few = thin(points, 100)
    assert len(few) <= 101 and few[-1] == points[-1] and {value for _, value in few} == {1.0}
    assert thin(points[:5]) == points[:5]


def test_rows_are_read_by_place_and_found_by_their_words(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f'row {n} said "ümlaut"' if n % 10 == 0 else f"row {n}"} for n in range(95)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    found = browse.read_lines(path, start=90, count=20)
    assert (found.total, [row["text"] for row in found.rows][-1]) == (95, "row 94")
    found = browse.read_lines(path, start=8, count=20, text='"Ümlaut"')
    assert found.total == 10 and len(found.rows) == 2
    path.write_text('{"text": "new"}\n', "utf-8")
    assert browse.read_lines(path, start=0, count=5).rows == [{"text": "new"}]
    assert browse.read_lines(tmp_path / "none", start=0, count=5).total == 0


def test_a_version_can_be_looked_through(make_project: Callable[..., Path]) -> None:
    good = [f"{colour} thing {n}" for n in range(12) for colour in ("red", "blue")]
    text = "".join(
        json.dumps({"text": one, "label": "warm" if "red" in one else "cold"}) + "\n"
        for one in good
    )
    ctx = open_context(make_project({"rows.jsonl": text + '{"text": "", "label": "warm"}\n'}))
    try:
        made = curate(ctx).artifact
        found = browse.overview(ctx, made.short)
        assert found["labels"] == {"cold": 12, "warm": 12} and found["used_by"] == []
        assert browse.rows(ctx, made.short, "train", count=3).rows[0]["source"].startswith("data/")
        left = browse.rows(ctx, made.short, "quarantine")
        assert left.total == 1 and left.rows[0]["place"] == "data/rows.jsonl:25"
        for name, part in ((made.short, "../../etc"), ("ffffffffffff", "train"), ("", "train")):
            with pytest.raises(DataError):
                browse.rows(ctx, name, part)
        with pytest.raises(DataError):
            trained(ctx, "ffffffffffff")
    finally:
        ctx.store.close()


def test_a_run_that_was_cut_says_how_far_it_came(make_project: Callable[..., Path]) -> None:
    ctx = open_context(make_project({"rows.jsonl": ""}))
    try:
        folder = ctx.workspace.runs / "train-abc"
        (folder / "checkpoints" / "step-00000007").mkdir(parents=True)
        assert unfinished(ctx) == []
        (folder / "plan.json").write_text(json.dumps({"steps": 20}), encoding="utf-8")
        (found,) = unfinished(ctx)
        assert (found.name, found.step, found.steps) == ("train-abc", 7, 20)
    finally:
        ctx.store.close()
