"""Pattern-exploiting training of a decoder: labels compete as the words that follow a pattern.

After PET (Schick & Schütze 2021, arXiv 2001.07676), without its masked model: a row is put as
several patterns; in each, a label's score is the log-likelihood of its words, and the loss is the
cross-entropy over the closed list of labels, as in PET's equation for q_p. The sum over tokens is
taken, not its mean by length: it is the model's own log p(words | pattern), so the softmax over
the list is exactly p(label | pattern, one of the list), and what all answers share cancels out;
training itself removes the advantage of short words that length norms are for (Brown et al. 2020,
section 2.4). One model learns all patterns, in place of one model a pattern and a distillation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from tutelage.core.artifact import content_hash
from tutelage.core.config import Cloze
from tutelage.core.errors import DataError
from tutelage.core.events import Emit
from tutelage.inference.cloze import Form, form_settings, make_forms
from tutelage.training.cloze_fit import fit
from tutelage.training.encode import Coverage, cut_middle
from tutelage.training.job import TrainingJob
from tutelage.training.labels import Labelled, class_weights, labelled, labels_of, require_rows
from tutelage.training.loop import Step
from tutelage.training.methods.base import AnyTuning, Objective, Prepared, tell_coverage
from tutelage.training.methods.sft import shared_path
from tutelage.training.precision import autocast
from tutelage.training.prefix_tree import Row, build_forest
from tutelage.training.recipe import Recipe
from tutelage.training.shared_logprobs import SharedLogprobs
from tutelage.training.shared_step import StepResult

MIN_SHARED = 4  # tokens: an answer's opening is worth sharing among its labels
Tails = tuple[tuple[tuple[int, ...], ...], ...]  # [pattern][text] -> token ids


@dataclass(frozen=True)
class ClozeItem:
    """One row put as every pattern: `contexts` are the prompts' token ids, in their order.

    `form` is the hash of all answers' tokens, which are the same for every row.
    """

    id: str
    target: int
    contexts: tuple[tuple[int, ...], ...]
    form: str
    weight: float = 1.0


class ClozeObjective(Objective):
    """Cross-entropy over the labels, the mean over rows and patterns."""

    def __init__(self) -> None:
        self._labels: tuple[str, ...] = ()
        self._forms: list[Form] = []
        self._tails: Tails = ()
        self._validation: list[Labelled] = []
        self._tokenizer: Any = None

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the rows as items. Raises ConfigError for words that fit no label."""
        from tutelage.inference.transformers import special_tokens

        self._labels = labels = labels_of(job)
        self._forms = make_forms(job.recipe.cloze or Cloze(), labels, job.output)
        specials = special_tokens(tokenizer)
        rows, rejected = labelled(job.train, labels, job.output, job.prompt, specials)
        require_rows(rows, rejected)
        self._validation, _ = labelled(job.validation, labels, job.output, job.prompt, specials)
        self._tokenizer = tokenizer
        self._tails = _tails(self._forms, tokenizer, rows[0])
        weights = class_weights(rows, len(labels), job.recipe.class_weights)
        train, shortened = self._items(rows, weights, job.recipe.max_tokens)
        validation, _ = self._items(self._validation, weights, job.recipe.max_tokens)
        coverage = self._coverage(train, shortened, rejected)
        many = len(self._forms)
        text = f"{coverage.sentence()}, in {many} pattern{'s' if many != 1 else ''}"
        tell_coverage(coverage, text, emit)
        return Prepared(train, validation, coverage)

    def rows(self, items: Sequence[ClozeItem]) -> list[Row]:
        """Return one row an item, as long as the tokens that all its patterns and labels add.

        It is the first pattern's prompt, then what the others do not share with it, and the
        labels' words as a trie: right in number and prefix, no text that is ever run.
        """
        from tutelage.inference.transformers_labels import make_trie

        words = [token for tails in self._tails for token in make_trie(tails).tokens]
        made = []
        for item in items:
            first = item.contexts[0]
            rest = [token for other in item.contexts[1:] for token in _after(first, other)]
            ids = (*first, *rest, *words)
            weights = (0.0,) * len(first) + (1.0,) * (len(ids) - len(first))
            made.append(Row(item.id, ids, weights, len(first)))
        return made

    def step(
        self, model: Any, items: Sequence[ClozeItem], recipe: Recipe, emit: Emit
    ) -> tuple[Step, dict[str, Any]]:
        """Return the step over all patterns and labels of its items."""
        first = self._rows(items[: recipe.batch_size])
        _, report = shared_path(model, first[: max(recipe.batch_size, 3)], recipe, emit)
        forest = build_forest(first, min_shared=MIN_SHARED)
        report |= {"unique": forest.unique, "total": forest.total}
        logprobs = SharedLogprobs(model, shared=report["shared"], min_shared=MIN_SHARED)

        def step(
            rows: Sequence[ClozeItem],
            micro_batch: int,
            *,
            backward: bool = True,
            weight: float | None = None,
        ) -> StepResult:
            whole = sum(item.weight for item in rows) if weight is None else weight
            texts = self._rows(rows)
            with autocast(model, recipe.precision):
                return logprobs.step(
                    texts,
                    micro_batch * self._texts_an_item(rows, texts),
                    lambda values: self._loss(values, rows) / whole,
                    backward=backward,
                    weight=whole,
                )

        return step, report

    def describe(self, job: TrainingJob, model: Any) -> dict[str, Any]:
        """Return the patterns and words, and what was fitted to the validation rows."""
        cloze = job.recipe.cloze or Cloze()
        with autocast(model, job.recipe.precision):
            fitted = fit(
                model, self._tokenizer, self._forms, self._validation, len(self._labels),
                prompt=job.prompt, calibrate=cloze.calibrate,
            )  # fmt: skip
        return {
            "answerer": "cloze",
            "settings": {
                "labels": list(self._labels),
                "answers": [job.output.render(label) for label in self._labels],
                "forms": form_settings(self._forms),
                **fitted,
            },
        }

    def _items(
        self, rows: Sequence[Labelled], weights: Sequence[float], limit: int
    ) -> tuple[list[ClozeItem], list[str]]:
        """Return the rows put as every pattern, and the ids of those whose middle was cut out."""
        from tutelage.inference.transformers import render

        rooms = [limit - max(map(len, tails)) for tails in self._tails]
        if min(rooms) < 1:
            raise DataError(
                f"the longest label's words leave no room in {limit} tokens",
                fix="Raise train.max_tokens, or give shorter train.cloze.verbalisers",
            )
        form = content_hash([[list(tail) for tail in tails] for tails in self._tails])
        items, shortened = [], []
        for row in rows:
            contexts = []
            for pattern, room in zip(self._forms, rooms, strict=True):
                ids = list(render(self._tokenizer, pattern.wrap(row.turns)).prompt_ids)
                if len(ids) > room:
                    ids = cut_middle(ids, room)
                    shortened.append(row.id)
                contexts.append(tuple(ids))
            items.append(ClozeItem(row.id, row.index, tuple(contexts), form, weights[row.index]))
        return items, list(dict.fromkeys(shortened))

    def _rows(self, items: Sequence[ClozeItem]) -> list[Row]:
        """Return a row for each item, pattern and text, in that order; answers may be shared."""
        return [
            Row(
                item.id,
                context + tail,
                (0.0,) * len(context) + (1.0,) * len(tail),
                len(context) + len(tail),
            )
            for item in items
            for context, tails in zip(item.contexts, self._tails, strict=True)
            for tail in tails
        ]

    def _texts_an_item(self, items: Sequence[ClozeItem], texts: Sequence[Row]) -> int:
        """Return how many of the longest texts are as many tokens as an item adds, at most.

        So a micro-batch holds as many tokens as the planner counts for its items.
        """
        added = max((len(row.ids) for row in self.rows(items)), default=0)
        return -(-added // max((row.computed for row in texts), default=1))

    def _loss(self, values: torch.Tensor, items: Sequence[ClozeItem]) -> torch.Tensor:
        """Return the weighted sum over items of the patterns' mean cross-entropy; values (N,)."""
        table = values.view(len(items), -1)  # items, texts of all patterns
        targets = torch.tensor([item.target for item in items], device=values.device)
        weights = torch.tensor([item.weight for item in items], device=values.device)
        losses = torch.zeros(len(items), device=values.device)
        start = 0
        for form in self._forms:
            part = table[:, start : start + len(form.texts)]
            start += len(form.texts)
            scores = _label_scores(part, form, len(self._labels))
            losses = losses + functional.cross_entropy(scores, targets, reduction="none")
        return (losses * weights).sum() / len(self._forms)

    def _coverage(
        self, items: Sequence[ClozeItem], shortened: list[str], rejected: dict[str, str]
    ) -> Coverage:
        tails = [max(map(len, tails)) for tails in self._tails]
        lengths = [len(context) for item in items for context in item.contexts]
        return Coverage(
            rows=len(items),
            tokens=sum(lengths) + len(items) * sum(len(t) for part in self._tails for t in part),
            labelled=len(items) * sum(len(t) for part in self._tails for t in part),
            longest=max(lengths) + max(tails),
            shortened=tuple(shortened),
            rejected=rejected,
        )


def _after(first: Sequence[int], other: Sequence[int]) -> Sequence[int]:
    """Return what of `other` follows the tokens that it begins with in common with `first`."""
    same = 0
    while same < min(len(first), len(other)) and first[same] == other[same]:
        same += 1
    return other[same:]


def _tails(forms: Sequence[Form], tokenizer: Any, row: Labelled) -> Tails:
    """Return the token ids of every pattern's answers, without what they all end in."""
    from tutelage.inference.transformers import render
    from tutelage.inference.transformers_labels import without_closing

    made = []
    for form in forms:
        turns = form.wrap(row.turns)
        answers = [render(tokenizer, turns, answer=text).answer_ids for text in form.texts]
        made.append(tuple(tuple(tail) for tail in without_closing(answers)))
    return tuple(made)


def _label_scores(values: torch.Tensor, form: Form, labels: int) -> torch.Tensor:
    """Return the log of the mean likelihood of each label's texts, (N, L); values are (N, W)."""
    if list(form.owners) == list(range(labels)):
        return values
    return torch.stack(
        [
            values[:, group].logsumexp(1) - torch.tensor(float(len(group))).log()
            for group in form.groups(labels)
        ],
        dim=1,
    )


class ClozeMethod(AnyTuning):
    """Labels as words; train.tune says what is trained."""

    def objective(self, recipe: Recipe) -> Objective:
        """Return the cross-entropy over the labels' words."""
        return ClozeObjective()
