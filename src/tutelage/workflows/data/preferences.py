"""Preferences of a project: gathered, checked, given their sides, counted, frozen for training.

A pair on an input of the test split is refused, and so is one on a twin of such an input. What is
frozen is a data set of its own beside the version it came with: train and validation, no test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select

from tutelage.core.artifact import Artifact, content_hash, describe
from tutelage.core.config import Splits
from tutelage.core.errors import DataError
from tutelage.core.events import Event
from tutelage.core.example import SPLITS, Example, Message, SplitName, normalise
from tutelage.data.annotation.items import item_id
from tutelage.data.assign import cluster_rows
from tutelage.data.findings import Finding, reason, summarise
from tutelage.data.preferences import (
    Conflict,
    Judged,
    LengthBias,
    Pair,
    Settled,
    asked,
    both_examples,
    count_by_source,
    input_text,
    judged_example,
    length_bias,
    pair_example,
    pairs_of_judged,
    settle,
)
from tutelage.data.split import load_split_key, side_of
from tutelage.data.version import DatasetVersion, VersionDraft, load_version, write_version
from tutelage.store.artifacts import SplitRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context, run_stage
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.data.preference_choices import (
    Comparison,
    add_comparisons,
    add_file,
    choice_of,
)
from tutelage.workflows.data.preference_sources import gather
from tutelage.workflows.data.sides import frozen_sides

Method = Literal["dpo", "kto"]
METHODS: tuple[Method, ...] = ("dpo", "kto")
_KIND = "preferences"
_STAGE = "preferences"
_TOLD = ("pairs", "sources", "judged", "lengths", "warnings")


@dataclass
class Preferences:
    """What there is to train on, with its side, and what was refused or set aside, and why.

    `fresh` are inputs that had no side before: they got one by hash and keep it once frozen.
    """

    pairs: list[Pair] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    refused: list[Pair | Judged] = field(default_factory=list)
    settled: Settled = field(default_factory=Settled)
    findings: list[Finding] = field(default_factory=list)
    ties: int = 0
    fresh: frozenset[str] = frozenset()
    version: str | None = None  # the dataset version whose rows were looked at

    @property
    def conflicts(self) -> list[Conflict]:
        """Two answers that were chosen both ways."""
        return self.settled.conflicts

    @property
    def lengths(self) -> LengthBias:
        """How the lengths of better and worse answers compare, in train."""
        return length_bias([pair for pair in self.pairs if pair.split == "train"])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        good = sum(one.desirable for one in self.judged)
        warning = self.lengths.warning()
        return {
            "dataset": self.version,
            "pairs": len(self.pairs),
            "sources": count_by_source(self.pairs),
            "splits": {
                side: sum(pair.split == side for pair in self.pairs)
                for side in ("train", "validation")
            },
            "judged": {"praised": good, "blamed": len(self.judged) - good},
            "refused_test": len(self.refused),
            "set_aside": len(self.settled.set_aside),
            "repeated": self.settled.repeated,
            "ties": self.ties,
            "conflicts": [conflict.as_dict() for conflict in self.conflicts],
            "lengths": self.lengths.as_dict(),
            "warnings": [warning] if warning else [],
            "findings": summarise(self.findings),
        }


def collect(ctx: Context, version: DatasetVersion | None = None) -> Preferences:
    """Return the project's preferences beside `version` (unset: the newest)."""
    version = version or newest_version(ctx)
    found = gather(ctx, version)
    rated = pairs_of_judged(found.judged)
    settled = settle([*found.pairs, *rated])
    sides = _Sides(ctx, version, [*settled.pairs, *found.judged])
    made = Preferences(settled=settled, ties=found.ties, fresh=frozenset(sides.fresh))
    made.version = version.hash[:12] if version is not None else None
    made.findings = [*found.findings, *settled.findings]
    for pair in settled.pairs:
        side = sides.of(pair)
        if side == "test":
            made.refused.append(pair)
        else:
            made.pairs.append(replace(pair, split=side))
    for one in found.judged:
        side = sides.of(one)
        if side == "test":
            made.refused.append(one)
        else:
            made.judged.append(replace(one, split=side))
    for refused in made.refused:
        detail = f"{input_text(refused.context)[:60]!r} is an input of the test split, or its twin"
        made.findings.append(Finding("D8-P05", detail, refused.where))
    warning = made.lengths.warning()
    if warning:
        made.findings.append(Finding("D8-P06", warning))
    return made


class _Sides:
    """The side of an input: of its row, of its twins, of the record; else drawn by hash."""

    def __init__(
        self, ctx: Context, version: DatasetVersion | None, wanted: Sequence[Pair | Judged]
    ) -> None:
        self._known: dict[str, SplitName] = {}
        self._frozen = frozen_sides(ctx.store)
        self._barred = _test_inputs(ctx)
        rows: list[Example] = []
        of_row: dict[str, SplitName] = {}
        for side in SPLITS:  # the most held-out side comes last and stays
            for row in version.rows(side) if version is not None else ():
                self._known[item_id(row.context)] = of_row[row.id] = side
                rows.append(row)
                if side == "test":
                    self._barred.add(asked(row.context))
        self.fresh: set[str] = set()
        open_ = {one.item: one for one in wanted if self._told(one) is None}
        if open_:
            self._by_twins(ctx, rows, of_row, list(open_.values()))

    def of(self, one: Pair | Judged) -> SplitName:
        """Return the side on which `one` may be used; test means: not at all."""
        return self._told(one) or "train"

    def _told(self, one: Pair | Judged) -> SplitName | None:
        if asked(one.context) in self._barred:
            return "test"
        answers = [one.chosen, one.rejected] if isinstance(one, Pair) else [one.answer]
        sides = [self._known.get(one.item), one.split]
        sides += [self._frozen.get(row.id) for row in _rows_of(one.context, answers, one.label)]
        told = [side for side in sides if side is not None]
        return max(told, key=SPLITS.index) if told else None

    def _by_twins(
        self,
        ctx: Context,
        rows: list[Example],
        of_row: dict[str, SplitName],
        wanted: list[Pair | Judged],
    ) -> None:
        """Give inputs without a side that of near-duplicates among the rows, or a drawn one."""
        asked_rows = {one.item: Example(messages=one.context, group=one.group) for one in wanted}
        named = cluster_rows([*rows, *asked_rows.values()], ctx.config.data.dedup.threshold)
        of_cluster: dict[str, SplitName] = {}
        for row in rows:
            name, side = named[row.id], of_row[row.id]
            of_cluster[name] = max(of_cluster.get(name, side), side, key=SPLITS.index)
        key, splits = load_split_key(ctx.workspace), _without_test(ctx.config.data.splits)
        for item, row in asked_rows.items():
            name = named[row.id]
            if name in of_cluster:
                self._known[item] = of_cluster[name]
            else:
                self._known[item] = side_of(key, name, splits)
                self.fresh.add(item)


def _rows_of(
    context: tuple[Message, ...], answers: Iterable[str], label: str | None
) -> list[Example]:
    """Return the rows that an input and its answers are, or would be, with and without label."""
    found = []
    for answer in answers:
        messages = (*context, Message(role="assistant", content=answer))
        found += [Example(messages=messages), Example(messages=messages, label=label)]
    return found


def _without_test(splits: Splits) -> Splits:
    share = splits.validation / max(1e-9, splits.train + splits.validation)
    return Splits(train=1 - share, validation=share, test=0.0)


def _test_inputs(ctx: Context) -> set[str]:
    """Return what production asked on the test side, as twins are looked for."""
    with ctx.store.session() as session:
        rows = session.execute(select(RecordRow.messages).where(RecordRow.split == "test"))
        return {
            normalise(
                "\n".join(
                    str(turn.get("content"))
                    for turn in turns
                    if isinstance(turn, dict) and turn.get("role") != "system"
                )
            )
            for (turns,) in rows
        }


def material(ctx: Context, dataset: Artifact) -> Artifact:
    """Return what train.method learns from: the version, or its preferences for dpo and kto.

    Rows of a stage before (train.before) are taken as they are.
    """
    named = ctx.config.train.method.lower()
    method = next((method for method in METHODS if method == named), None)
    if method is None or dataset.kind != "dataset":
        return dataset
    return preference_dataset(ctx, dataset, method)


def preference_dataset(ctx: Context, dataset: Artifact, method: Method) -> Artifact:
    """Return the frozen preferences that `method` trains on, made beside `dataset`.

    Its folder reads like a dataset version (load_version), with an empty test split. A row's
    answer is the better one and meta["rejected"] the worse one; for kto a row's answer is judged
    by meta["desirable"], and a pair is two rows. Raises DataError if there is nothing to train on.
    """
    found = collect(ctx, load_version(ctx.path_of(dataset)))
    for finding in found.findings:
        if finding.kind.severity == "error":
            text = f"{finding.where or 'a pair'} is set aside: {finding.detail}"
            ctx.emit(Event(_STAGE, "warning", text))
    warning = found.lengths.warning()
    if warning:
        ctx.emit(Event(_STAGE, "warning", warning))
    rows = _examples(found, method)
    _require(rows["train"], found, method)
    inputs = {
        "dataset": dataset.hash,
        "method": method,
        "rows": {side: content_hash(_plain(rows[side])) for side in SPLITS},
    }
    return run_stage(
        ctx, _STAGE, inputs, lambda: _freeze(ctx, dataset, found, rows, method)
    ).artifact


def _plain(rows: Sequence[Example]) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json", exclude_defaults=True) for row in rows]


def _examples(found: Preferences, method: Method) -> dict[SplitName, list[Example]]:
    """Return the rows of each side; kto judges single answers, so no pairs are made of thumbs."""
    rows: dict[SplitName, list[Example]] = {side: [] for side in SPLITS}
    for pair in found.pairs:
        if pair.split is None or (method == "kto" and pair.source == "thumbs"):
            continue
        rows[pair.split] += [pair_example(pair)] if method == "dpo" else both_examples(pair)
    for one in found.judged if method == "kto" else ():
        if one.split is not None:
            rows[one.split].append(judged_example(one))
    return rows


def _require(train: Sequence[Example], found: Preferences, method: Method) -> None:
    what = "preference pairs" if method == "dpo" else "pairs or judged answers"
    if not train:
        why = ""
        if found.refused:
            why = f"; {len(found.refused)} are on inputs of the test split"
        elif found.settled.set_aside:
            why = f"; {len(found.settled.set_aside)} are set aside"
        raise DataError(
            f"there are no {what} to train on{why}",
            fix="Bring rows with chosen and rejected, let experts correct drafts or compare "
            "answers; `tutelage data pairs` shows what there is",
        )
    judged = [row.meta["desirable"] for row in train if "desirable" in row.meta]
    if method == "kto" and len(set(judged)) == 1:
        kind = "praised" if judged[0] else "blamed"
        raise DataError(
            f"all {len(judged)} judged answers in train are {kind}, so there is nothing to tell "
            "apart",
            fix="Collect the other kind too, or corrections of the answers",
        )


def _freeze(
    ctx: Context,
    dataset: Artifact,
    found: Preferences,
    rows: dict[SplitName, list[Example]],
    method: Method,
) -> Artifact:
    quarantine = [
        {
            "finding": finding,
            "reason": reason(finding, detail),
            "where": pair.where,
            "row": pair_example(pair).model_dump(mode="json", exclude_defaults=True),
        }
        for pair, finding, detail in found.settled.set_aside
    ]
    report = found.as_dict()
    facts = {"kind": _KIND, "method": method, "preferences": report}
    draft = VersionDraft(rows, {}, quarantine=quarantine, meta=facts)
    version = write_version(ctx.workspace.artifacts / "preferences", draft)
    _keep_sides(ctx, found)
    counts = version.manifest["counts"]
    meta = {
        "counts": counts,
        "method": method,
        "sources": [],
        "preferences": {key: report[key] for key in _TOLD},
        "summary": f"{counts['train']} train and {counts['validation']} validation preferences",
    }
    path = ctx.workspace.relative(version.directory)
    return describe(_KIND, version.hash, path, parents=[dataset.hash], meta=meta)


def _keep_sides(ctx: Context, found: Preferences) -> None:
    """Keep the drawn sides of inputs that no row had, so that they never become test rows."""
    with ctx.store.begin() as session:
        for pair in found.pairs:
            if pair.item not in found.fresh or pair.split is None:
                continue
            for row in _rows_of(pair.context, (pair.chosen, pair.rejected), pair.label):
                if session.get(SplitRow, row.id) is None:
                    session.add(
                        SplitRow(
                            example_id=row.id, split=pair.split, cluster=row.id, reason=_KIND
                        )
                    )  # fmt: skip
                    session.flush()


class PreferenceDesk:
    """`project.experts.preferences`: what people prefer, kept and counted."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def report(self) -> dict[str, Any]:
        """Return how many pairs there are, where from, length bias, and contradictions."""
        return collect(self._ctx).as_dict()

    def pairs(self) -> list[Pair]:
        """Return the pairs that may be trained on, each with its side."""
        return collect(self._ctx).pairs

    def choose(
        self, text: str, a: str, b: str, choice: str, *, by: str, why: str = ""
    ) -> bool:  # fmt: skip
        """Keep one choice (a, b or tie) between two answers; return whether it is new."""
        turns = (Message(role="user", content=text),)
        one = Comparison(turns, a, b, choice_of(choice), by, why)
        return add_comparisons(self._ctx, [one]) == 1

    def add_file(self, path: str | Path, *, by: str | None = None) -> dict[str, Any]:
        """Keep the choices in a CSV or JSONL file of comparisons."""
        return add_file(self._ctx, Path(path), by=by)
