"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), over shared prefixes.

A step's rows are both answers of its pairs; their prompt is computed once. Besides the paper's
loss: its conservative form (label smoothing), IPO, and the better answer's own loss beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Emit
from tutelage.core.example import Example
from tutelage.data.preferences import REJECTED, pair_id, same
from tutelage.training.job import TrainingJob
from tutelage.training.loop import Step
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
from tutelage.training.shared_step import StepResult


@dataclass(frozen=True)
class PairItem:
    """A better and a worse answer to one prompt. A step's loss is the mean over pairs."""

    id: str
    chosen: Row
    rejected: Row

    @property
    def weight(self) -> float:
        """Every pair counts the same."""
        return 1.0

    @property
    def computed(self) -> int:
        """Tokens that must be fed, without sharing."""
        return self.chosen.computed + self.rejected.computed


class DpoMethod(AnyTuning):
    """train.method: dpo."""

    def objective(self, recipe: Recipe) -> Objective:
        """Return preference optimisation on pairs."""
        return Dpo()


class Dpo(PreferenceObjective):
    """The loss of pairs, and how far the two answers' implicit rewards are apart."""

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the pairs: rows with meta["rejected"]. Raises DataError if there are none."""
        if job.recipe.preference_loss == "ipo" and job.recipe.label_smoothing:
            raise ConfigError(
                "train.label_smoothing has no meaning for IPO's loss",
                where="train.label_smoothing",
                fix="Remove it, or set train.preference_loss: sigmoid",
            )
        encoder = Encoder(tokenizer, job.prompt, job.recipe.max_tokens)
        items = self.encode(job.train, encoder)
        if not items:
            why = encoder.reasons() or "there are no rows"
            raise DataError(
                f"no row is a pair to train on ({why})",
                fix="Give rows a chosen and a rejected answer, or raise train.max_tokens",
            )
        coverage = encoder.coverage(self.answers(items), len(items))
        self.told(coverage, "pairs", emit)
        return self.with_validation(job, items, coverage, encoder, emit)

    def encode(self, examples: Sequence[Example], encoder: Encoder) -> list[PairItem]:
        """Return the pairs among `examples`."""
        return encode_pairs(examples, encoder)

    def answers(self, items: Sequence[PairItem]) -> list[Row]:
        """Return the better and the worse row of each pair, in turn."""
        return [row for item in items for row in (item.chosen, item.rejected)]

    def rows(self, items: Sequence[PairItem]) -> list[Row]:
        """Return a row a pair: its prompt, computed once, and both answers."""
        return [
            answer_row(item.id, ids[:start], (*ids[start:], *item.rejected.ids[start:]))
            for item in items
            for ids, start in [(item.chosen.ids, item.chosen.answer_start)]
        ]

    def step(
        self, model: Any, items: Sequence[PairItem], recipe: Recipe, emit: Emit
    ) -> tuple[Step, dict[str, Any]]:
        """Return the step over pairs, and the report on prefix sharing."""
        measure, reference, report = self.measured(model, items, recipe, emit)

        def step(
            rows: Sequence[PairItem],
            micro_batch: int,
            *,
            backward: bool = True,
            weight: float | None = None,
        ) -> StepResult:
            whole = float(len(rows)) if weight is None else weight
            answers = self.answers(rows)
            lengths = torch.tensor([_length(row) for row in answers]).view(-1, 2)
            metrics: dict[str, float] = {}

            def loss_of(values: torch.Tensor) -> torch.Tensor:
                policy = values.view(-1, 2)
                gains = policy - gathered(reference, answers, values).view(-1, 2)
                metrics.update(measures(gains.detach(), recipe.beta))
                losses = pair_losses(policy, gains, lengths.to(values), recipe)
                return losses.sum() / whole

            with autocast(model, recipe.precision):
                found = measure.step(answers, micro_batch, loss_of, backward=backward, weight=whole)
            return replace(found, metrics=metrics)

        return step, report


def pair_losses(
    policy: torch.Tensor,  # N2: log-likelihoods of the better and the worse answer
    gains: torch.Tensor,  # N2: the same over the reference's, log(pi / pi_ref)
    lengths: torch.Tensor,  # N2: their tokens
    recipe: Recipe,
) -> torch.Tensor:
    """Return each pair's loss in nats, (N,).

    sigmoid: -log s(b (g_w - g_l)), Rafailov et al. 2023, eq. 7; with label smoothing e,
    -(1 - e) log s(h) - e log s(-h), the conservative DPO of Mitchell 2023. ipo:
    (g_w / |y_w| - g_l / |y_l| - 1 / 2b)^2, Azar et al. 2023 (arXiv 2310.12036), eq. 17, per token.
    sft_weight adds -log pi(y_w) / |y_w| (Pang et al. 2024, arXiv 2404.19733, eq. 2).
    """
    if recipe.preference_loss == "ipo":
        per_token = gains / lengths
        losses = (per_token[:, 0] - per_token[:, 1] - 1 / (2 * recipe.beta)) ** 2
    else:
        margin = recipe.beta * (gains[:, 0] - gains[:, 1])
        smooth = recipe.label_smoothing
        losses = -(1 - smooth) * logsigmoid(margin) - smooth * logsigmoid(-margin)
    if recipe.sft_weight:
        losses = losses - recipe.sft_weight * policy[:, 0] / lengths[:, 0]
    return losses


def measures(gains: torch.Tensor, beta: float) -> dict[str, float]:
    """Return the share of pairs whose better answer has the higher implicit reward, and rewards.

    An implicit reward is b log(pi / pi_ref) (Rafailov et al. 2023, eq. 5, up to a constant).
    """
    rewards = beta * gains
    return {
        "preference_accuracy": share_right(gains[:, 0] - gains[:, 1]),
        "reward_margin": float((rewards[:, 0] - rewards[:, 1]).mean()),
        "reward_chosen": float(rewards[:, 0].mean()),
        "reward_rejected": float(rewards[:, 1].mean()),
    }


def encode_pairs(examples: Sequence[Example], encoder: Encoder) -> list[PairItem]:
    """Return the pairs among `examples`; what is none is in `encoder.rejected`, with the reason."""
    items = []
    for example in examples:
        name = pair_id(example)
        better, worse = example.answer or "", example.meta.get(REJECTED)
        if not isinstance(worse, str):
            encoder.rejected[name] = "no rejected answer"
        elif not better.strip() or not worse.strip():
            encoder.rejected[name] = "an empty answer"
        elif same(better) == same(worse):
            encoder.rejected[name] = "both answers are the same"
        else:
            context, chosen = encoder.split(example, better)
            _, rejected = encoder.split(example, worse)
            fitted = encoder.fit(name, context, (chosen, rejected))
            if fitted is not None:
                items.append(
                    PairItem(
                        name,
                        answer_row(f"{name}+", fitted, chosen),
                        answer_row(f"{name}-", fitted, rejected),
                    )
                )
    return items


def _length(row: Row) -> int:
    return len(row.ids) - row.answer_start
