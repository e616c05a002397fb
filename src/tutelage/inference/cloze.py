"""Patterns and verbalisers (Schick & Schütze 2021, arXiv 2001.07676): a row put as a question
whose answer is the words of a label, and what several patterns together say about the labels.

Shared by training and inference, so that both put a row the same way. No model runs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.config import Cloze, Pattern
from tutelage.core.errors import ConfigError
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat, outside
from tutelage.inference.label_choice import log_softmax

CONTENT_FREE = ("N/A", "[MASK]", "")  # Zhao et al. 2021, arXiv 2102.09690, section 5
_WHERE = "train.cloze"


@dataclass(frozen=True)
class Form:
    """One pattern with its answers: `texts[w]` is an answer in the words of label `owners[w]`."""

    ask: str
    texts: tuple[str, ...]
    owners: tuple[int, ...]

    def wrap(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the turns with the last user turn put as this pattern puts it."""
        turns = list(messages)
        for place in reversed(range(len(turns))):
            if turns[place].role == "user":
                said = self.ask.replace("{text}", turns[place].content)
                turns[place] = turns[place].model_copy(update={"content": said})
                break
        return tuple(turns)

    def groups(self, labels: int) -> list[list[int]]:
        """Return which texts are of each label."""
        return [[w for w, owner in enumerate(self.owners) if owner == i] for i in range(labels)]


def default_patterns(output: OutputFormat) -> list[Pattern]:
    """Return the row as it is with the project's own answer, and one asked for in plain words."""
    what = (output.field or "label").replace("_", " ").replace("-", " ").strip() or "label"
    return [Pattern(), Pattern(ask=f"{{text}}\n\n{what.capitalize()}:", answer="{label}")]


def make_forms(cloze: Cloze, labels: Sequence[str], output: OutputFormat) -> list[Form]:
    """Return the patterns of the config, or the default ones, each with the labels' answers.

    Raises ConfigError if a verbaliser is of no label or of two, or if it is empty.
    """
    unknown = [name for name in cloze.verbalisers if name not in labels]
    if unknown:
        raise ConfigError(
            outside(unknown[0], labels),
            where=f"{_WHERE}.verbalisers",
            fix=f"Labels: {', '.join(labels[:8])}{' …' if len(labels) > 8 else ''}",
        )
    for name, words in cloze.verbalisers.items():
        if not words or any(not word.strip() for word in words):
            raise ConfigError(
                f"the label {name!r} has no words",
                where=f"{_WHERE}.verbalisers",
                fix="Give it a word, or remove the line: it then stands for itself",
            )
    return [
        _form(pattern, cloze.verbalisers, labels, output)
        for pattern in cloze.patterns or default_patterns(output)
    ]


def _form(
    pattern: Pattern,
    verbalisers: Mapping[str, list[str]],
    labels: Sequence[str],
    output: OutputFormat,
) -> Form:
    plain = _plain_words(labels)
    texts: dict[str, int] = {}
    for index, label in enumerate(labels):
        if pattern.answer is None:  # the project's own answer carries the label as it is
            answers = [output.render(label)]
        else:
            words = verbalisers.get(label, [plain[label]])
            answers = [pattern.answer.replace("{label}", word) for word in words]
        for answer in answers:
            if texts.setdefault(answer, index) != index:
                raise ConfigError(
                    f"the labels {labels[texts[answer]]!r} and {label!r} have the same words, "
                    f"{answer!r}",
                    where=f"{_WHERE}.verbalisers",
                    fix="Give each label words of its own",
                )
    return Form(pattern.ask, tuple(texts), tuple(texts.values()))


def _plain_words(labels: Sequence[str]) -> dict[str, str]:
    """Return the labels in plain words, or as they are if two would then be the same."""
    plain = {name: name.replace("_", " ").strip() or name for name in labels}
    return plain if len(set(plain.values())) == len(labels) else {name: name for name in labels}


def label_scores(values: NDArray[np.float64], form: Form, labels: int) -> NDArray[np.float64]:
    """Return log chances of the labels, (N, L), from the log-likelihoods of the texts, (N, W).

    A label with several words has their mean likelihood, so that no label gains by having many.
    """
    scores = np.stack(
        [np.logaddexp.reduce(values[:, g], axis=1) - np.log(len(g)) for g in form.groups(labels)],
        axis=1,
    )
    return log_softmax(scores)


def combine(
    scores: Sequence[NDArray[np.float64]],
    *,
    prior: Sequence[Sequence[float]] | None = None,
    temperature: float = 1.0,
) -> NDArray[np.float64]:
    """Return the log chances that all patterns give together: their mean in log space, (N, L).

    `prior` are each pattern's log chances without content, which are divided out.
    """
    if prior is not None:
        scores = [
            log_softmax(part - np.asarray(bias)[None])
            for part, bias in zip(scores, prior, strict=True)
        ]
    return log_softmax(np.mean(np.stack(list(scores)), axis=0) / temperature)


def form_settings(forms: Sequence[Form]) -> list[dict[str, Any]]:
    """Return the forms as JSON."""
    return [
        {"ask": form.ask, "texts": list(form.texts), "owners": list(form.owners)} for form in forms
    ]


def read_forms(settings: Sequence[Mapping[str, Any]]) -> list[Form]:
    """Return the forms that `form_settings` wrote."""
    return [Form(str(s["ask"]), tuple(s["texts"]), tuple(s["owners"])) for s in settings]
