"""Asks a teacher for drafts, keeps every answer as it comes, and stops at the budget.

Answers are appended to a journal before they are used: a job that was cut off asks only for what
it has no answer to. It does not decide what is believed (sift.py).
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.artifact import content_hash
from tutelage.core.example import Example
from tutelage.core.workspace import disk_errors
from tutelage.data.augment.base import Augmenter, Draft
from tutelage.inference.base import Completion, Generator, Prompt

_AT_ONCE = 16  # requests between two looks at the budget
_HOPS = 4  # requests one draft may take
_CHARS_PER_TOKEN = 4  # where a server reports no usage


@dataclass(frozen=True)
class Task:
    """One first request: the rows it shows, and a number that tells equal ones apart."""

    parents: tuple[Example, ...]
    number: int


@dataclass
class Journal:
    """Every answer so far, by request; on disk one JSON line each, durable before it is used."""

    path: Path
    answers: dict[str, str] = field(default_factory=dict)
    tokens: int = 0

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Return the journal at `path`; a line that a crash cut off is left out and asked again."""
        journal = cls(path)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with path.open("r+b") as stream:
                stream.truncate(len(whole))
        for line in whole.splitlines():
            entry = json.loads(line)
            journal.answers[entry["key"]] = entry["text"]
            journal.tokens += entry["tokens"]
        return journal

    def add(self, key: str, text: str, tokens: int) -> None:
        """Keep an answer and what it cost."""
        line = json.dumps({"key": key, "text": text, "tokens": tokens}, ensure_ascii=False)
        with disk_errors(self.path), self.path.open("ab") as stream:
            stream.write(line.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.answers[key] = text
        self.tokens += tokens


@dataclass
class Asker:
    """Answers from the journal, or from the teacher while the budget lasts."""

    generator: Generator
    journal: Journal
    limit: int  # tokens, those of earlier runs of this job included
    on_answer: Callable[[], None] = lambda: None
    failed: int = 0
    problem: str = ""

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.journal.tokens >= self.limit

    def ask(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """Return an answer a prompt, in order; None where the teacher failed or money ran out."""
        keys = [key_of(prompt) for prompt in prompts]
        todo = {
            key: prompt
            for key, prompt in zip(keys, prompts, strict=True)
            if key not in self.journal.answers
        }
        waiting = list(todo.items())
        for start in range(0, len(waiting), _AT_ONCE):
            if self.spent:
                break
            part = waiting[start : start + _AT_ONCE]

            def keep(index: int, done: Completion, part: Any = part) -> None:
                if done.finish_reason == "error":
                    self.failed += 1
                    self.problem = str(done.meta.get("problem", ""))
                else:
                    self.journal.add(part[index][0], done.text, _tokens(part[index][1], done))
                self.on_answer()

            self.generator.generate([prompt for _, prompt in part], keep)
        return [self.journal.answers.get(key) for key in keys]


def key_of(prompt: Prompt) -> str:
    """Return the name of a request in the journal: the hash of all that is sent."""
    turns = [turn.model_dump() for turn in prompt.messages]
    return content_hash([turns, prompt.decoding.model_dump()])[:32]


def run_tasks(
    augmenter: Augmenter, tasks: Sequence[Task], asker: Asker
) -> tuple[list[Draft], list[str]]:
    """Return the drafts of all tasks that were answered, and why the other answers were no use."""
    drafts: dict[int, list[Draft]] = defaultdict(list)
    unread: list[str] = []
    waiting = [
        (place, augmenter.ask(task.parents, task.number)) for place, task in enumerate(tasks)
    ]
    for hop in range(_HOPS):
        answers = asker.ask([prompt for _, prompt in waiting])
        following: list[tuple[int, Prompt]] = []
        for (place, _), text in zip(waiting, answers, strict=True):
            if text is None:
                continue
            try:
                taken = augmenter.take(tasks[place].parents, text, hop)
            except ValueError as error:
                unread.append(str(error))
                continue
            if isinstance(taken, Prompt):
                following.append((place, taken))
            else:
                drafts[place] += taken
        waiting = following
        if not waiting:
            break
    return [draft for place in sorted(drafts) for draft in drafts[place]], unread


def make_tasks(
    rows: Sequence[Example], shots: int, count: int, number: int, earlier: Sequence[Task] = ()
) -> list[Task]:
    """Return at most `count` tasks over the rows: labels take turns, the rarest first.

    With more than one shot a task shows rows of one label. `number` is the round: another one
    asks anew, rows without an `earlier` task first.
    """
    groups: dict[str | None, list[Example]] = defaultdict(list)
    for row in rows:
        groups[row.label].append(row)
    order = sorted(groups.values(), key=lambda group: (len(group), str(group[0].label)))
    asked = Counter(row.id for task in earlier for row in task.parents)
    for group in order:
        group.sort(key=lambda row: (asked[row.id], content_hash([row.id, number])))
    tasks: list[Task] = []
    turn = 0
    largest = max((len(group) for group in order), default=0)
    while len(tasks) < count and (turn < largest or (shots > 1 and order)):
        for group in order:
            if len(tasks) == count:
                break
            if shots == 1 and turn >= len(group):
                continue  # every row of a small group has its task
            start = (turn * shots) % len(group)
            shown = [group[(start + k) % len(group)] for k in range(min(shots, len(group)))]
            tasks.append(Task(tuple(shown), number * 1000 + turn))
        turn += 1
    return tasks


def _tokens(prompt: Prompt, done: Completion) -> int:
    total = done.usage.prompt_tokens + done.usage.completion_tokens
    if total:
        return total
    text = sum(len(turn.content) for turn in prompt.messages) + len(done.text)
    return text // _CHARS_PER_TOKEN + 1
