"""Supervised fine-tuning: the loss of the answer's tokens, with shared prompts computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.core.events import Emit, Event
from tutelage.training.base_odds import as_heavy_as, join, odds_step
from tutelage.training.encode import encode
from tutelage.training.job import TrainingJob
from tutelage.training.loop import STAGE, Step
from tutelage.training.methods.base import Objective, Prepared, tell_coverage
from tutelage.training.precision import autocast
from tutelage.training.prefix_tree import Row, build_forest
from tutelage.training.recipe import Recipe
from tutelage.training.replay import is_replay
from tutelage.training.self_check import self_check
from tutelage.training.shared_step import SharedStep, StepResult, device_of, plain_step


class Supervised(Objective):
    """Cross-entropy of the answers; of the prompts too, as far as the recipe says."""

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the rows; the label coverage is told before the first step."""
        limit, weight = job.recipe.max_tokens, job.recipe.prompt_loss_weight
        rows = encode(job.train, tokenizer, job.prompt, max_tokens=limit, prompt_loss_weight=weight)
        tell_coverage(rows.coverage, rows.coverage.sentence(), emit)
        train = _weighed(job, rows.rows)
        validation: list[Row] = []
        if job.validation:  # judged on answers alone
            validation = encode(job.validation, tokenizer, job.prompt, max_tokens=limit).rows
        return Prepared(train, validation, rows.coverage)

    def step(
        self, model: Any, items: Sequence[Row], recipe: Recipe, emit: Emit
    ) -> tuple[Step, dict[str, Any]]:
        """Return the shared path where it pays and agrees with the plain one, else the plain."""
        taught = [row for row in items if not row.odds]
        shared, report = shared_path(model, taught, recipe, emit, flat=True)

        def teach(
            rows: Sequence[Row], micro_batch: int, backward: bool, weight: float | None
        ) -> StepResult:
            if shared is not None:
                return shared(rows, micro_batch, backward=backward, weight=weight)
            return plain_step(model, rows, micro_batch, backward=backward, weight=weight)

        def step(
            rows: Sequence[Row],
            micro_batch: int,
            *,
            backward: bool = True,
            weight: float | None = None,
        ) -> StepResult:
            own = [row for row in rows if not row.odds]
            held = [row for row in rows if row.odds]
            with autocast(model, recipe.precision):
                if not held:
                    return teach(own, micro_batch, backward, weight)
                whole = sum(row.weight for row in rows) if weight is None else weight
                parts = [odds_step(model, held, 1, whole, backward=backward)]
                if own:
                    parts.append(teach(own, micro_batch, backward, whole))
                return join(parts)

        return step, report


def _weighed(job: TrainingJob, rows: Sequence[Row]) -> list[Row]:
    """Return the rows, each replayed one as heavy as the project's are on average."""
    general = {example.id for example in job.train if is_replay(example)}
    if not general:
        return list(rows)
    own = [row for row in rows if row.id not in general]
    odds = job.recipe.replay_loss == "base"
    heavy = as_heavy_as(own, [row for row in rows if row.id in general], odds=odds)
    replayed = {row.id: row for row in heavy}
    return [replayed.get(row.id, row) for row in rows]


def shared_path(
    model: Any, rows: Sequence[Row], recipe: Recipe, emit: Emit, *, flat: bool = False
) -> tuple[SharedStep | None, dict[str, Any]]:
    """Return the step over shared prefixes, or None, and whether prefixes are shared and why.

    With `flat` rows that share little go through it too on a CPU: it pads nothing, and its layers
    are faster.
    """
    forest = build_forest(rows[: recipe.batch_size])
    report: dict[str, Any] = {"shared": False, "unique": forest.unique, "total": forest.total}
    if not recipe.shared_prefix:
        return None, report | {"reason": "the recipe turns it off"}
    little = f"{forest.unique} of {forest.total} tokens are unique: little to share"
    if not forest.pays and not (flat and device_of(model).type == "cpu"):
        return None, report | {"reason": little}
    reason = self_check(model, rows)
    if reason is not None:
        if forest.pays:
            emit(Event(STAGE, "warning", f"Prefixes are not shared: {reason}"))
        return None, report | {"reason": reason}
    agrees = "agrees with the plain path"
    return SharedStep(model), report | {
        "shared": forest.pays,
        "reason": agrees if forest.pays else little,
    }
