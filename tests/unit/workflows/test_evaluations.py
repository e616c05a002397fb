"""What was evaluated, read for people: the list, columns side by side, rows by group and text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.evaluation_rows import FORMAT, examples

from tutelage.core.artifact import Artifact, describe
from tutelage.core.errors import DataError
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.models import ModelSource
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation import compare, evaluate, evaluations
from tutelage.workflows.evaluation.candidates import candidates

SPLITS = {
    "train": examples("old", 24),
    "validation": examples("middle", 4),
    "test": examples("new", 30),
}
RIGHT = {row.input_text: row.answer or "" for row in SPLITS["test"]}
ALL_WARM = dict.fromkeys(RIGHT, FORMAT.render("warm"))
ALL_COLD = dict.fromkeys(RIGHT, FORMAT.render("cold"))
Opened = tuple[Context, list[Artifact]]


@pytest.fixture
def two(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Opened:
    """Two evaluations over the same rows: an adapter that is right, one that says cold."""
    source = ModelSource("demo", "demo", "directory", tmp_path, "d" * 64)
    monkeypatch.setattr(evaluate, "locate_model", lambda spec, root: source)
    ctx = open_context(make_project())
    clusters = {row.id: row.id for rows in SPLITS.values() for row in rows}
    version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(SPLITS, clusters))
    path = ctx.workspace.relative(version.directory)
    dataset = register(ctx.store, describe("dataset", version.hash, path))
    found = []
    for letter, answers in (("a", RIGHT), ("b", ALL_COLD)):
        folder = ctx.workspace.artifacts / "adapters" / letter
        folder.mkdir(parents=True)
        made = describe("adapter", letter * 64, ctx.workspace.relative(folder))
        adapter = register(ctx.store, made)
        engine = evaluate.LoadedEngine(FakeEngine(ALL_WARM, answers), len)
        done = evaluate.evaluate(ctx, dataset, adapter, open_engine=lambda s, n, e=engine: e)
        found.append(done.artifact)
    return ctx, found


def test_the_list_is_paged_and_filtered(two: Opened) -> None:
    ctx, (good, bad) = two
    total, entries = evaluations.listing(ctx)
    assert (total, [entry["id"] for entry in entries]) == (2, [bad.hash, good.hash])
    assert (entries[1]["score"], entries[1]["against"]) == (1.0, "base")
    total, entries = evaluations.listing(ctx, verdict="pass")
    assert (total, [entry["id"] for entry in entries]) == (1, [good.hash])
    total, entries = evaluations.listing(ctx, start=1, count=1)
    assert (total, [entry["id"] for entry in entries]) == (2, [good.hash])


def test_rows_stand_in_groups_and_are_found_by_text(two: Opened) -> None:
    ctx, (good, _) = two
    found = evaluations.rows(ctx, good.hash[:12], "tuned", "base")
    assert evaluations.counts(found) == {"worse": 0, "better": 15, "both_low": 0, "both_high": 15}
    better = evaluations.pick(found, group="better")
    assert len(better) == 15 and all(row.label == "cold" for row in better)
    assert (better[0].score, better[0].other, better[0].change) == (1.0, 0.0, 1.0)
    (only,) = evaluations.pick(found, text="NUMBER 17")
    assert only.input == "new thing number 17" and only.ours == only.expected != only.theirs
    assert evaluations.pick(found, order="worst")[0].score == 1.0
    assert evaluations.pick(found, text="nowhere") == []


def test_rows_whose_data_is_gone_keep_their_answers(two: Opened) -> None:
    ctx, (good, _) = two
    for file in (ctx.workspace.artifacts / "datasets").rglob("*"):
        if file.is_file():
            file.unlink()
    found = evaluations.rows(ctx, good.hash[:12], "tuned", "base")
    assert len(found) == 30 and {row.input for row in found} == {""}
    assert evaluations.counts(found)["better"] == 15


def test_columns_stand_side_by_side(two: Opened) -> None:
    ctx, (good, bad) = two
    found = evaluations.side_by_side(ctx, [good.hash[:12], bad.hash[:12]])
    assert found["columns"][0]["verdict"] == "pass"
    assert len({column["dataset"] for column in found["columns"]}) == 1
    line = found["metrics"][0]
    assert line["name"] == found["primary"] == "accuracy"
    assert [cell["estimate"] for cell in line["cells"]] == [1.0, 0.5]
    assert line["cells"][1]["low"] < 0.5 < line["cells"][1]["high"]


def test_a_pair_is_called_as_the_caller_wishes(two: Opened) -> None:
    ctx, (good, bad) = two
    found = compare.compare(ctx, good.hash[:12], bad.hash[:12], labels=("first", "second"))
    assert (found["a"], found["b"]) == ("first", "second")
    assert "first is better" in found["sentence"]


def test_the_report_is_read_as_it_was_written(two: Opened) -> None:
    ctx, (good, _) = two
    assert evaluations.report_page(ctx, good.hash[:12]).startswith("<!doctype html>")
    (ctx.path_of(good) / "report.html").unlink()
    with pytest.raises(DataError, match="report can't be read"):
        evaluations.report_page(ctx, good.hash[:12])


def test_who_can_be_evaluated_is_listed_by_the_name_that_the_command_takes(two: Opened) -> None:
    ctx, _ = two
    assert set(candidates(ctx)) == {"a" * 12, "b" * 12, "base"}
