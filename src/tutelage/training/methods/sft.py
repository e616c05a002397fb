"""Supervised fine-tuning: the loss of the answer's tokens, with shared prompts computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.core.events import Emit, Event
from tutelage.training.encode import encode
from tutelage.training.job import TrainingJob
from tutelage.training.loop import STAGE, Step
from tutelage.training.methods.base import Objective, Prepared, tell_coverage
from tutelage.training.precision import autocast
from tutelage.training.prefix_tree import Row, build_forest
from tutelage.training.recipe import Recipe
from tutelage.training.self_check import self_check
from tutelage.training.shared_step import SharedStep, StepResult, device_of, plain_step


class Supervised(Objective):
    """Cross-entropy of the answers; of the prompts too, as far as the recipe says."""

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the rows; the label coverage is told before the first step."""
        limit, weight = job.recipe.max_tokens, job.recipe.prompt_loss_weight
        rows = encode(job.train, tokenizer, job.prompt, max_tokens=limit, prompt_loss_weight=weight)
        tell_coverage(rows.coverage, rows.coverage.sentence(), emit)
        validation: list[Row] = []
        if job.validation:  # judged on answers alone
            validation = encode(job.validation, tokenizer, job.prompt, max_tokens=limit).rows
        return Prepared(rows.rows, validation, rows.coverage)

    def step(
        self, model: Any, items: Sequence[Row], recipe: Recipe, emit: Emit
    ) -> tuple[Step, dict[str, Any]]:
        """Return the shared path where it pays and agrees with the plain one, else the plain."""
        shared, report = shared_path(model, items, recipe, emit, flat=True)

        def step(
            rows: Sequence[Row],
            micro_batch: int,
            *,
            backward: bool = True,
            weight: float | None = None,
        ) -> StepResult:
            with autocast(model, recipe.precision):
                if shared is not None:
                    return shared(rows, micro_batch, backward=backward, weight=weight)
                return plain_step(model, rows, micro_batch, backward=backward, weight=weight)

        return step, report


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
