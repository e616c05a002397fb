"""An evaluation engine without a model: recorded answers, made-up likelihoods, and a log of use.

`base` and `tuned` are the answers by last user message; the adapter's path decides which speak.
`others` are the answers of more adapters, by the name of their folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.inference.base import Completion, OnDone, Prompt
from tutelage.inference.replay import ReplayGenerator


class FakeEngine:
    """Answers from two tables. `dies_after` calls of generate it raises KeyboardInterrupt."""

    def __init__(
        self,
        base: Mapping[str, str],
        tuned: Mapping[str, str],
        *,
        tuned_nll: float = 1.0,
        dies_after: int | None = None,
        others: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._base, self._tuned = ReplayGenerator(base), ReplayGenerator(tuned)
        self._others = {name: ReplayGenerator(given) for name, given in (others or {}).items()}
        self.adapter: Path | None = None
        self.tuned_nll = tuned_nll
        self.dies_after = dies_after
        self.calls: list[tuple[str, list[str]]] = []  # ("base" | "tuned", last user messages)
        self.prompts: list[Prompt] = []
        self.closed = False

    @property
    def _now(self) -> ReplayGenerator:
        if self.adapter is None:
            return self._base
        return self._others.get(self.adapter.name, self._tuned)

    def set_adapter(self, path: Path | None) -> None:
        self.adapter = path

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None = None
    ) -> list[Completion]:
        if self.dies_after is not None and len(self.calls) >= self.dies_after:
            raise KeyboardInterrupt
        asked = [prompt.messages[-1].content for prompt in prompts]
        self.calls.append(("tuned" if self.adapter else "base", asked))
        self.prompts += prompts
        return self._now.generate(prompts, on_done)

    def score_labels(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, whole: bool = True
    ) -> NDArray[np.float64]:
        return self._now.score_labels(prompts, answers)

    def mean_nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Longer texts are less likely; `tuned_nll` scales the tuned model's."""
        scale = self.tuned_nll if self.adapter else 1.0
        return [(len(text) * 0.1 * scale, max(1, len(text.split()))) for text in texts]

    def close(self) -> None:
        self.closed = True
