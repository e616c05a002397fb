"""Asks every candidate every row, in pinned batches, and keeps each answer as it comes.

Free answers are greedy text, as production writes them; more may be drawn beside them. Constrained
answers pick the likeliest of the row's list. Nothing is scored here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from tutelage.inference.label_choice import choose

STAGE = "evaluate"
_SEEDS_APART = 1_000_003  # engines add a row's place in its batch to the seed


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
    """Fill `journal` with each candidate's answers for each row of the task.

    Batches hold rows of like length and depend on the rows alone, so a run that was killed ends
    with the same batches as one that was not.
    """
    total, done = len(task.rows) * sum(len(_draws(task, c)) for c in candidates), 0
    groups = batches(task.rows, bench.batch_size)
    adapter: object = None
    for family in _families(candidates):
        for number, rows in enumerate(groups):
            for asked in _asks(task, family, number, rows):
                if any(journal.get(asked.candidate.name, r.id, asked.sample) is None for r in rows):
                    if adapter != family[0].adapter:
                        adapter = family[0].adapter
                        bench.engine.set_adapter(bench.adapter if adapter else None)
                    journal.append(_answer(asked, bench.engine))
                done += len(rows)
                bench.emit(Event(STAGE, "progress", asked.candidate.title, done, total))


def _families(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Return the candidates grouped by what they are asked with, each adapter's together.

    Those of a family differ in how they answer: an engine need not read their prompt twice.
    """
    found: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: c.adapter):
        key = (candidate.adapter, candidate.prompt, tuple(shot.id for shot in candidate.shots))
        found.setdefault(key, []).append(candidate)
    return list(found.values())


def _asks(
    task: Task, family: Sequence[Candidate], number: int, rows: Sequence[Example]
) -> Iterator[Asked]:
    """Yield what is asked about one batch: free text, the same from a list, then what is drawn."""
    for candidate in sorted(family, key=lambda c: c.mode != "free"):
        yield Asked(task, candidate, number, rows)
    for candidate in family:
        for sample in _draws(task, candidate)[1:]:
            yield Asked(task, candidate, number, rows, sample)


def _draws(task: Task, candidate: Candidate) -> range:
    """Return the answers a row that a candidate gives: the greedy one, then those drawn."""
    return range(task.samples + 1 if candidate.mode == "free" else 1)


@dataclass(frozen=True)
class Asked:
    """One batch for one candidate. `sample` 0 is greedy, later ones are drawn."""

    task: Task
    candidate: Candidate
    number: int
    rows: Sequence[Example]
    sample: int = 0


def batches(rows: Sequence[Example], size: int) -> list[list[Example]]:
    """Return the rows cut into batches of `size`, short ones first."""
    order = sorted(rows, key=lambda row: (len(row.input_text), row.id))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _answer(asked: Asked, engine: Engine) -> list[RowResult]:
    raw = [row for row in asked.rows if row.is_text]
    rows = [row for row in asked.rows if not row.is_text]
    return [
        *(_read(replace(asked, rows=raw), engine) if raw else []),
        *(_asked(replace(asked, rows=rows), engine) if rows else []),
    ]


def _read(asked: Asked, engine: Engine) -> list[RowResult]:
    """Note how likely raw texts are, from their second token on: there is nothing to answer."""
    if not hasattr(engine, "mean_nll"):
        found: Sequence[tuple[float, int] | None] = [None] * len(asked.rows)
    else:
        found = engine.mean_nll([row.answer or "" for row in asked.rows])
    return [
        RowResult(
            asked.candidate.name,
            row.id,
            "",
            "chosen",
            batch=asked.number,
            detail={"reference_nll": nll[0], "reference_tokens": nll[1]} if nll else {},
            sample=asked.sample,
        )
        for row, nll in zip(asked.rows, found, strict=True)
    ]


def _asked(asked: Asked, engine: Engine) -> list[RowResult]:
    prompts = [prompt_for(asked.candidate, row, asked.task) for row in asked.rows]
    if asked.candidate.mode == "constrained":
        return _choose(asked, engine, prompts)
    if asked.sample:
        prompts = [_drawn(prompt, asked) for prompt in prompts]
    completions = engine.generate(prompts)
    made = [
        from_completion(asked.candidate.name, row.id, completion, asked.number, asked.sample)
        for row, completion in zip(asked.rows, completions, strict=True)
    ]
    if asked.task.likelihood and not asked.sample:
        return _weighed(asked, engine, prompts, made)
    return made


def _drawn(prompt: Prompt, asked: Asked) -> Prompt:
    """Return the request with the task's temperature and a seed of its own."""
    changes = {"temperature": asked.task.temperature, "seed": _SEEDS_APART * asked.sample}
    return replace(prompt, decoding=prompt.decoding.model_copy(update=changes))


def _weighed(
    asked: Asked, engine: Engine, prompts: Sequence[Prompt], made: Sequence[RowResult]
) -> list[RowResult]:
    """Note how likely the reference is, in nats, and its tokens with the end of the turn.

    A service that shows no likelihoods is not asked.
    """
    if not hasattr(engine, "score_labels"):
        return list(made)
    count = asked.task.count_tokens or (lambda text: len(text.split()))
    weighed = []
    for row, prompt, result in zip(asked.rows, prompts, made, strict=True):
        reference = row.answer or ""
        nll = -float(engine.score_labels([prompt], [reference])[0, 0])
        detail = {
            **result.detail,
            "reference_nll": nll,
            "reference_tokens": count(reference) + 1,
        }
        weighed.append(replace(result, detail=detail))
    return weighed


def _choose(asked: Asked, engine: Engine, prompts: Sequence[Prompt]) -> list[RowResult]:
    """Pick the likeliest answer of each row's list; rows with one list are weighed together."""
    lists: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(asked.rows):
        lists.setdefault(asked.task.answers(row), []).append(place)
    chosen: dict[int, RowResult] = {}
    for answers, places in lists.items():
        group = replace(asked, rows=[asked.rows[place] for place in places])
        found = _pick(group, engine, [prompts[place] for place in places], answers)
        chosen.update(zip(places, found, strict=True))
    return [chosen[place] for place in range(len(asked.rows))]


def _pick(
    asked: Asked, engine: Engine, prompts: Sequence[Prompt], answers: Sequence[str]
) -> list[RowResult]:
    """Return the likeliest of `answers` a row.

    Its share of the list's probability lies between `detail.sure` and `detail.sure_most`:
    answers that can't win any more are not weighed to their end.
    """
    started = time.perf_counter()
    picked = choose(engine, prompts, answers)
    each_ms = (time.perf_counter() - started) * 1000 / len(asked.rows)
    return [
        RowResult(
            asked.candidate.name,
            row.id,
            answers[choice.best],
            "chosen",
            latency_ms=round(each_ms, 3),
            detail={"sure": round(choice.least, 4), "sure_most": round(choice.most, 4)},
        )
        for row, choice in zip(asked.rows, picked, strict=True)
    ]
