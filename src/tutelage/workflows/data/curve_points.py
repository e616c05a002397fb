"""The trainings behind a learning curve: a classifier on embeddings, or the project's own model.

Every finished point is kept in .tutelage/cache/curve under the hash of what it depends on, so a
command that was killed goes on, and a second one is quick.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.artifact import content_hash
from tutelage.core.errors import DataError, PlanRefused
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_write
from tutelage.data.curve import Curve, Point, Score, fit_curve, nested, sizes
from tutelage.data.linear import fit_linear
from tutelage.data.version import DatasetVersion, load_version
from tutelage.inference.models import ModelSource, locate_model
from tutelage.workflows.context import Context
from tutelage.workflows.outputs import require_output

STAGE = "curve"
MODEL_POINTS = 5  # sizes at which the model itself is trained
_FORM = 1  # of what is kept; a new number forgets the old points


@dataclass(frozen=True)
class Series:
    """The trainings of one repeat: beginnings of `order` are trained on, `held` is scored.

    `key` is everything besides the rows that decides a point.
    """

    repeat: int
    order: list[str]  # example ids
    held: list[str]
    key: dict[str, Any]
    score: Score


def embedding_curve(ctx: Context, repeats: int, seed: int) -> tuple[Curve, str]:
    """Return the curve of a classifier on embeddings, each row scored once by cross-validation."""
    from tutelage.workflows.data.learning import embed_texts

    version = load_version(ctx.path_of(require_output(ctx, "curate")))
    rows = [row for row in (*version.rows("train"), *version.rows("validation")) if row.label]
    labels = [str(row.label) for row in rows]
    if len(set(labels)) < 2:
        raise DataError(
            f"a curve on embeddings needs rows of two labels, there are {len(set(labels))}",
            fix="Use `--model`, which trains the project's model and needs no labels",
        )
    groups = [version.cluster_of(row.id) for row in rows]
    repeats = min(repeats, len(set(groups)))
    if repeats < 2:
        raise DataError(
            "all rows belong together, so none can be scored by a model that has not seen it",
            fix="Bring rows of other groups (patients, customers, documents)",
        )
    folds = _folds(groups, repeats, seed)
    smallest = min(sum(fold != k for fold in folds) for k in range(repeats))
    counts = sizes(smallest, len(set(labels)))
    vectors, embedder = embed_texts(ctx, [row.input_text for row in rows], STAGE)
    key = {"embedder": embedder, "texts": content_hash([row.id for row in rows])}
    series = []
    for repeat in range(repeats):
        rest = [i for i, fold in enumerate(folds) if fold != repeat]
        held = [i for i, fold in enumerate(folds) if fold == repeat]
        order = [rest[i] for i in nested(len(rest), [groups[i] for i in rest], seed + repeat)]

        def score(
            part: Sequence[int], order: list[int] = order, held: list[int] = held
        ) -> list[float]:
            used = [order[i] for i in part]
            model = fit_linear(vectors[used], [labels[i] for i in used])
            found = model.predict(vectors[held])
            return [float(a == labels[i]) for a, i in zip(found, held, strict=True)]

        ids = [[rows[i].id for i in part] for part in (order, held)]
        series.append(Series(repeat, ids[0], ids[1], key, score))
    points = measure(ctx, series, counts)
    told = (
        f"Trained: a classifier on embeddings ({embedder}); scored: train and validation rows, "
        f"each by a classifier that had not seen it or a near twin ({repeats} parts)."
    )
    return fit_curve(points, labels=len(set(labels)), seed=seed), told


def model_curve(ctx: Context, seed: int) -> tuple[Curve, str]:
    """Return the curve of the project's model, trained as planned at five sizes."""
    version = load_version(ctx.path_of(require_output(ctx, "curate")))
    train = [row for row in version.rows("train") if row.answer]
    held = [row for row in version.rows("validation") if row.answer]
    if ctx.config.task == "text" or not held:
        what = "raw text has no answers" if ctx.config.task == "text" else "no validation rows"
        raise DataError(
            f"a curve of the model needs validation rows with an answer ({what})",
            fix="Give data.splits.validation a share and run `tutelage data split`",
        )
    labels = len({row.label for row in train if row.label is not None})
    counts = sizes(len(train), labels, points=MODEL_POINTS)
    order = [train[i] for i in nested(len(train), [version.cluster_of(r.id) for r in train], seed)]
    trained = _ModelScore(ctx, version, order, held)
    series = Series(0, [r.id for r in order], [r.id for r in held], trained.key, trained)
    points = measure(ctx, [series], counts, trained.forget)
    told = (
        f"Trained: {trained.source.name} with LoRA, as planned for all rows; scored: "
        f"{ctx.config.primary_metric.replace('_', ' ')} on {len(held):,} validation rows."
    )
    return fit_curve(points, labels=labels, seed=seed), told


def measure(
    ctx: Context,
    series: Sequence[Series],
    counts: Sequence[int],
    after: Callable[[], None] = lambda: None,
) -> list[Point]:
    """Return a point for every size of every series; `after` runs when a new one is on disk."""
    work = sum(counts) * len(series)
    done = 0
    points = []
    for one in series:
        for count in counts:
            path = _path(ctx, one, count)
            kept = _kept(path, len(one.held))
            if kept is None:
                kept = [round(float(value), 6) for value in one.score(range(count))]
                atomic_write(path, json.dumps(kept).encode())
                after()
            points.append(Point(count, one.repeat, np.array(kept, dtype=np.float64)))
            done += count
            said = f"{count:,} rows: {np.mean(kept):.1%}"
            ctx.emit(Event(STAGE, "progress", said, done, work))
    return points


def _path(ctx: Context, series: Series, count: int) -> Path:
    digest = content_hash([_FORM, series.key, series.order[:count], series.held])
    return ctx.workspace.home / "cache" / "curve" / f"{digest[:24]}.json"


def _kept(path: Path, expected: int) -> list[float] | None:
    """Return the scores of a point that was measured before, or None."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if isinstance(found, list) and len(found) == expected:
        return [float(value) for value in found]
    return None


def _folds(groups: Sequence[str], count: int, seed: int) -> list[int]:
    """Return a fold for every row: whole groups, large ones first, to the smallest fold."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(name, []).append(index)
    names = list(members)
    shuffled = [names[k] for k in np.random.default_rng(seed).permutation(len(names))]
    folds, filled = [0] * len(groups), [0] * count
    for name in sorted(shuffled, key=lambda name: -len(members[name])):
        fold = filled.index(min(filled))
        filled[fold] += len(members[name])
        for index in members[name]:
            folds[index] = fold
    return folds


class _ModelScore:
    """Trains the project's model on the first rows and scores the held ones by its answers."""

    def __init__(
        self, ctx: Context, version: DatasetVersion, order: list[Example], held: list[Example]
    ) -> None:
        from tutelage.workflows.training.plan import plan

        self._ctx, self._version, self._order, self._held = ctx, version, order, held
        made = plan(ctx, require_output(ctx, "curate"), probe=False)
        if made.refusal:
            raise PlanRefused(made.refusal, fix="Label more rows, or set train.force: true")
        self._recipe = made.recipe
        self.source: ModelSource = locate_model(ctx.config.model, ctx.workspace.root)
        self.key = {
            "model": self.source.digest,
            "prompt": ctx.config.prompt,
            "recipe": made.recipe.model_dump(mode="json"),
            "metric": ctx.config.primary_metric,
            "output": ctx.config.output.model_dump(mode="json"),
        }
        self._run_dir: Path | None = None

    def __call__(self, part: Sequence[int]) -> list[float]:
        from tutelage.training.session import TrainingJob, train

        rows = [self._order[i] for i in part]
        name = content_hash([self.key, [row.id for row in rows]])[:12]
        self._run_dir = self._ctx.workspace.runs / f"curve-{name}"
        job = TrainingJob(
            model=self.source,
            train=rows,
            validation=[],  # the held rows must not choose the weights that they score
            prompt=self._ctx.config.prompt,
            recipe=self._recipe,
            run_dir=self._run_dir,
        )
        result = train(job, emit=self._ctx.emit)
        gc.collect()
        return self._scores(rows, result.adapter_dir, self._run_dir / "answers.jsonl")

    def _scores(self, rows: list[Example], adapter: Path, journal: Path) -> list[float]:
        from tutelage.evaluation.candidates import TUNED, make_candidates
        from tutelage.evaluation.rows import Journal
        from tutelage.evaluation.runner import Bench, run
        from tutelage.evaluation.scorers.apply import score_one
        from tutelage.evaluation.task import make_task, with_specials
        from tutelage.workflows.evaluation.evaluate import open_transformers

        config = self._ctx.config
        loaded = open_transformers(self.source, config.evaluate.batch_size)
        try:
            task = make_task(
                config, rows, self._held, self._version.cluster_of, loaded.count_tokens
            )
            task = with_specials(task, loaded.specials)
            candidates = make_candidates(task, few_shot=0, tuned=True)
            tuned = [candidate for candidate in candidates if candidate.name == TUNED]
            bench = Bench(loaded.engine, adapter, config.evaluate.batch_size, self._ctx.emit)
            answers = Journal(journal)
            run(task, tuned, bench, answers)
        finally:
            loaded.engine.close()
        scorer = task.scorers(config, self._ctx.workspace.root)[task.primary]
        scores = []
        for row in self._held:
            answer = answers.get(TUNED, row.id)
            found = score_one(scorer, row, answer).value
            scores.append(min(max(float(found or 0.0), 0.0), 1.0))
        return scores

    def forget(self) -> None:
        """Remove the files of the last training: its point is kept."""
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)
