"""What is asked of every candidate: the test rows, the prompt, the shape of answers, the metrics.

A Task is made once and never changes during an evaluation, so all candidates answer the same
questions under the same limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tutelage.core.config import Project
from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.base import Scorer, make_scorer
from tutelage.inference.base import Decoding

ANSWER_MARGIN = 8  # tokens a candidate may write beyond the longest reference answer of train
_BESIDE = {
    "classification": ("valid_output", "exact_match"),
    "extraction": ("valid_output", "exact_match", "token_f1"),
    "qa": ("exact_match", "chrf"),
    "summarization": ("token_f1",),
    "generation": ("token_f1",),
    "code": ("chrf",),
}


@dataclass(frozen=True)
class Task:
    """One evaluation's questions. `clusters` names what belongs together, one a test row."""

    rows: tuple[Example, ...]
    train: tuple[Example, ...]
    clusters: tuple[str, ...]
    prompt: str
    output: OutputFormat
    kind: str
    primary: str
    metrics: tuple[str, ...]  # the primary first
    decoding: Decoding
    specials: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels a classifier may choose from: the closed list, else those seen in train."""
        if self.kind != "classification":
            return ()
        if self.output.labels:
            return self.output.labels
        return tuple(sorted({row.label for row in self.train if row.label is not None}))

    def scorers(self, project: Project) -> dict[str, Scorer]:
        """Return a scorer for each metric; an unknown name is a ConfigError."""
        schema = project.output.json_schema
        return {name: make_scorer(name, self.output, schema) for name in self.metrics}


def make_task(
    project: Project,
    train: Sequence[Example],
    test: Sequence[Example],
    cluster_of: Callable[[str], str],
    count_tokens: Callable[[str], int],
) -> Task:
    """Return the task of a project over a frozen split.

    `count_tokens` measures the train answers: a candidate may write the longest of them plus
    ANSWER_MARGIN tokens unless the config says otherwise. Raises DataError without test rows.
    """
    rows = tuple(row for row in test if row.answer is not None)
    if not rows:
        raise DataError(
            "the test split has no row with a reference answer",
            fix="Add rows, or raise data.splits.test, and run `tutelage run` again",
        )
    limit = project.evaluate.max_new_tokens
    if limit is None:
        longest = max((count_tokens(row.answer) for row in train if row.answer), default=56)
        limit = longest + ANSWER_MARGIN
    primary = project.primary_metric
    beside = [name for name in _BESIDE.get(project.task, ()) if name != primary]
    return Task(
        rows=rows,
        train=tuple(train),
        clusters=tuple(cluster_of(row.id) for row in rows),
        prompt=project.prompt,
        output=project.output.format(),
        kind=project.task,
        primary=primary,
        metrics=(primary, *beside),
        decoding=Decoding(max_tokens=limit),
    )


def with_specials(task: Task, specials: Sequence[str]) -> Task:
    """Return the task knowing the tokenizer's control tokens, which rows may not spell."""
    return replace(task, specials=tuple(specials))
