"""Who is compared: the base model bare and with examples, the tuned one, and how each answers.

Few-shot examples come from the train split only, are chosen without looking at the test rows,
and are the same in every run.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tutelage.core.example import Example, Message
from tutelage.evaluation.task import Task
from tutelage.inference.base import Prompt
from tutelage.inference.chat import conversation, neutralise

Mode = Literal["free", "constrained"]
Answers = Literal["both", "free", "list"]
BASE, FEW_SHOT, TUNED = "base", "few_shot", "tuned"
STABLE = "stable"
TFIDF = "tfidf"
CONSTRAINED = "_constrained"


@dataclass(frozen=True)
class Candidate:
    """One way to answer. `free` writes text as production does; `constrained` picks a label.

    `adapter` asks for the bench's tuned weights; without a prompt of its own a candidate is asked
    with the task's.
    """

    name: str
    title: str
    shots: tuple[Example, ...] = ()
    adapter: bool = False
    mode: Mode = "free"
    prompt: str | None = None


def make_candidates(
    task: Task, *, few_shot: int, tuned: bool, answers: Answers = "both"
) -> list[Candidate]:
    """Return the candidates: free ones first, then the same with the label list enforced."""
    shots = pick_shots(task.train, few_shot)
    named = [Candidate(BASE, "base model, zero-shot")]
    if shots:
        named.append(Candidate(FEW_SHOT, f"base model, {len(shots)} examples", shots))
    if tuned:
        named.append(Candidate(TUNED, "tuned model", adapter=True))
    return shaped(task, named, answers)


def shaped(task: Task, named: Sequence[Candidate], answers: Answers) -> list[Candidate]:
    """Return the candidates as they are to answer: freely, held to the label list, or both.

    Where there is no list they answer freely. Those that are only held to it keep their names.
    """
    if not task.labels or answers == "free":
        return list(named)
    held = [with_list(candidate) for candidate in named]
    if answers == "list":
        return [replace(one, name=own.name) for one, own in zip(held, named, strict=True)]
    return [*named, *held]


def with_list(candidate: Candidate) -> Candidate:
    """Return the candidate held to the label list."""
    name, title = candidate.name + CONSTRAINED, f"{candidate.title}, label list"
    return replace(candidate, name=name, title=title, mode="constrained")


def pick_shots(train: Sequence[Example], count: int) -> tuple[Example, ...]:
    """Return up to `count` train rows, spread over labels, the most frequent labels first.

    Rows over twice the median length are passed over. Ties fall by a hash of the row, so the
    choice looks random and never changes.
    """
    usable = [row for row in train if row.answer is not None]
    if not usable or count < 1:
        return ()
    lengths = sorted(len(row.input_text) for row in usable)
    limit = 2 * lengths[len(lengths) // 2]
    by_label: dict[str, list[Example]] = defaultdict(list)
    for row in sorted(usable, key=_order):
        if len(row.input_text) <= limit:
            by_label[row.label or ""].append(row)
    labels = sorted(by_label, key=lambda name: (-len(by_label[name]), _digest(name)))
    picked: list[Example] = []
    while len(picked) < count and any(by_label.values()):
        for label in labels:
            if by_label[label] and len(picked) < count:
                picked.append(by_label[label].pop(0))
    return tuple(sorted(picked, key=_order))


def prompt_for(candidate: Candidate, row: Example, task: Task) -> Prompt:
    """Return the request: system message, the shots as finished turns, then the row."""
    prompt = task.prompt if candidate.prompt is None else candidate.prompt
    turns = conversation(row, prompt, task.specials)
    head = turns[:1] if turns and turns[0].role == "system" else ()
    shots: list[Message] = []
    for shot in candidate.shots:
        shown = conversation(shot, "", task.specials)
        shots += [turn for turn in shown if turn.role != "system"]
        answer = neutralise(shot.answer or "", task.specials)
        shots.append(Message(role="assistant", content=answer))
    return Prompt((*head, *shots, *turns[len(head) :]), task.decoding)


def _order(row: Example) -> str:
    return _digest(row.id)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
