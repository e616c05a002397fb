"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306): praise and blame.

It needs no pairs: every answer says only whether it is desirable. What counts as a gain is
measured from z0, the step's estimate of how far the model has moved from the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tutelage.core.errors import DataError
from tutelage.core.events import Emit, Event
from tutelage.core.example import Example
from tutelage.data.preferences import DESIRABLE, REJECTED, pair_id
from tutelage.training.distributed import joint, mean_of_all
from tutelage.training.job import TrainingJob
from tutelage.training.loop import STAGE, Step
from tutelage.training.methods.base import AnyTuning, Objective, Prepared
from tutelage.training.methods.preference import (
    Encoder,
    PreferenceObjective,
    answer_row,
    gathered,
    share_right,
)
from tutelage.training.precision import autocast
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe
from tutelage.training.shared_logprobs import SharedLogprobs
from tutelage.training.shared_step import StepResult

_BALANCED = (1.0, 4 / 3)  # of weights times rows, praised over blamed (Ethayarajh 2024, eq. 9)


@dataclass(frozen=True)
class JudgedItem:
    """An answer that is desirable or not; `other` is another item's answer to the same prompt."""

    id: str
    row: Row
    other: Row
    desirable: bool

    @property
    def weight(self) -> float:
        """Every answer counts the same; praise and blame are weighed in the loss."""
        return 1.0

    @property
    def computed(self) -> int:
        """Tokens that must be fed, without sharing."""
        return self.row.computed + self.other.computed


class KtoMethod(AnyTuning):
    """train.method: kto."""

    def objective(self, recipe: Recipe) -> Objective:
        """Return optimisation on single judged answers."""
        return Kto()


class Kto(PreferenceObjective):
    """The loss of judged answers; pairs are one desirable and one undesirable answer."""

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the judged answers. Raises DataError unless there are two to compare."""
        encoder = Encoder(tokenizer, job.prompt, job.recipe.max_tokens)
        items = self.encode(job.train, encoder)
        if len(items) < 2:
            why = encoder.reasons() or "there are too few rows"
            raise DataError(
                f"{len(items)} judged answers can't be trained on ({why})",
                fix="Give rows meta desirable: true or false, or a chosen and a rejected answer",
            )
        coverage = encoder.coverage([item.row for item in items], len(items))
        self.told(coverage, "judged answers", emit)
        tell_balance(items, job.recipe, emit)
        return self.with_validation(job, items, coverage, encoder, emit)

    def encode(self, examples: Sequence[Example], encoder: Encoder) -> list[JudgedItem]:
        """Return the judged answers among `examples`."""
        return encode_judged(examples, encoder)

    def answers(self, items: Sequence[JudgedItem]) -> list[Row]:
        """Return each answer, and the strange answer to its prompt, in turn."""
        return [row for item in items for row in (item.row, item.other)]

    def rows(self, items: Sequence[JudgedItem]) -> list[Row]:
        """Return the rows that a gradient goes through."""
        return [item.row for item in items]

    def step(
        self, model: Any, items: Sequence[JudgedItem], recipe: Recipe, emit: Emit
    ) -> tuple[Step, dict[str, Any]]:
        """Return the step over judged answers, and the report on prefix sharing."""
        measure, reference, report = self.measured(model, items, recipe, emit)

        def step(
            rows: Sequence[JudgedItem],
            micro_batch: int,
            *,
            backward: bool = True,
            weight: float | None = None,
        ) -> StepResult:
            whole = float(len(rows)) if weight is None else weight
            own, others = [item.row for item in rows], [item.other for item in rows]
            desirable = torch.tensor([item.desirable for item in rows])
            metrics: dict[str, float] = {}
            with autocast(model, recipe.precision):
                drift = _drift(measure, reference, others, micro_batch)
                if not rows:
                    return StepResult(0.0, whole, 0, 0)

                def loss_of(values: torch.Tensor) -> torch.Tensor:
                    gains = values - gathered(reference, own, values)
                    good = desirable.to(values.device)
                    metrics.update(measures(gains.detach(), drift, good, recipe.beta))
                    return judged_losses(gains, drift.to(values), good, recipe).sum() / whole

                found = measure.step(own, micro_batch, loss_of, backward=backward, weight=whole)
            return replace(found, metrics=metrics)

        return joint(step), report


def _drift(
    measure: SharedLogprobs,
    reference: Mapping[str, torch.Tensor],
    others: Sequence[Row],
    micro_batch: int,
) -> torch.Tensor:
    """Return z0, the mean gain of the strange answers of all processes' rows, at least 0."""
    gains = torch.zeros(0, device=measure.device)
    if others:
        moved = measure(others, micro_batch)
        gains = moved - gathered(reference, others, moved)
    return mean_of_all(gains).clamp(min=0)


def judged_losses(
    gains: torch.Tensor,  # N: log(pi / pi_ref) of the answers
    drift: torch.Tensor,  # scalar: z0
    desirable: torch.Tensor,  # N, bool
    recipe: Recipe,
) -> torch.Tensor:
    """Return each answer's loss, (N,): l - l s(b (g - z0)), for blame with the sign turned.

    Ethayarajh et al. 2024, eq. 8; l is desirable_weight or undesirable_weight.
    """
    sign = torch.where(desirable, 1.0, -1.0).to(gains)
    weights = torch.where(desirable, recipe.desirable_weight, recipe.undesirable_weight).to(gains)
    return weights * (1 - torch.sigmoid(recipe.beta * sign * (gains - drift)))


def measures(
    gains: torch.Tensor, drift: torch.Tensor, desirable: torch.Tensor, beta: float
) -> dict[str, float]:
    """Return the share of answers on the right side of z0, how far (in rewards), and z0."""
    sign = torch.where(desirable, 1.0, -1.0).to(gains)
    apart = sign * (gains - drift.to(gains))
    return {
        "preference_accuracy": share_right(apart),
        "reward_margin": float(beta * apart.mean()),
        "kl": float(drift),
    }


def encode_judged(examples: Sequence[Example], encoder: Encoder) -> list[JudgedItem]:
    """Return the judged answers among `examples`; a pair is two of them."""
    found: list[tuple[str, list[int], list[int], bool]] = []
    for example in examples:
        name = pair_id(example)
        for suffix, text, desirable in _answers(example):
            if not text.strip():
                encoder.rejected[name] = "an empty answer"
                continue
            found.append((name + suffix, *encoder.split(example, text), desirable))
        if not _answers(example):
            encoder.rejected[name] = "neither desirable nor a rejected answer"
    items = []
    for index, (name, context, answer, desirable) in enumerate(found):
        other = _stranger(found, index)
        fitted = encoder.fit(name, context, (answer, other))
        if fitted is not None:
            row, mismatch = answer_row(name, fitted, answer), answer_row(f"{name}~", fitted, other)
            items.append(JudgedItem(name, row, mismatch, desirable))
    return items


def _answers(example: Example) -> list[tuple[str, str, bool]]:
    """Return (suffix of the name, answer, desirable) of a row: one, two of a pair, or none."""
    mark, worse = example.meta.get(DESIRABLE), example.meta.get(REJECTED)
    if isinstance(mark, bool):
        return [("", example.answer or "", mark)]
    if isinstance(worse, str):
        return [("+", example.answer or "", True), ("-", worse, False)]
    return []


def _stranger(found: Sequence[tuple[str, list[int], list[int], bool]], index: int) -> list[int]:
    """Return the answer of the nearest earlier item with another prompt, in a circle."""
    own = found[index][1]
    for back in range(1, len(found)):
        other = found[index - back]
        if other[1] != own:
            return other[2]
    return found[index - 1][2]


def tell_balance(items: Sequence[JudgedItem], recipe: Recipe, emit: Emit) -> None:
    """Warn if praise and blame weigh far from equal: the paper advises 1 to 4/3 times."""
    good = sum(item.desirable for item in items)
    bad = len(items) - good
    if not good or not bad:
        kind = "praised" if good else "blamed"
        emit(Event(STAGE, "warning", f"all {len(items)} answers are {kind}: nothing to tell apart"))
        return
    ratio = recipe.desirable_weight * good / (recipe.undesirable_weight * bad)
    if _BALANCED[0] - 1e-9 <= ratio <= _BALANCED[1] + 1e-9:
        return
    field, value = (
        ("undesirable_weight", recipe.desirable_weight * good / bad)
        if ratio > 1
        else ("desirable_weight", recipe.undesirable_weight * bad / good)
    )
    text = f"{good} praised and {bad} blamed answers weigh {ratio:.2f} to 1"
    emit(Event(STAGE, "note", f"{text}; train.{field}: {value:.2f} would even them out"))
