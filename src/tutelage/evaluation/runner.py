"""Asks every candidate every row, in pinned batches, and keeps each answer as it comes.

Free answers are greedy text, as production writes them. Constrained answers pick the likeliest
label of the list. Nothing is scored here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.core.events import Emit, Event, silent
from tutelage.core.example import Example
from tutelage.evaluation.candidates import Candidate, prompt_for
from tutelage.evaluation.rows import Journal, RowResult, from_completion
from tutelage.evaluation.task import Task
from tutelage.inference.base import Generator, Prompt

STAGE = "evaluate"


class TextScorer(Protocol):
    """Weighs whole texts."""

    def mean_nll(self, texts: Sequence[str]) -> Sequence[tuple[float, int]]:
        """Return (summed negative log-likelihood in nats, tokens it is summed over) a text."""
        ...


class Switchable(Protocol):
    """Holds one base model whose adapter can be changed."""

    def set_adapter(self, path: Path | None) -> None:
        """Use this adapter from now on, or none."""
        ...


class ListScorer(Protocol):
    """Weighs a closed list of answers."""

    def score_labels(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, whole: bool = True
    ) -> NDArray[np.float64]:
        """Return log p(answer | prompt), (N, L); `whole=False` may leave out a common ending."""
        ...


class Engine(Generator, ListScorer, TextScorer, Switchable, Protocol):
    """What an evaluation needs of a model; TransformersGenerator is one."""


@dataclass(frozen=True)
class Bench:
    """One engine at work: which adapter is the tuned model's, the batch size, who listens."""

    engine: Engine
    adapter: Path | None = None
    batch_size: int = 8
    emit: Emit = silent


def run(task: Task, candidates: Sequence[Candidate], bench: Bench, journal: Journal) -> None:
    """Fill `journal` with an answer of each candidate for each row of the task.

    Batches hold rows of like length and depend on the rows alone, so a run that was killed ends
    with the same batches as one that was not.
    """
    groups = batches(task.rows, bench.batch_size)
    total, done = len(task.rows) * len(candidates), 0
    for candidate in sorted(candidates, key=lambda c: c.adapter):  # each adapter loaded once
        switched = False
        for number, rows in enumerate(groups):
            if any(journal.get(candidate.name, row.id) is None for row in rows):
                if not switched:
                    bench.engine.set_adapter(bench.adapter if candidate.adapter else None)
                    switched = True
                journal.append(_answer(task, candidate, bench.engine, number, rows))
            done += len(rows)
            bench.emit(Event(STAGE, "progress", candidate.title, done, total))


def batches(rows: Sequence[Example], size: int) -> list[list[Example]]:
    """Return the rows cut into batches of `size`, short ones first."""
    order = sorted(rows, key=lambda row: (len(row.input_text), row.id))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _answer(
    task: Task, candidate: Candidate, engine: Engine, number: int, rows: Sequence[Example]
) -> list[RowResult]:
    prompts = [prompt_for(candidate, row, task) for row in rows]
    if candidate.mode == "constrained":
        return _choose(task, candidate, engine, rows, prompts)
    completions = engine.generate(prompts)
    return [
        from_completion(candidate.name, row.id, completion, number)
        for row, completion in zip(rows, completions, strict=True)
    ]


def _choose(
    task: Task,
    candidate: Candidate,
    engine: Engine,
    rows: Sequence[Example],
    prompts: Sequence[Prompt],
) -> list[RowResult]:
    """Pick the likeliest label of each row; `detail.sure` is its share of the probability."""
    answers = [task.output.render(label) for label in task.labels]
    started = time.perf_counter()
    logs: NDArray[np.float64] = np.asarray(
        engine.score_labels(prompts, answers, whole=False)
    )  # (N, L)
    each_ms = (time.perf_counter() - started) * 1000 / len(rows)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares = weights / weights.sum(axis=1, keepdims=True)
    best = shares.argmax(axis=1)
    return [
        RowResult(
            candidate.name,
            row.id,
            answers[choice],
            "chosen",
            latency_ms=round(each_ms, 3),
            detail={"sure": round(float(share[choice]), 4)},
        )
        for row, choice, share in zip(rows, best, shares, strict=True)
    ]
