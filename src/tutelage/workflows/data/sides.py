"""Give every row its side, hold the sides against each other and the benchmarks, and freeze them.

A side that was given once, in an earlier version or when a production record arrived, stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from tutelage.core.events import Event
from tutelage.core.example import SPLITS, Example, SplitName, normalise
from tutelage.data.assign import assign, cluster_rows, inherit_sides, share_findings
from tutelage.data.benchmarks import read_benchmarks, without_matches
from tutelage.data.certify import certify
from tutelage.data.findings import Finding, reason
from tutelage.data.leakage import SEMANTIC, LeakCertificate
from tutelage.data.pipeline import Dropped
from tutelage.data.version import load_version
from tutelage.feedback.segment import held_out_rows, records_of
from tutelage.feedback.segment_twins import held_out_inputs
from tutelage.inference.embed import load_embedder, resolve
from tutelage.inference.embed_cache import embed_cached
from tutelage.store.artifacts import SplitRow
from tutelage.store.base import Store
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context, last_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_AT_ONCE = 500  # ids in one question to the store
Tell = Callable[[str], None]


@dataclass
class Sides:
    """The rows of each side, their clusters, what was left out, what to say, the certificates.

    `leaks` has the keys "train-test", "train-validation" and "validation-test".
    """

    rows: dict[SplitName, list[Example]]
    clusters: dict[str, str]
    dropped: list[Dropped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    leaks: dict[str, LeakCertificate] = field(default_factory=dict)


def give_sides(
    ctx: Context, rows: Sequence[Example], tell: Tell, renamed: Mapping[str, str] | None = None
) -> Sides:
    """Return the rows by side: clusters whole, earlier sides kept, the rest shared out.

    `renamed` gives new ids by old ones: a row whose identifiers were replaced keeps its side.
    """
    frozen = frozen_sides(ctx.store)
    for old, new in (renamed or {}).items():
        if old in frozen:
            frozen.setdefault(new, frozen[old])
    inherit_sides(rows, frozen)
    departed = _departed(ctx, rows, frozen)
    tell("clusters")
    clusters = cluster_rows([*rows, *departed], ctx.config.data.dedup.threshold)
    tell("sides")
    arrived = arrived_sides(ctx.store, rows)
    arrived |= _asked_sides(ctx, [r for r in rows if r.id not in frozen and r.id not in arrived])
    given = assign(rows, clusters, ctx.config.data.splits, frozen, departed, arrived)
    for row in departed:
        clusters.pop(row.id, None)
    sides: dict[SplitName, list[Example]] = {split: [] for split in SPLITS}
    for row in rows:
        if row.id in given.sides:
            sides[given.sides[row.id]].append(row)
    gone = _moved_out(ctx.store, sides)
    return Sides(sides, clusters, [*given.dropped, *gone], given.findings)


def _moved_out(store: Store, sides: dict[SplitName, list[Example]]) -> list[Dropped]:
    """Take rows out of train whose record was found to be held out since they were frozen."""
    found = {row.id: why for row, why in held_out_rows(store, sides["train"])}
    gone = [row for row in sides["train"] if row.id in found]
    sides["train"] = [row for row in sides["train"] if row.id not in found]
    return [Dropped(row, "D10-X01", reason("D10-X01", found[row.id])) for row in gone]


def hold_apart(ctx: Context, sides: Sides, tell: Tell) -> None:
    """Leave out of train what a benchmark holds, and of the lower side what leaks; certify."""
    splits = ctx.config.data.splits
    if ctx.config.data.benchmarks:
        tell("benchmarks")
        texts = read_benchmarks(ctx.workspace.root, ctx.config.data.benchmarks)
        sides.rows["train"], dropped = without_matches(sides.rows["train"], texts)
        sides.dropped += dropped
        sides.findings += [
            Finding(item.finding_id, item.reason, item.example.origin.source, item.example.id)
            for item in dropped
        ]
    embed = None if splits.semantic is None else partial(embedded, ctx, splits.semantic)
    done = certify(sides.rows, embed=embed, on_pair=lambda _: tell("certificate"))
    sides.rows, sides.leaks = done.sides, done.leaks
    sides.dropped += done.dropped
    sides.findings += share_findings(sides.rows, splits)
    sides.findings += _by_meaning(sides)


def freeze(store: Store, sides: Sides) -> None:
    """Keep the side of every row for ever, in one transaction; augmented rows have none."""
    with store.begin() as session:
        known = set(session.scalars(select(SplitRow.example_id)))
        fresh = [
            {"example_id": row.id, "split": split, "cluster": sides.clusters[row.id]}
            for split in SPLITS
            for row in sides.rows[split]
            if row.id not in known and row.origin.kind != "augmented"
        ]
        if fresh:
            session.execute(insert(SplitRow), fresh)


def frozen_sides(store: Store) -> dict[str, SplitName]:
    """Return the side of every row that has one, by example id."""
    with store.session() as session:
        found = session.execute(select(SplitRow.example_id, SplitRow.split))
        return dict(found.tuples().all())  # type: ignore[arg-type]


def arrived_sides(store: Store, rows: Sequence[Example]) -> dict[str, SplitName]:
    """Return the side that production rows got when they arrived, by example id.

    Of equal rows that arrived on several sides the most held-out one counts.
    """
    records: dict[str, list[str]] = {}
    for row in rows:
        for name in dict.fromkeys(records_of(row)):
            records.setdefault(name, []).append(row.id)
    names = list(records)
    sides: dict[str, SplitName] = {}
    with store.session() as session:
        for start in range(0, len(names), _AT_ONCE):
            asked = RecordRow.id.in_(names[start : start + _AT_ONCE])
            found = session.execute(select(RecordRow.id, RecordRow.split).where(asked))
            for record, side in found:
                split: SplitName = side  # type: ignore[assignment]
                for example in records[record]:
                    sides[example] = max(sides.get(example, split), split, key=SPLITS.index)
    return sides


def _asked_sides(ctx: Context, rows: Sequence[Example]) -> dict[str, SplitName]:
    """Return the side of rows that ask, word for word, what production asked on a held-out side.

    Such a row of a file may be that record, exported and brought back.
    """
    held = held_out_inputs(ctx.store) if rows else {}
    twins = {row.id: held.get(normalise(row.input_text)) for row in rows}
    sides = {name: twin.side for name, twin in twins.items() if twin is not None}
    if sides:
        told = "1 row of files asks" if len(sides) == 1 else f"{len(sides):,} rows of files ask"
        message = f"{told} what production asked on the validation and test sides: held out as well"
        ctx.emit(Event("curate", "note", message))
    return sides


def _departed(
    ctx: Context, rows: Sequence[Example], frozen: Mapping[str, SplitName]
) -> list[Example]:
    """Return the rows of the version before that are gone, but for augmented ones."""
    artifact = last_output(ctx, "curate")
    if artifact is None or not ctx.path_of(artifact).exists():
        return []
    here = {row.id for row in rows}
    gone = load_version(ctx.path_of(artifact)).besides(here)
    return [row for row in gone if row.id in frozen and row.origin.kind != "augmented"]


def embedded(ctx: Context, name: str, texts: Sequence[str]) -> tuple[str, NDArray[np.float32]]:
    """Return the name of the embedder, and the texts as its vectors, kept for the next time."""
    chosen = resolve(name, len(texts))
    quality, root = ctx.config.data.quality, ctx.workspace.root
    embedder = load_embedder(chosen, endpoint=quality.endpoint, root=root)

    def listen(done: int, total: int) -> None:
        ctx.emit(Event("curate", "progress", "meaning", done=done, total=total))

    return chosen, embed_cached(embedder, texts, ctx.workspace.home / "embeddings", listen)


def _by_meaning(sides: Sides) -> list[Finding]:
    """Return a finding for each test row that has a twin by meaning in train."""
    leak = sides.leaks["train-test"]
    found = []
    for pair in leak.semantic_pairs:
        row, twin = sides.rows["test"][pair.test], sides.rows["train"][pair.train]
        detail = (
            f"cosine {pair.cosine:.2f} (from {SEMANTIC:g}, {leak.embedder}) with "
            f"{twin.origin.source or twin.id} in train"
        )
        found.append(Finding("D10-L01", detail, row.origin.source, row.id))
    return found
