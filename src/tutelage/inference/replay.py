"""Recorded answers in place of a model: for tests, and for judging answers made elsewhere.

It computes nothing: a request without a recorded answer is an error, never an invention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import ModelError
from tutelage.inference.base import Completion, OnDone, Prompt, Usage

Answers = Mapping[str, str] | Callable[[Prompt], str]
_SURE = 8.0  # how much likelier, in nats, the recorded answer is than any other


class ReplayGenerator:
    """Gives the recorded answer for the last user message, cut at `max_tokens` words."""

    def __init__(self, answers: Answers, *, latency_ms: float = 1.0) -> None:
        self._answers = answers
        self._latency_ms = latency_ms

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None = None
    ) -> list[Completion]:
        """Return one completion a prompt, in order; tokens are counted as words.

        Raises ModelError if nothing is recorded for a prompt.
        """
        completions = []
        for index, prompt in enumerate(prompts):
            completion = self._one(prompt)
            completions.append(completion)
            if on_done:
                on_done(index, completion)
        return completions

    def score_labels(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, whole: bool = True
    ) -> NDArray[np.float64]:
        """Return log p, shape (N, L): the recorded answer is likeliest, the others are equal."""
        del whole
        recorded = [self._text(prompt) for prompt in prompts]
        raw = np.array([[_SURE if a == text else 0.0 for a in answers] for text in recorded])
        raw = raw.reshape(len(prompts), len(answers))
        total = np.log(np.exp(raw).sum(axis=1, keepdims=True))
        return np.asarray(raw - total, dtype=np.float64)

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def _one(self, prompt: Prompt) -> Completion:
        words = self._text(prompt).split(" ")
        kept = words[: prompt.decoding.max_tokens]
        usage = Usage(sum(len(m.content.split()) for m in prompt.messages), len(kept))
        reason = "stop" if len(kept) == len(words) else "length"
        return Completion(" ".join(kept), reason, usage, self._latency_ms, self._latency_ms)

    def _text(self, prompt: Prompt) -> str:
        if callable(self._answers):
            return self._answers(prompt)
        key = next((m.content for m in reversed(prompt.messages) if m.role == "user"), "")
        if key not in self._answers:
            raise ModelError(
                f"no answer is recorded for {key[:60]!r}",
                fix="Record one for every row, or generate with a model",
            )
        return self._answers[key]
