"""Answers by picking one of a closed list of labels; what the labels weigh is the subclass's.

The text of an answer is the rendered label, so whatever reads a written answer reads this one too.
No torch here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.inference.base import Completion, Prompt, Usage


@dataclass(frozen=True)
class Choice:
    """The likeliest answer of a list: its place, log p (natural), and its share of the list's
    whole probability, which lies between `least` and `most`."""

    best: int
    log_p: float
    least: float
    most: float


def choices_of(scores: NDArray[np.float64]) -> list[Choice]:
    """Return the likeliest answer of each row from log p of all answers, (N, L)."""
    chances = np.exp(log_softmax(scores))
    best = scores.argmax(axis=1)
    return [
        Choice(int(b), float(row[b]), float(share[b]), float(share[b]))
        for b, row, share in zip(best, scores, chances, strict=True)
    ]


def choose(engine: Any, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Choice]:
    """Return the likeliest of `answers` a prompt, the shortest way the engine knows.

    `engine` is a LabelScorer. What all answers end in is not weighed, as usual for multiple choice
    by likelihood (Gao et al., lm-evaluation-harness); an engine that weighs whole lists may look
    at the first token of it.
    """
    if hasattr(engine, "choose_labels"):
        found: list[Choice] = engine.choose_labels(prompts, answers, ended=False)
        return found
    return choices_of(np.asarray(engine.score_labels(prompts, answers, whole=False)))


class LabelChoice(ABC):
    """`labels` and their `answers`, the texts they are rendered as, are in one order."""

    def __init__(self, tokenizer: Any, labels: Sequence[str], answers: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self.labels, self.answers = list(labels), list(answers)
        self._place = {answer: index for index, answer in enumerate(self.answers)}

    @abstractmethod
    def log_chances(self, prompts: Sequence[Prompt]) -> tuple[NDArray[np.float64], list[int]]:
        """Return log p(label | prompt), natural log, (N, L), and the tokens read for each row."""

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Return the likeliest label's answer a prompt; `meta` has the label and its chance."""
        if not prompts:
            return []
        started = time.perf_counter()
        logs, read = self.log_chances(prompts)
        spent = (time.perf_counter() - started) * 1000
        made = []
        for row, tokens in zip(logs, read, strict=True):
            best = int(row.argmax())
            answer = self.answers[best]
            made.append(
                Completion(
                    text=answer,
                    finish_reason="stop",
                    usage=Usage(tokens, self.count_tokens(answer)),
                    latency_ms=spent,
                    first_token_ms=spent,
                    meta={
                        "label": self.labels[best],
                        "probability": round(float(np.exp(row[best])), 6),
                    },
                )
            )
        return made

    def score_labels(
        self, prompts: Sequence[Prompt], answers: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return log p(answer | prompt), (N, L'); -inf for what is no label's answer."""
        logs, _ = self.log_chances(prompts)
        found = np.full((len(prompts), len(answers)), -np.inf)
        for column, answer in enumerate(answers):
            place = self._place.get(answer)
            if place is not None:
                found[:, column] = logs[:, place]
        return found


def log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `scores` as log chances over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    chances: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return chances
