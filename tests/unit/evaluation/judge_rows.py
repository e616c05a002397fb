"""Rows, rubrics and judges that the tests of judges share."""

from __future__ import annotations

from pathlib import Path

from tutelage.core.example import Example, Message
from tutelage.evaluation.judges.asker import Judge, Limits
from tutelage.evaluation.judges.rubric import Criterion, Rubric
from tutelage.inference.base import Decoding
from tutelage.inference.openai import OpenAIGenerator
from tutelage.store.base import Store, open_store

LEVELS = ("useless", "poor", "good", "perfect")
CORRECT = Criterion("correct", "Is the answer correct?", LEVELS)
CLEAR = Criterion("clear", "Is the answer clear?", ("no", "yes"))
RUBRIC = Rubric("pointwise", (CORRECT, CLEAR), True, "Answer the customer.")
DUEL = Rubric("pairwise", (CORRECT, CLEAR), True, "Answer the customer.")
LIMITS = Limits(Decoding(max_tokens=32), concurrency=1, tokens=10_000_000)


def row(number: int, reference: str = "the right answer") -> Example:
    return Example(
        messages=(
            Message(role="user", content=f"question number {number}"),
            Message(role="assistant", content=reference),
        )
    )


def rows(count: int) -> list[Example]:
    return [row(number) for number in range(count)]


def judge_at(url: str, model: str = "judge", concurrency: int = 1) -> Judge:
    def opened() -> OpenAIGenerator:
        return OpenAIGenerator(
            url, model, concurrency=concurrency, retries=1, first_wait_s=0.001, timeout_s=60
        )

    return Judge(model, f"{model} at {url}", opened)


def new_store(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'store.db'}")
