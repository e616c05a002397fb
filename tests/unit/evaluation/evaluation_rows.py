"""Rows and tasks that the evaluation tests share."""

from __future__ import annotations

from tutelage.core.config import Project
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.evaluation.task import Task, make_task

LABELS = ("warm", "cold")
FORMAT = OutputFormat(field="family", labels=LABELS)
PROJECT = Project.model_validate(
    {
        "name": "colours",
        "task": "classification",
        "model": "demo",
        "prompt": "Name the colour family.",
        "output": {"field": "family", "labels": list(LABELS)},
        "evaluate": {"batch_size": 4},
    }
)


def example(text: str, label: str) -> Example:
    return Example(
        messages=(
            Message(role="user", content=text),
            Message(role="assistant", content=FORMAT.render(label)),
        ),
        label=label,
    )


def examples(prefix: str, count: int) -> list[Example]:
    return [example(f"{prefix} thing number {i}", LABELS[i % 2]) for i in range(count)]


def colour_task(train: int = 12, test: int = 10) -> Task:
    return make_task(
        PROJECT,
        examples("old", train),
        examples("new", test),
        lambda item: item,
        lambda text: len(text.split()),
    )


def right_answers(task: Task) -> dict[str, str]:
    return {row.input_text: row.answer or "" for row in task.rows}
