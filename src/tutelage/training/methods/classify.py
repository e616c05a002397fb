"""A classification head on the prompt's last token, trained with the decoder under it.

The rows are the prompts that any other method answers; what stands after the last token is no text
but a label's number, so the shared step computes common prefixes once here too. The head is saved
beside the adapter (PEFT's modules_to_save), or in the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tutelage.core.events import Emit
from tutelage.training.calibration import calibrated
from tutelage.training.encode import Coverage, cut_middle, places_of
from tutelage.training.job import TrainingJob
from tutelage.training.labels import (
    Labelled,
    class_weights,
    labelled,
    labels_of,
    require_rows,
)
from tutelage.training.methods.base import AnyTuning, Objective, Prepared, tell_coverage
from tutelage.training.methods.sft import Supervised
from tutelage.training.precision import autocast
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe
from tutelage.training.shared_step import decoder_of, device_of

_BATCH = 16  # validation rows a forward pass


class Classification(Supervised):
    """Cross-entropy of the labels, by class weights if the recipe says so."""

    def __init__(self) -> None:
        self._labels: tuple[str, ...] = ()
        self._validation: list[Row] = []

    def load(self, job: TrainingJob) -> Any:
        """Return the model with a fresh head over the labels, drawn from the recipe's seed."""
        from tutelage.inference.transformers_head import load_classifier

        return load_classifier(job.model, labels_of(job), seed=job.recipe.seed)

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the prompts, each followed by its label's number."""
        from tutelage.inference.transformers import special_tokens

        self._labels = labels = labels_of(job)
        specials = special_tokens(tokenizer)
        rows, rejected = labelled(job.train, labels, job.output, job.prompt, specials)
        require_rows(rows, rejected)
        weights = class_weights(rows, len(labels), job.recipe.class_weights)
        limit = job.recipe.max_tokens
        train, shortened = _encode(rows, tokenizer, weights, limit)
        looked_at, _ = labelled(job.validation, labels, job.output, job.prompt, specials)
        self._validation, _ = _encode(looked_at, tokenizer, weights, limit)
        coverage = Coverage(
            rows=len(train),
            tokens=sum(row.computed for row in train),
            labelled=len(train),
            longest=max(row.computed for row in train),
            shortened=tuple(shortened),
            rejected=rejected,
            places=places_of(job.train, rejected),
        )
        tell_coverage(coverage, coverage.sentence(), emit)
        return Prepared(train, self._validation, coverage)

    def describe(self, job: TrainingJob, model: Any) -> dict[str, Any]:
        """Return the labels, their answers and the temperature of the validation rows."""
        truth = np.array([row.ids[-1] for row in self._validation], dtype=np.int64)
        scores = np.zeros((0, len(self._labels)))
        if self._validation:
            with autocast(model, job.recipe.precision):
                scores = head_logits(model, self._validation)
        return {
            "answerer": "head",
            "settings": {
                "labels": list(self._labels),
                "answers": [job.output.render(label) for label in self._labels],
                **calibrated(scores, truth),
            },
        }


def _encode(
    rows: Sequence[Labelled], tokenizer: Any, weights: Sequence[float], limit: int
) -> tuple[list[Row], list[str]]:
    """Return the rows and the ids of those whose middle was cut out."""
    from tutelage.inference.transformers import render

    made, shortened = [], []
    for row in rows:
        ids = list(render(tokenizer, row.turns).prompt_ids)
        if len(ids) > limit:
            shortened.append(row.id)
            ids = cut_middle(ids, limit)
        share = (0.0,) * len(ids) + (weights[row.index],)
        made.append(Row(row.id, (*ids, row.index), share, len(ids)))
    return made, shortened


def head_logits(model: Any, rows: Sequence[Row]) -> Any:
    """Return the head's logits for each row, (N, L), fp64 numpy, without gradient or dropout."""
    decoder, head = decoder_of(model)
    device = device_of(model)
    training = model.training
    model.eval()
    found = []
    try:
        with torch.no_grad():
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                width = max(row.computed for row in part)
                ids = torch.zeros(len(part), width, dtype=torch.long)
                mask = torch.zeros(len(part), width, dtype=torch.long)
                for index, row in enumerate(part):
                    ids[index, : row.computed] = torch.tensor(row.ids[: row.computed])
                    mask[index, : row.computed] = 1
                hidden = decoder(
                    input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
                ).last_hidden_state  # NTE
                last = torch.tensor([row.computed - 1 for row in part], device=device)
                found.append(head(hidden[torch.arange(len(part), device=device), last]).float())
    finally:
        model.train(training)
    return torch.cat(found).double().cpu().numpy()


class ClassifyMethod(AnyTuning):
    """A head and, as train.tune says, an adapter or the whole model under it."""

    def objective(self, recipe: Recipe) -> Objective:
        """Return the cross-entropy of the labels."""
        return Classification()
