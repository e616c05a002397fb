"""Picks a label by how likely its words are to follow each of several patterns.

The words are weighed as a trie by TransformersGenerator, with what rows share computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.inference.base import Prompt
from tutelage.inference.cloze import Form, combine, label_scores, read_forms
from tutelage.inference.label_choice import LabelChoice
from tutelage.inference.transformers_render import render
from tutelage.inference.tuned import Tuned


class ClozeChoice(LabelChoice):
    """`settings`: labels, answers, forms, prior (log chances a pattern, or None), temperature."""

    def __init__(self, model: Any, tokenizer: Any, tuned: Tuned) -> None:
        from tutelage.inference.transformers import TransformersGenerator

        settings = tuned.settings
        super().__init__(tokenizer, settings["labels"], settings["answers"])
        self._forms = read_forms(settings["forms"])
        self._prior = settings.get("prior")
        self._temperature = float(settings.get("temperature", 1.0))
        self._generator = TransformersGenerator.over(model, tokenizer)

    def log_chances(self, prompts: Sequence[Prompt]) -> tuple[NDArray[np.float64], list[int]]:
        """Return log p(label | prompt) over all patterns, and the tokens read for each row."""
        if not prompts:
            return np.zeros((0, len(self.labels))), []
        scores = form_scores(self._generator, self._forms, prompts, len(self.labels))
        logs = combine(scores, prior=self._prior, temperature=self._temperature)
        return logs, [self._tokens(prompt) for prompt in prompts]

    def _tokens(self, prompt: Prompt) -> int:
        return sum(
            len(render(self._tokenizer, form.wrap(prompt.messages)).prompt_ids)
            for form in self._forms
        )


def form_scores(
    generator: Any, forms: Sequence[Form], prompts: Sequence[Prompt], labels: int
) -> list[NDArray[np.float64]]:
    """Return each pattern's log chances of the labels, (N, L).

    What all answers of a pattern end in is not weighed: it follows any of them.
    """
    found = []
    for form in forms:
        asked = [Prompt(form.wrap(prompt.messages), prompt.decoding) for prompt in prompts]
        values = generator.score_labels(asked, form.texts, whole=False)
        found.append(label_scores(values, form, labels))
    return found
