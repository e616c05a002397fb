"""Continued pre-training: the loss of every token of raw text, in packed blocks.

Documents stand between end tokens and none attends to another: the flat stream of
shared_step.py keeps them apart without padding, and where a model can't be run that way, each
piece is a row of its own. Rows that are conversations are read as the chat template writes them,
all tokens predicted (Cheng et al. 2024, arXiv 2406.14491, mix such rows in).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tutelage.core.events import Emit, Event
from tutelage.core.example import Example
from tutelage.inference.chat import conversation
from tutelage.training.encode import Coverage, places_of, require_labels
from tutelage.training.job import TrainingJob
from tutelage.training.loop import STAGE, Step
from tutelage.training.methods.base import AnyTuning, Objective, Prepared, tell_coverage
from tutelage.training.packing import (
    Block,
    borders,
    cut_pieces,
    documents,
    pack_pieces,
    text_ids,
)
from tutelage.training.precision import autocast
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe
from tutelage.training.replay import is_replay
from tutelage.training.self_check import self_check
from tutelage.training.shared_step import SharedStep, StepResult, plain_step


class Pretraining(Objective):
    """Cross-entropy of all tokens of all texts."""

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        """Return the texts as blocks; what could not be used is told before the first step."""
        blocks, coverage = text_blocks(job.train, tokenizer, job.prompt, job.recipe.max_tokens)
        require_labels(coverage)
        text = f"{coverage.sentence()}, in {len(blocks)} blocks of {job.recipe.max_tokens}"
        tell_coverage(coverage, text, emit)
        held, _ = text_blocks(job.validation, tokenizer, job.prompt, job.recipe.max_tokens)
        return Prepared(blocks, held, coverage)

    def rows(self, items: Sequence[Block]) -> list[Row]:
        """Return each block as one row of its tokens."""
        return [
            Row(
                block.id,
                tuple(i for piece in block.pieces for i in piece.ids),
                tuple(w for piece in block.pieces for w in piece.weights),
                0,
            )
            for block in items
        ]

    def step(
        self, model: Any, items: Sequence[Block], recipe: Recipe, emit: Emit
    ) -> tuple[Step, dict[str, Any]]:
        """Return a step over blocks: one flat stream a micro-batch, else padded pieces."""
        pieces = [piece for block in items for piece in block.pieces]
        reason = self_check(model, pieces)
        shared = SharedStep(model) if reason is None else None
        if reason is not None:
            emit(Event(STAGE, "warning", f"Pieces are padded instead of packed: {reason}"))
        report = {"shared": False, "packed": shared is not None, "reason": reason or "packed"}

        def run(part: Sequence[Block], backward: bool, weight: float) -> StepResult:
            rows = [piece for block in part for piece in block.pieces]
            if shared is not None:
                return shared(rows, len(rows), backward=backward, weight=weight)
            longest = max((row.computed for row in rows), default=1)
            fit = max(1, len(part) * recipe.max_tokens // max(1, longest))
            return plain_step(model, rows, fit, backward=backward, weight=weight)

        def step(
            rows: Sequence[Block],
            micro_batch: int,
            *,
            backward: bool = True,
            weight: float | None = None,
        ) -> StepResult:
            whole = sum(block.weight for block in rows) if weight is None else weight
            parts = []
            with autocast(model, recipe.precision):
                for start in range(0, len(rows), micro_batch):
                    parts.append(run(rows[start : start + micro_batch], backward, whole))
            return StepResult(
                sum(part.loss for part in parts),
                whole,
                sum(part.unique for part in parts),
                sum(part.total for part in parts),
            )

        return step, report


class CptMethod(AnyTuning):
    """Raw text into an adapter, or into all weights."""

    def objective(self, recipe: Recipe) -> Objective:
        """Return continued pre-training."""
        return Pretraining()


def text_blocks(
    examples: Sequence[Example], tokenizer: Any, prompt: str, room: int
) -> tuple[list[Block], Coverage]:
    """Return the rows' texts as blocks of at most `room` tokens, and what became of them.

    `longest` in the coverage is the longest text before it was cut. Nothing is shortened.
    """
    pieces: list[Row] = []
    rejected = {row.id: "no text" for row in examples if not (row.answer or "").strip()}
    longest = 0
    for name, ids in _token_texts(examples, tokenizer, prompt):
        longest = max(longest, len(ids))
        pieces += cut_pieces(name, ids, room)
    tokens = sum(piece.computed for piece in pieces)
    rows = len({row.id for row in examples} - set(rejected))
    places = places_of(examples, rejected)
    coverage = Coverage(rows, tokens, tokens, longest, (), rejected, places)
    return pack_pieces(pieces, room), coverage


def _token_texts(
    examples: Sequence[Example], tokenizer: Any, prompt: str
) -> Iterator[tuple[str, list[int]]]:
    """Yield a name and the token ids, borders included, of each text and each conversation."""
    from tutelage.inference.transformers import render, special_tokens

    edges, specials = borders(tokenizer), special_tokens(tokenizer)
    usable = [row for row in examples if (row.answer or "").strip()]
    for text in documents([row for row in usable if row.is_text]):
        ids = [edges.start, *text_ids(tokenizer, text.text, specials)]
        yield text.rows[0], ids if text.open else [*ids, edges.end]
    for row in usable:
        if not row.is_text:
            turns = conversation(row, "" if is_replay(row) else prompt, specials)
            rendered = render(tokenizer, turns, answer=row.answer)
            answer = rendered.answer_ids[: -1 if row.meta.get("open") else None]
            yield row.id, [*rendered.prompt_ids, *answer]
