"""What classifiers learn from: the closed list of labels, each row's place in it, its weight.

Nothing is encoded and no model runs here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.inference.chat import conversation
from tutelage.training.job import TrainingJob

_NAMED = 3


@dataclass(frozen=True)
class Labelled:
    """One row: the turns before the answer, and its label's place in the list."""

    id: str
    turns: tuple[Message, ...]
    index: int


def labels_of(job: TrainingJob) -> tuple[str, ...]:
    """Return the project's closed list, or else the labels of the train rows, sorted.

    Raises DataError if there are fewer than two.
    """
    labels = job.output.labels
    if not labels:
        labels = tuple(sorted({row.label for row in job.train if row.label is not None}))
    if len(labels) < 2:
        have = f"only the label {labels[0]!r}" if labels else "no label"
        raise DataError(
            f"the train rows have {have}, and {job.recipe.method} needs two to choose from",
            fix="Set task: classification so that answers are read as labels, or list them in "
            "output.labels; for free text take train.method: lora",
        )
    return labels


def labelled(
    examples: Sequence[Example],
    labels: Sequence[str],
    output: OutputFormat,
    prompt: str,
    specials: Sequence[str],
) -> tuple[list[Labelled], dict[str, str]]:
    """Return the rows with a label of the list, and why the others are left out, by id."""
    place = {label: index for index, label in enumerate(labels)}
    rows: list[Labelled] = []
    rejected: dict[str, str] = {}
    for example in examples:
        label = example.label
        if label is None and example.answer:
            label = output.parse(example.answer).label
        if label is None:
            rejected[example.id] = "no label"
        elif label not in place:
            rejected[example.id] = f"{label[:40]!r} is not one of the labels"
        else:
            rows.append(Labelled(example.id, conversation(example, prompt, specials), place[label]))
    return rows, rejected


def require_rows(rows: Sequence[Labelled], rejected: dict[str, str]) -> None:
    """Raise DataError, naming rows, if no train row has a label of the list."""
    if rows:
        return
    ids = ", ".join(list(rejected)[:_NAMED])
    reasons = "; ".join(sorted(set(rejected.values()))[:_NAMED])
    raise DataError(
        f"no train row has a label to learn ({reasons or 'there are no rows'})",
        where=f"rows {ids}" if ids else "",
        fix="Give the rows labels, or correct output.labels",
    )


def class_weights(rows: Sequence[Labelled], labels: int, kind: str) -> list[float]:
    """Return each label's weight in the loss, (L,).

    balanced: rows / (labels seen · rows of the label), whose mean over the rows is 1 (King & Zeng
    2001, section 4.2); labels without rows get 1.
    """
    if kind != "balanced":
        return [1.0] * labels
    counts = Counter(row.index for row in rows)
    return [
        len(rows) / (len(counts) * counts[index]) if counts[index] else 1.0
        for index in range(labels)
    ]
