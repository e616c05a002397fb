"""What is asked of every candidate: the test rows, the prompt, the shape of answers, the metrics.

A Task is made once and never changes during an evaluation, so all candidates answer the same
questions under the same limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tutelage.core.config import Project
from tutelage.core.errors import DataError
from tutelage.core.events import Emit, silent
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.asked import make_scorers, traits
from tutelage.evaluation.scorers.base import Place, Scorer
from tutelage.inference.base import Decoding

ANSWER_MARGIN = 8  # tokens a candidate may write beyond the longest reference answer of train
_BESIDE = {
    "classification": ("accuracy", "valid_output", "exact_match"),
    "extraction": ("valid_output", "exact_match", "token_f1"),
    "qa": ("exact_match", "chrf"),
    "summarization": ("rouge", "token_f1"),
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
    samples: int = 0  # answers drawn a row besides the greedy one
    temperature: float = 0.8  # of those
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by id: its answers
    likelihood: bool = False  # a metric reads how likely the reference is
    count_tokens: Callable[[str], int] | None = field(default=None, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """What a candidate may be held to choose from; empty where answers are free.

        A classifier's closed list, else the labels seen in train; all choices of all rows where
        each row brings its own.
        """
        if self.kind != "classification":
            return tuple(sorted({choice for own in self.choices.values() for choice in own}))
        if self.output.labels:
            return self.output.labels
        return tuple(sorted({row.label for row in self.train if row.label is not None}))

    def answers(self, row: Example) -> tuple[str, ...]:
        """Return the texts that a candidate held to a list may answer this row with."""
        if self.kind != "classification" and row.id in self.choices:
            return self.choices[row.id]
        return tuple(self.output.render(label) for label in self.labels)

    def scorers(
        self, project: Project, root: Path | None = None, emit: Emit = silent
    ) -> dict[str, Scorer]:
        """Return a scorer for each metric. `root` is the project's folder.

        Raises ConfigError for an unknown name or an option that can't be used.
        """
        place = Place(
            self.output, project.output.json_schema, root, self.samples, self.count_tokens,
            emit=emit,
        )  # fmt: skip
        return make_scorers(project, self.metrics, place)


def metrics_of(project: Project) -> tuple[str, ...]:
    """Return the names of a project's metrics: the primary, those of its task, those asked for."""
    beside = _BESIDE.get(project.task, ())
    shown = [given if isinstance(given, str) else str(given.get("as", given["name"]))
             for given in project.evaluate.scorers]  # fmt: skip
    return tuple(dict.fromkeys((project.primary_metric, *beside, *shown)))


def check_scorers(project: Project, root: Path) -> dict[str, str]:
    """Build every scorer of a project; return the hashes of the files they read, by metric.

    Called before a model is loaded, so that a wrong option costs no time. Raises ConfigError.
    """
    settings = project.evaluate
    place = Place(project.output.format(), project.output.json_schema, root, settings.samples, len)
    made = make_scorers(project, metrics_of(project), place)
    found = {name: str(getattr(scorer, "fingerprint", "")) for name, scorer in made.items()}
    return {name: digest for name, digest in found.items() if digest}


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
    kinds = traits(project, metrics_of(project), rows)
    return Task(
        rows=rows,
        train=tuple(train),
        clusters=tuple(cluster_of(row.id) for row in rows),
        prompt=project.prompt,
        output=project.output.format(),
        kind=project.task,
        primary=project.primary_metric,
        metrics=metrics_of(project),
        decoding=Decoding(max_tokens=limit),
        samples=project.evaluate.samples,
        temperature=project.evaluate.temperature,
        choices=kinds.choices,
        likelihood=kinds.likelihood,
        count_tokens=count_tokens,
    )


def with_specials(task: Task, specials: Sequence[str]) -> Task:
    """Return the task knowing the tokenizer's control tokens, which rows may not spell."""
    return replace(task, specials=tuple(specials))
