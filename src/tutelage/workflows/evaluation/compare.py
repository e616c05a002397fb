"""Compare two candidates, or two evaluations, that answered the same rows; no model is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError, TutelageError
from tutelage.data.version import load_version
from tutelage.evaluation.candidates import BASE, STABLE, TUNED
from tutelage.evaluation.comparison import Side, compare_sides, require_same_rows
from tutelage.evaluation.scoring import Scored
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.evaluation.evaluate import source_of
from tutelage.workflows.evaluation.evaluate_candidates import resolve
from tutelage.workflows.evaluation.evaluate_job import SEED
from tutelage.workflows.evaluation.evaluate_reload import read_answers, read_document, read_scores
from tutelage.workflows.evaluation.gate import dataset_of, evaluations, find_evaluation

_NAMED = re.compile(r"([0-9a-f]{4,64}):([\w.@-]+)")  # evaluation:candidate
_HEX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class _Place:
    """Where one side's answers lie: an evaluation, and who it is among its candidates."""

    evaluation: Artifact
    candidate: str


def compare(
    ctx: Context, a: str, b: str, *, labels: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Return what sets `a` apart from `b` as plain data (evaluation/comparison.py).

    `labels` are what the two are called, their names if unset. Each is an evaluation's id (its
    candidate), id:candidate, an adapter's id, a release, base, few_shot, stable or another
    candidate of the other's evaluation. Raises DataError where one was
    not evaluated, or the two were asked different rows.
    """
    first, second = _find(ctx, a, None), None
    if first is not None:
        second = _find(ctx, b, first.evaluation)
    else:
        second = _find(ctx, b, None)
        first = _find(ctx, a, second.evaluation) if second else None
    for spec, place in ((a, first), (b, second)):
        if place is None:
            raise _not_evaluated(ctx, spec)
    if first is None or second is None or first == second:
        raise DataError(f"{a!r} and {b!r} are the same answers", fix="Name two candidates")
    named = labels or (a, b)
    left, right = _side(ctx, named[0], first), _side(ctx, named[1], second)
    ids = {name: _asked(ctx, place) for name, place in (("a", first), ("b", second))}
    require_same_rows(left, right, ids)
    version = load_version(ctx.path_of(dataset_of(ctx, first.evaluation)))
    kept = set(ids["a"])
    rows = [row for row in version.rows("test") if row.id in kept]
    document = compare_sides(
        left, right, rows, {row.id: version.cluster_of(row.id) for row in rows},
        primary=str(first.evaluation.meta["primary"]["metric"]),
        confidence=ctx.config.evaluate.confidence, seed=SEED,
    )  # fmt: skip
    where = {"a": first, "b": second}
    return document | {
        "evaluations": {name: place.evaluation.short for name, place in where.items()}
    }


def _find(ctx: Context, spec: str, other: Artifact | None) -> _Place | None:
    """Return where the answers of `spec` are; None if it was never evaluated."""
    named = _NAMED.fullmatch(spec)
    if named is not None:
        return _Place(find_evaluation(ctx, named[1]), named[2])
    if _HEX.fullmatch(spec):
        hits = [digest for digest in evaluations(ctx) if digest.startswith(spec)]
        if hits:
            evaluation = find_evaluation(ctx, spec)
            return _Place(evaluation, TUNED if _has(ctx, evaluation, TUNED) else BASE)
    known = [other] if other is not None else []
    known += [e for digest in evaluations(ctx) if (e := find_artifact(ctx.store, digest))]
    if spec != STABLE:
        for evaluation in known:
            if _has(ctx, evaluation, spec):
                return _Place(evaluation, spec)
    key = _key(ctx, spec)
    for evaluation in known:
        if key is not None and evaluation.meta.get("candidate", {}).get("key") == key:
            return _Place(evaluation, TUNED)
    beside = next((e for e in known if _has(ctx, e, spec)), None)
    return _Place(beside, spec) if beside else None


def _key(ctx: Context, spec: str) -> str | None:
    try:
        return resolve(ctx, spec, source_of(ctx)).key
    except TutelageError:
        return None


def _has(ctx: Context, evaluation: Artifact, candidate: str) -> bool:
    try:
        document = read_document(ctx, evaluation)
    except DataError:
        return False
    return any(entry["name"] == candidate for entry in document["candidates"])


def _side(ctx: Context, spec: str, place: _Place) -> Side:
    answers = read_answers(ctx, place.evaluation).get(place.candidate)
    scores = read_scores(ctx, place.evaluation).get(place.candidate)
    if answers is None or scores is None:
        names = ", ".join(e["name"] for e in read_document(ctx, place.evaluation)["candidates"])
        raise DataError(
            f"the evaluation {place.evaluation.short} has no candidate {place.candidate!r}",
            fix=f"It has {names}",
        )
    return Side(spec, Scored(place.candidate, spec, answers, scores, {}))


def _asked(ctx: Context, place: _Place) -> list[str]:
    """Return the ids of the rows a side was asked, answered or not."""
    table = read_scores(ctx, place.evaluation)[place.candidate]
    return sorted({item for given in table.values() for item in given})


def _not_evaluated(ctx: Context, spec: str) -> TutelageError:
    """Return the error for a name without answers; a name that nobody has is said to be unknown."""
    try:
        resolve(ctx, spec, source_of(ctx))
    except TutelageError as error:
        return error
    return DataError(f"{spec!r} was not evaluated yet", fix=f"Run `tutelage evaluate {spec}` first")
