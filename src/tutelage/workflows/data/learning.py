"""What to label next, what more rows would bring, and what each training row is worth."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core import html
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_write
from tutelage.data import curve_html, valuation_html
from tutelage.data.active import STRATEGIES, Known, Pool, Strategy, suggest_rows
from tutelage.data.curve import Curve
from tutelage.data.valuation import METHODS, NEIGHBOURS, Valuation
from tutelage.data.version import load_version
from tutelage.inference.embed import load_embedder, resolve
from tutelage.inference.embed_cache import embed_cached
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.data.pool import Candidate, read_pool
from tutelage.workflows.outputs import require_output

SUGGEST, CURVE, VALUE = "suggest", "curve", "value"
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class SuggestedRow:
    """One text to label, and why."""

    id: str
    text: str
    reason: str
    strategy: Strategy
    score: float
    where: str


@dataclass(frozen=True)
class Suggested:
    """The texts to label, most wanted first, and where they were written.

    `pool` texts could be chosen, `considered` were looked at, `left_out` counts others by reason.
    """

    rows: list[SuggestedRow]
    strategy: Strategy
    pool: int
    considered: int
    labelled: int
    left_out: dict[str, int]
    first_unreadable: str | None
    embedder: str
    path: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def suggest(
    ctx: Context,
    pool: str,
    count: int,
    *,
    strategy: str = "auto",
    output: Path | None = None,
    force: bool = False,
    seed: int = 7,
) -> Suggested:
    """Choose up to `count` texts of `pool` (a file, "production", "quarantine") to label next.

    What the train split of the newest version knows is taken into account. With `output` they are
    written as JSON lines, or as a table with an empty label column if it ends in .csv.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"{strategy!r} is no strategy", fix=f"Use {', '.join(STRATEGIES)}")
    if output is not None and output.exists() and not force:
        raise DataError(
            "the file is there already, and people may have written in it",
            where=str(output),
            fix="Name another with --output, or replace it with --force",
        )
    found = read_pool(ctx, pool)
    version = newest_version(ctx)
    rows = version.rows("train") if version else []
    texts = [*(c.item.text for c in found.rows), *(row.input_text for row in rows)]
    vectors, embedder = embed_texts(ctx, texts, SUGGEST)
    cut = len(found.rows)
    chosen = suggest_rows(
        _pool(found.rows, vectors[:cut]),
        Known(vectors[cut:], [row.label for row in rows]),
        count,
        strategy,
        seed,
    )
    picked = [found.rows[pick.index] for pick in chosen.picks]
    if output is not None:
        reasons = [pick.reason for pick in chosen.picks]
        _write(ctx, output, picked, reasons)
    shown = [
        SuggestedRow(one.item.id, one.item.text, pick.reason, pick.strategy, pick.score,
                     one.item.example.origin.source)
        for one, pick in zip(picked, chosen.picks, strict=True)
    ]  # fmt: skip
    ctx.emit(Event(SUGGEST, "done", f"{len(shown)} of {chosen.pool:,} texts"))
    return Suggested(
        shown, chosen.strategy, chosen.pool, chosen.considered, len(rows), dict(found.left_out),
        found.first, embedder, str(output) if output else None,
    )  # fmt: skip


def curve(ctx: Context, *, model: bool = False, repeats: int = 5, seed: int = 7) -> CurveReport:
    """Measure the learning curve on train and validation rows; the test rows are not looked at.

    By default a classifier on embeddings is trained, `repeats`-fold; with `model` short LoRA runs
    of the project's model are. Points that were measured before are not measured again.
    """
    from tutelage.workflows.data.curve_points import embedding_curve, model_curve

    found, measured = model_curve(ctx, seed) if model else embedding_curve(ctx, repeats, seed)
    ctx.emit(Event(CURVE, "done", found.sentence))
    return CurveReport(found, "model" if model else "embeddings", measured)


@dataclass(frozen=True)
class CurveReport:
    """A learning curve, and what was trained and scored for it, in words."""

    curve: Curve
    source: str
    measured_on: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"source": self.source, "measured_on": self.measured_on, **self.curve.as_dict()}

    def section(self) -> list[html.Html]:
        """Return the report's cards."""
        return curve_html.section(self.curve, self.measured_on)


def value(ctx: Context, *, method: str = "knn", neighbours: int = NEIGHBOURS) -> Valuation:
    """Return what each training row of the newest version is worth to the validation rows.

    `knn` needs labels alone; `gradient` the adapter of the last training of these rows.
    """
    from tutelage.data.valuation import value_gradient, value_knn

    if method not in METHODS:
        raise ConfigError(f"{method!r} is no method", fix=f"Use {' or '.join(METHODS)}")
    version = load_version(ctx.path_of(require_output(ctx, "curate")))
    train, validation = version.rows("train"), version.rows("validation")
    if not validation:
        raise DataError(
            "the validation split is empty, so nothing says what helps",
            fix="Give data.splits.validation a share and run `tutelage data split`",
        )
    if method == "gradient":
        from tutelage.workflows.data.gradients import both_sides

        sides, gradients = both_sides(ctx, train, validation)
        found = value_gradient(*sides, gradients)
    else:
        texts = [row.input_text for row in (*train, *validation)]
        vectors, _ = embed_texts(ctx, texts, VALUE)
        parts = vectors[: len(train)], vectors[len(train) :]
        found = value_knn(train, validation, parts, neighbours)
    done = f"{len(found.helpful):,} rows help, {len(found.harmful):,} hurt"
    ctx.emit(Event(VALUE, "done", done))
    return found


def write_page(ctx: Context, found: CurveReport | Valuation) -> Path:
    """Write a curve or a valuation as one HTML page under .tutelage/reports; return its path."""
    if isinstance(found, CurveReport):
        name, title, cards = "curve", "learning curve", found.section()
    else:
        name, title = f"value-{found.method}", "what training rows are worth"
        cards = valuation_html.section(found)
    path = ctx.workspace.home / "reports" / f"{name}.html"
    atomic_write(path, html.page(f"{ctx.config.name}: {title}", cards).encode())
    return path


def embed_texts(ctx: Context, texts: Sequence[str], stage: str) -> tuple[Vectors, str]:
    """Return unit vectors, shape (N, D), from the project's embedder, and the embedder's name."""
    quality = ctx.config.data.quality
    embedder = load_embedder(
        quality.embedder, len(texts), endpoint=quality.endpoint, root=ctx.workspace.root
    )
    vectors = embed_cached(
        embedder,
        texts,
        ctx.workspace.home / "embeddings",
        lambda done, total: ctx.emit(Event(stage, "progress", "embedding texts", done, total)),
    )
    return vectors, resolve(quality.embedder, len(texts))


def _pool(rows: Sequence[Candidate], vectors: Vectors) -> Pool:
    return Pool(
        vectors,
        np.array([row.failure for row in rows], dtype=np.float64),
        np.array([row.disagreement for row in rows], dtype=np.float64),
        [row.why for row in rows],
    )


def _write(ctx: Context, path: Path, rows: Sequence[Candidate], reasons: Sequence[str]) -> None:
    """Write texts to label: JSON lines that `data label assign --file` reads, or a table."""
    columns = ctx.config.data.columns
    lines: list[dict[str, Any]] = []
    for row, reason in zip(rows, reasons, strict=True):
        example = row.item.example
        line: dict[str, Any] = {"id": row.item.id, **_asked(example, columns.input or "text")}
        if columns.group or ctx.config.data.splits.group:
            line[columns.group or ctx.config.data.splits.group or ""] = example.group
        if columns.time or ctx.config.data.splits.time:
            line[columns.time or ctx.config.data.splits.time or ""] = example.time
        line |= {"reason": reason, "where": example.origin.source}
        lines.append(line)
    if path.suffix.lower() != ".csv":
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        atomic_write(path, text.encode())
        return
    stream = io.StringIO()
    name, answer = columns.input or "text", columns.output or "label"
    table = csv.DictWriter(stream, [name, answer, "reason", "where", "id"], extrasaction="ignore")
    table.writeheader()
    for line, row in zip(lines, rows, strict=True):
        table.writerow({**line, name: row.item.text, answer: ""})
    atomic_write(path, stream.getvalue().encode("utf-8-sig"))


def _asked(example: Example, name: str) -> dict[str, Any]:
    """Return what is asked as one text, or as turns if there are several."""
    if len(example.messages) == 1 and example.messages[0].role == "user":
        return {name: example.messages[0].content}
    return {"messages": [turn.model_dump() for turn in example.messages]}
