"""What a plan's max_tokens takes from the rows: how long they are uncut, and what to tell of it.

Nothing is planned here; the rows are encoded as the method encodes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tutelage.core.events import silent
from tutelage.core.example import Example

if TYPE_CHECKING:
    from tutelage.training.encode import Coverage
    from tutelage.training.job import TrainingJob
    from tutelage.training.methods.base import Objective, Prepared
    from tutelage.training.profile import ModelProfile

_UNCUT = 2**30  # tokens: longer than any row


def measure(objective: Objective, job: TrainingJob, tokenizer: Any) -> tuple[Prepared, int]:
    """Return the rows as the job's max_tokens leaves them, and the tokens of the longest one uncut.

    The length is 0 where nothing is cut. Raw text never is: it goes on in the next block, and
    its length here is that of a block without a limit of the user's.
    """
    from tutelage.training.packing import BLOCK

    recipe = job.recipe
    if recipe.method == "cpt":
        prepared = objective.prepare(job, tokenizer, silent)
        tokens = prepared.coverage.tokens
        return prepared, min(BLOCK, tokens) if recipe.max_tokens < min(BLOCK, tokens) else 0
    uncut = replace(job, recipe=recipe.model_copy(update={"max_tokens": _UNCUT}))
    whole = objective.prepare(uncut, tokenizer, silent)
    if whole.coverage.longest <= recipe.max_tokens:
        return whole, 0
    return objective.prepare(job, tokenizer, silent), whole.coverage.longest


def lost_rows(
    coverage: Coverage, rows: Sequence[Example], model: ModelProfile, limit: int, need: int
) -> list[str]:
    """Return what `limit` tokens a row cut and what is rejected, each with what to do."""
    from tutelage.training.encode import places_of

    lost = []
    short, out = len(coverage.shortened), len(coverage.rejected)
    wider = min(need, model.context)
    raised = f"raise train.max_tokens to {wider}" if limit < wider else ""
    if short:
        instead = "the model reads no more: shorten them, or choose one that does"
        lost.append(
            f"{short:,} of {len(rows):,} training rows {'are' if short > 1 else 'is'} longer than "
            f"{limit:,} tokens and {'lose' if short > 1 else 'loses'} the middle of the question "
            f"(the longest has {need:,}): {raised or instead}"
        )
    if out:
        told = replace(coverage, places=places_of(rows, coverage.rejected)).why_rejected()
        long = any("tokens" in why for why in coverage.rejected.values())
        shorter = f"shorten the answers{f', or {raised}' if raised else ''}"
        lost.append(
            f"{out:,} of {len(rows):,} training rows {'are' if out > 1 else 'is'} rejected and not "
            f"trained on ({told}): {shorter if long else 'correct them, or leave them out'}"
        )
    return lost
