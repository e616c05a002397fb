"""The new rows of a turn: which edits count, and the version that holds them all.

Experts' decisions come in through `data label publish`; edits of users become a sources file of
their own, immutable and named by its content. A record's side was decided when it arrived: only
what is on the train side, and resembles nothing held out, is ever trained on.
"""

from __future__ import annotations

import glob
import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.core.lines import lines_of
from tutelage.core.workspace import atomic_write
from tutelage.data.annotation.items import item_id
from tutelage.data.annotation.votes import Decision, decide
from tutelage.data.version import json_lines, load_version
from tutelage.feedback.edits import Edit, Judged, judge_edits
from tutelage.feedback.segment import Corrected, said, trainable
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts_items import without_prompt
from tutelage.workflows.data.experts_publish import FOLDER, not_a_source, publish
from tutelage.workflows.data.experts_publish import PREFIX as ANNOTATED
from tutelage.workflows.data.experts_review import load_votes
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.living import living

PREFIX = "corrected-"
_LEAST_ROWS = 10  # of a label, which balance never goes below


@dataclass(frozen=True)
class NewVersion:
    """A version and what is new in it. `new` counts rows by side; `evidence` explains."""

    artifact: Artifact
    new: dict[str, int]
    evidence: dict[str, Any]

    @property
    def total(self) -> int:
        """New rows of all sides."""
        return sum(self.new.values())

    def refused(self) -> str:
        """Return how many edits do not count, and why most of them do not; empty if all do."""
        waiting: dict[str, int] = self.evidence["edits"]["waiting"]
        if not waiting:
            return ""
        most, count = max(waiting, key=lambda why: waiting[why]), sum(waiting.values())
        told = "1 edit does" if count == 1 else f"{count} edits do"
        mostly = "mostly " if len(waiting) > 1 else ""
        return f"; {told} not count, {mostly}because {most}"

    def sentence(self) -> str:
        """Return what is new, in one line."""
        parts = ", ".join(f"{self.new[side]} {side}" for side in SPLITS)
        told = f"dataset {self.artifact.short}: {self.total} new rows ({parts})"
        return told + self.refused()


def require_source(ctx: Context) -> None:
    """Raise DataError unless data.sources reads the files that a turn writes."""
    names = {f"{FOLDER}/{prefix}0.jsonl" for prefix in (PREFIX, ANNOTATED)}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).touch()
        for pattern in ctx.config.data.sources:
            names -= set(glob.glob(pattern, root_dir=folder, recursive=True))  # noqa: PTH207
    if names:
        raise DataError(
            "data.sources does not read what a turn of the loop writes",
            where=str(ctx.workspace.config_path),
            fix=f"Add {FOLDER}/*.jsonl to data.sources",
        )


def new_version(ctx: Context, previous: str) -> NewVersion:
    """Publish what was decided, write the edits that count, curate; say what is new since
    `previous`, the hash of a version.

    Raises DataError if the files are no source, or if a row would be trained on that may not be.
    """
    published = publish(ctx)
    if not published["in_sources"]:
        raise not_a_source(ctx, str(published["path"]))
    judged = edits(ctx)
    chosen, waiting = within_balance(ctx, [one for one in judged if one.accepted])
    path = write_edits(ctx, chosen)
    outcome = curate(ctx)
    version = load_version(ctx.path_of(outcome.artifact))
    before = living(ctx, find_artifact(ctx.store, previous))
    known: set[str] = set()
    if before is not None:
        known = {row.id for row in load_version(ctx.path_of(before)).all_rows()}
    new: dict[str, int] = {
        side: sum(row.id not in known for row in version.rows(side)) for side in SPLITS
    }
    labels = Counter(row.label for row in version.rows("train") if row.label is not None)
    refused = Counter(one.why for one in judged if not one.accepted)
    evidence = {
        "published": {key: published[key] for key in ("new", "repaired", "confirmed", "open",
                                                      "undecided")},
        "edits": {"accepted": len(chosen), "waiting": dict(refused), "over_balance": len(waiting),
                  "file": path.name if path else None},
        "train_labels": dict(labels.most_common()),
        "kept_rows": len(version.all_rows()) - sum(new.values()),
        "leak": outcome.artifact.meta.get("leak"),
    }  # fmt: skip
    return NewVersion(outcome.artifact, new, evidence)


def edits(ctx: Context) -> list[Judged]:
    """Return one edit of each request that is in no version yet, with whether it counts and why.

    Only edits on the train side are asked about: validation and test rows are experts' alone.
    """
    output = ctx.config.output.format()
    version = newest_version(ctx)
    held = [] if version is None else [
        row.input_text for side in ("validation", "test") for row in version.rows(_side(side))
    ]  # fmt: skip
    decided = _decided(ctx)
    own = {_item(ctx, one.example) for one in trainable(ctx.store, output, held_out=held)}
    everything = [_edit(ctx, one) for one in said(ctx.store, output)]
    judged = judge_edits(
        [edit for edit in everything if edit.item in own],
        everything,
        decided,
        policy=ctx.config.improve.review.edits,
        agreement=ctx.config.improve.review.agreement,
    )
    found: dict[str, Judged] = {}
    for one in judged:  # of one request what counts, and of that the newest
        if one.edit.item not in found or one.accepted >= found[one.edit.item].accepted:
            found[one.edit.item] = one
    return list(found.values())


def _side(name: str) -> SplitName:
    return "validation" if name == "validation" else "test"


def _decided(ctx: Context) -> dict[str, str]:
    """Return what experts said of each item, by item."""
    found: dict[str, str] = {}
    for one in load_votes(ctx):
        decision: Decision | None = decide(one, "majority")
        if decision is not None:
            value = decision.label if decision.label is not None else decision.answer
            found[one.item.id] = value or ""
    return found


def _edit(ctx: Context, one: Corrected) -> Edit:
    example = one.example
    value = example.label if example.label is not None else (example.answer or "")
    return Edit(one.record, _item(ctx, example), value, example.origin.author, example)


def _item(ctx: Context, example: Example) -> str:
    """Return the name of what was asked, as the label queue has it."""
    return item_id(without_prompt(example.context, ctx.config.prompt))


def within_balance(ctx: Context, judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Return the edits that leave no label with too many rows, and those that wait.

    A label may have improve.balance times the mean of all labels in train, and ten in any case.
    """
    version = newest_version(ctx)
    counts: Counter[str] = Counter()
    if version is not None:
        counts = Counter(row.label for row in version.rows("train") if row.label is not None)
    labels = set(counts) | {one.edit.example.label for one in judged if one.edit.example.label}
    total = sum(counts.values()) + len(judged)
    mean = total / max(1, len(labels))
    most = max(_LEAST_ROWS, math.floor(ctx.config.improve.balance * mean))
    chosen, waiting = [], []
    for one in judged:
        label = one.edit.example.label
        if label is not None and counts[label] >= most:
            waiting.append(one)
            continue
        if label is not None:
            counts[label] += 1
        chosen.append(one)
    return chosen, waiting


def write_edits(ctx: Context, chosen: Sequence[Judged]) -> Path | None:
    """Write the edits as a sources file, whole, and return it; None if there are none.

    Edits that earlier files hold are not written again.
    """
    folder = ctx.workspace.root / FOLDER
    there = {
        str(json.loads(line).get("record"))
        for file in sorted(folder.glob(f"{PREFIX}*.jsonl"))
        for line in lines_of(file.read_text(encoding="utf-8"))
    }
    rows = [_row(ctx, one) for one in chosen if one.edit.record not in there]
    if not rows:
        return None
    path = folder / f"{PREFIX}{content_hash(rows)[:12]}.jsonl"
    atomic_write(path, json_lines(rows).encode())
    return path


def _row(ctx: Context, one: Judged) -> Mapping[str, Any]:
    example, columns = one.edit.example, ctx.config.data.columns
    turns = without_prompt(example.messages, ctx.config.prompt)
    row: dict[str, Any] = {
        "messages": [turn.model_dump(mode="json", exclude_none=True) for turn in turns]
    }
    if example.label is not None:
        row["label"] = example.label
    for name, value in ((columns.group, example.group), (columns.time, example.time)):
        if name is not None and value is not None:
            row[name] = value
    row["record"] = one.edit.record
    row["origin"] = {"kind": "production", "author": one.edit.author, "parents": []}
    row["corrected"] = {"why": one.why}
    return row
