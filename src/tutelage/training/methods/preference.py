"""What methods on preferences share: rows with one prompt, the reference, what is measured.

The reference is the model as the run starts: the base, or the earlier stage that `job.start`
names. Its log-likelihoods are measured once, over shared prefixes, and kept in the run's folder,
so they cost no second model in memory, hold for any tuning, and survive a kill.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.core.artifact import content_hash, hash_files
from tutelage.core.events import Emit, Event
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_write
from tutelage.inference.chat import conversation
from tutelage.inference.tuned import tuned_files
from tutelage.training.encode import Coverage, cut_middle, make_row, require_labels
from tutelage.training.job import TrainingJob
from tutelage.training.loop import STAGE
from tutelage.training.methods.base import Objective, Prepared, tell_coverage
from tutelage.training.precision import autocast, halve_frozen
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe
from tutelage.training.shared_logprobs import SharedLogprobs

REFERENCE = "reference.safetensors"
DRAW = 1e-4  # nats: rewards nearer than this are no preference but rounding
_CHUNK = 64  # rows whose reference is measured at once


class PreferenceObjective(Objective):
    """An objective that compares log-likelihoods with those of the model it starts from."""

    def __init__(self) -> None:
        self._job: TrainingJob | None = None
        self._prepared = Prepared([], [], Coverage(0, 0, 0, 0, (), {}))

    @abstractmethod
    def answers(self, items: Sequence[Any]) -> list[Row]:
        """Return every row of `items` whose log-likelihood is compared."""

    @abstractmethod
    def encode(self, examples: Sequence[Example], encoder: Encoder) -> list[Any]:
        """Return the items among `examples`; what is none is in `encoder.rejected`."""

    def told(self, coverage: Coverage, what: str, emit: Emit) -> None:
        """Say what became of the rows, which are called `what`."""
        text = coverage.sentence().replace(f"{coverage.rows} rows", f"{coverage.rows} {what}")
        tell_coverage(coverage, text, emit)

    def with_validation(
        self, job: TrainingJob, items: list[Any], coverage: Coverage, encoder: Encoder, emit: Emit
    ) -> Prepared:
        """Return what the run works with; the validation rows that are left out are told."""
        again = Encoder(encoder.tokenizer, encoder.prompt, encoder.max_tokens)
        validation = self.encode(job.validation, again)
        if again.rejected:
            text = f"{len(again.rejected)} validation rows are left out ({again.reasons()})"
            emit(Event(STAGE, "warning", text))
        self._job = job
        self._prepared = Prepared(items, validation, coverage)
        return self._prepared

    def measured(
        self, model: Any, items: Sequence[Any], recipe: Recipe, emit: Emit
    ) -> tuple[SharedLogprobs, dict[str, torch.Tensor], dict[str, Any]]:
        """Return what measures rows, the reference by row id (scalars), and the prefix report.

        For a look at fewer items than were prepared only theirs is measured, and nothing is kept.
        """
        from tutelage.training.methods.sft import shared_path

        rows = self.answers(items)
        each = max(1, len(rows) // max(1, len(items)))
        of_a_step = recipe.model_copy(update={"batch_size": each * recipe.batch_size})
        shared, report = shared_path(model, rows, of_a_step, emit)
        halve_frozen(model, recipe.precision)  # the reference in the numbers of the run
        measure = SharedLogprobs(model, shared=shared is not None)
        job = self._job if len(items) == len(self._prepared.train) else None
        if job is None:
            return measure, reference(measure, model, rows, recipe, emit), report
        rows = [*rows, *self.answers(self._prepared.validation)]
        kept = Kept(job.run_dir / REFERENCE, _key(job, recipe, rows))
        return measure, reference(measure, model, rows, recipe, emit, kept), report


def _key(job: TrainingJob, recipe: Recipe, rows: Sequence[Row]) -> str:
    """Return the hash of what a reference depends on."""
    start = hash_files(job.start, tuned_files(job.start)) if job.start else None
    seen = recipe.model_dump(mode="json", include={"method", "tune", "precision"})
    texts = [[row.id, list(row.ids), row.answer_start] for row in rows]
    return content_hash({"model": job.model.digest, "start": start, "how": seen, "rows": texts})


@dataclass(frozen=True)
class Kept:
    """A file of log-likelihoods, valid for one `key`."""

    path: Path
    key: str

    def load(self, count: int) -> torch.Tensor | None:
        """Return what is kept, (N,), or None if it is of something else or damaged."""
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                if (file.metadata() or {}).get("key") != self.key:
                    return None
                values: torch.Tensor = file.get_tensor("logprobs")
        except (SafetensorError, OSError):
            return None
        return values if len(values) == count else None

    def save(self, values: torch.Tensor) -> None:
        """Write the values, whole or not at all."""
        from safetensors.torch import save

        atomic_write(self.path, save({"logprobs": values}, metadata={"key": self.key}))


def reference(
    measure: SharedLogprobs,
    model: Any,
    rows: Sequence[Row],
    recipe: Recipe,
    emit: Emit,
    kept: Kept | None = None,
) -> dict[str, torch.Tensor]:
    """Return the rows' log-likelihoods under `model` as it is, without dropout, by row id.

    They are read from `kept` if they are there, else measured and written to it.
    """
    values = kept.load(len(rows)) if kept is not None else None
    if values is None:
        values = torch.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda index: rows[index].ids)  # prefixes together
        training = model.training
        model.eval()
        try:
            for start in range(0, len(order), _CHUNK):
                part = order[start : start + _CHUNK]
                with autocast(model, recipe.precision):
                    found = measure([rows[index] for index in part], recipe.micro_batch)
                values[part] = found.float().cpu()
                done = start + len(part)
                text = "log-likelihoods before training"
                emit(Event("reference", "progress", text, done=done, total=len(order)))
        finally:
            model.train(training)
        if kept is not None:
            kept.save(values)
    return {row.id: value for row, value in zip(rows, values, strict=True)}


@dataclass
class Encoder:
    """Turns answers to one input into rows with the same prompt, and notes what was lost."""

    tokenizer: Any
    prompt: str
    max_tokens: int

    def __post_init__(self) -> None:
        from tutelage.inference.transformers import special_tokens

        self._specials = special_tokens(self.tokenizer)
        self.shortened: list[str] = []
        self.rejected: dict[str, str] = {}

    def split(self, example: Example, answer: str) -> tuple[list[int], list[int]]:
        """Return the token ids of an example's prompt, and of an answer to it."""
        from tutelage.inference.transformers import render

        turns = conversation(example, self.prompt, self._specials)
        rendered = render(self.tokenizer, turns, answer=answer)
        return list(rendered.prompt_ids), list(rendered.answer_ids)

    def fit(self, name: str, context: list[int], answers: Sequence[list[int]]) -> list[int] | None:
        """Return the prompt cut so that the longest answer fits; None (and why) if none does."""
        longest = max(map(len, answers))
        room = self.max_tokens - longest
        if room < 1 or not context:
            self.rejected[name] = f"an answer alone has {longest} of {self.max_tokens} tokens"
            return None
        if len(context) > room:
            self.shortened.append(name)
            return cut_middle(context, room)
        return context

    def reasons(self) -> str:
        """Return why rows were rejected, at most three reasons; empty if none was."""
        return "; ".join(sorted(set(self.rejected.values()))[:3])

    def coverage(self, rows: Sequence[Row], items: int) -> Coverage:
        """Return what became of the rows; raise DataError if nothing is labelled."""
        made = Coverage(
            rows=items,
            tokens=sum(len(row.ids) for row in rows),
            labelled=sum(len(row.ids) - row.answer_start for row in rows),
            longest=max((len(row.ids) for row in rows), default=0),
            shortened=tuple(self.shortened),
            rejected=dict(self.rejected),
        )
        require_labels(made)
        return made


def answer_row(name: str, context: Sequence[int], answer: Sequence[int]) -> Row:
    """Return the row whose value is the log-likelihood of `answer` after `context`."""
    return make_row(name, context, answer, 0.0)


def gathered(
    reference: Mapping[str, torch.Tensor], rows: Sequence[Row], like: torch.Tensor
) -> torch.Tensor:
    """Return the reference of `rows`, (N,), where and as `like` is."""
    return torch.stack([reference[row.id] for row in rows]).to(like)


def share_right(rewards: torch.Tensor) -> float:
    """Return the share of `rewards`, (N,), above zero; a draw counts half."""
    right = (rewards > DRAW).float() + 0.5 * (rewards.abs() <= DRAW).float()
    return float(right.mean())
