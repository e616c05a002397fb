"""Puts questions to judges: what was answered before is read from the store, the rest is asked.

Each verdict is in the store before the next look at the budget, so a run that was killed asks
nothing twice. The budget covers all verdicts that a run rests on, those of earlier runs included:
it stops before it is exceeded, and a larger one goes on from there. A reply that can't be read is
asked for once more, then kept as no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from tutelage.core.errors import ModelError
from tutelage.core.events import Emit, Event, silent
from tutelage.evaluation.judges.questions import Question
from tutelage.evaluation.judges.replies import read_reply
from tutelage.inference.base import Completion, Decoding, Generator
from tutelage.store.base import Store
from tutelage.store.judgements import JudgeVerdictRow

STAGE = "judge"
ATTEMPTS = 2  # replies to a question, if the first can't be read
_AT_ONCE = 4  # requests between two looks at the budget, for each that may be under way
_KEYS = 400  # names in one query
_BYTES_PER_TOKEN = 3  # of UTF-8, where nothing is known of a server's count: English has 4


@dataclass(frozen=True)
class Judge:
    """One model that judges. `prices` are money a token (prompt, completion), None: unknown."""

    name: str  # the model's, as people say it
    id: str  # model and address: what trust and verdicts are kept under
    open: Callable[[], Generator]  # called when the first question has to be asked
    prices: tuple[float, float] | None = None


@dataclass(frozen=True)
class Limits:
    """How a judge is asked and what all verdicts of an evaluation may cost."""

    decoding: Decoding = Decoding()
    concurrency: int = 8
    tokens: int = 1_000_000
    money: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What a judge said: an outcome with its reason, or None and why not."""

    outcome: str | None
    reason: str = ""
    problem: str = ""


@dataclass
class Spent:
    """What the verdicts cost, and how asking ended. `stopped` says why before the end, if so."""

    tokens: int = 0
    money: float = 0.0
    asked: int = 0  # requests that were sent now
    kept: int = 0  # verdicts that were there already
    failed: int = 0  # requests without a reply
    unread: int = 0  # questions whose replies could not be read
    left: int = 0  # questions that were not asked
    stopped: str | None = None


@dataclass
class Verdicts:
    """All that is known: by judge id and question."""

    found: dict[tuple[str, Question], Verdict] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)

    def of(self, judge: Judge, question: Question) -> Verdict:
        """Return a judge's verdict on a question; one without an outcome if there is none."""
        return self.found.get((judge.id, question), NOT_ASKED)


NOT_ASKED = Verdict(None, problem="the judge was not asked")


class Asker:
    """One run over a list of questions and the judges of a panel."""

    def __init__(
        self, store: Store, judges: Sequence[Judge], limits: Limits, emit: Emit = silent
    ) -> None:
        self._store, self._judges, self._limits, self._emit = store, judges, limits, emit
        self._verdicts = Verdicts()
        self._total = self._done = 0

    def recall(self, questions: Sequence[Question]) -> Verdicts:
        """Return what the store holds on the questions; nobody is asked."""
        for judge in self._judges:
            self._verdicts.spent.left += len(self._known(judge, list(dict.fromkeys(questions))))
        return self._verdicts

    def ask(self, questions: Sequence[Question]) -> Verdicts:
        """Return the judges' verdicts on the questions, as far as the budget goes.

        Raises ModelError if a judge refuses or answers nothing at all.
        """
        questions = list(dict.fromkeys(questions))
        waiting = {judge.id: self._known(judge, questions) for judge in self._judges}
        spent = self._verdicts.spent
        self._total = len(questions) * len(self._judges)
        self._done = self._total - sum(len(left) for left in waiting.values())
        self._tell()
        generators: dict[str, Generator] = {}
        try:
            while any(waiting.values()) and spent.stopped is None:
                for judge in self._judges:
                    if waiting[judge.id] and spent.stopped is None:
                        generator = generators.get(judge.id) or judge.open()
                        generators[judge.id] = generator
                        waiting[judge.id] = self._part(judge, generator, waiting[judge.id])
        finally:
            for generator in generators.values():
                generator.close()
        spent.left = sum(len(left) for left in waiting.values())
        return self._verdicts

    def _known(self, judge: Judge, questions: Sequence[Question]) -> list[tuple[Question, int]]:
        """Take up what the store holds; return the questions that are open, with the attempt."""
        names = {
            (question, attempt): self._key(judge, question, attempt)
            for question in questions
            for attempt in range(ATTEMPTS)
        }
        rows = self._read(names.values())
        waiting = []
        for question in questions:
            for attempt in range(ATTEMPTS):
                row = rows.get(names[question, attempt])
                if row is None:
                    waiting.append((question, attempt))
                    break
                self._cost(judge, row)
                if self._settle(judge, question, row, attempt):
                    self._verdicts.spent.kept += 1
                    break
        return waiting

    def _key(self, judge: Judge, question: Question, attempt: int) -> str:
        return question.key(judge.id, self._decoding(attempt))

    def _decoding(self, attempt: int) -> Decoding:
        """Return the settings of an attempt: the second one draws anew."""
        return self._limits.decoding.model_copy(update={"seed": attempt})

    def _read(self, keys: Iterable[str]) -> Mapping[str, JudgeVerdictRow]:
        names, found = list(keys), {}
        with self._store.session() as session:
            for start in range(0, len(names), _KEYS):
                part = names[start : start + _KEYS]
                asked = select(JudgeVerdictRow).where(JudgeVerdictRow.key.in_(part))
                found.update({row.key: row for row in session.scalars(asked)})
        return found

    def _part(
        self, judge: Judge, generator: Generator, waiting: list[tuple[Question, int]]
    ) -> list[tuple[Question, int]]:
        """Ask as many as the budget lets; return what is still open."""
        size = self._affordable(judge, waiting[: self._limits.concurrency * _AT_ONCE])
        if size < 1:
            self._stop(judge)
            return waiting
        part, rest = waiting[:size], waiting[size:]
        again: list[tuple[Question, int]] = []
        problems: list[str] = []

        def keep(index: int, completion: Completion) -> None:
            question, attempt = part[index]
            self._verdicts.spent.asked += 1
            if completion.finish_reason == "error":
                problem = str(completion.meta.get("problem", "no reply"))
                problems.append(problem)
                self._verdicts.spent.failed += 1
                self._verdicts.found[judge.id, question] = Verdict(None, problem=problem)
            elif not self._take(judge, question, attempt, completion):
                again.append((question, attempt + 1))
                return
            self._done += 1
            self._tell()

        prompts = [question.prompt(self._decoding(attempt)) for question, attempt in part]
        generator.generate(prompts, keep)
        if len(problems) == len(part):
            raise ModelError(
                f"the judge {judge.name} answers nothing ({problems[-1]})",
                where=judge.id,
                fix="Check that it runs, and run the same command again; its verdicts are kept",
            )
        return again + rest

    def _take(self, judge: Judge, question: Question, attempt: int, completion: Completion) -> bool:
        """Keep a reply in the store; return whether it settles the question."""
        outcome, problem = None, ""
        try:
            if completion.finish_reason == "length":
                raise ValueError("the reply was cut off")
            outcome = read_reply(completion.text, question.field, question.allowed)[0]
        except ValueError as error:
            problem = str(error)[:300]
        usage = completion.usage
        row = JudgeVerdictRow(
            key=self._key(judge, question, attempt), judge=judge.id, criterion=question.criterion,
            item=question.item, outcome=outcome, reply=completion.text, problem=problem,
            prompt_tokens=usage.prompt_tokens or estimate(question),
            completion_tokens=usage.completion_tokens or len(completion.text) // _BYTES_PER_TOKEN,
        )  # fmt: skip
        with self._store.begin() as session:
            session.merge(row)
        self._cost(judge, row)
        return self._settle(judge, question, row, attempt)

    def _settle(self, judge: Judge, question: Question, row: JudgeVerdictRow, attempt: int) -> bool:
        """Take a kept reply as the verdict, unless it may still be asked for again."""
        if row.outcome is not None:
            reason = read_reply(row.reply, question.field, question.allowed)[1]
            self._verdicts.found[judge.id, question] = Verdict(row.outcome, reason)
            return True
        self._verdicts.found[judge.id, question] = Verdict(None, problem=row.problem)
        if attempt + 1 < ATTEMPTS:
            return False
        self._verdicts.spent.unread += 1
        return True

    def _cost(self, judge: Judge, row: JudgeVerdictRow) -> None:
        spent = self._verdicts.spent
        spent.tokens += row.prompt_tokens + row.completion_tokens
        if judge.prices:
            spent.money += row.prompt_tokens * judge.prices[0]
            spent.money += row.completion_tokens * judge.prices[1]

    def _affordable(self, judge: Judge, waiting: Sequence[tuple[Question, int]]) -> int:
        """Return how many of these the budget pays for, each reply as long as it may be."""
        reply = self._limits.decoding.max_tokens
        tokens = self._limits.tokens - self._verdicts.spent.tokens
        money = math.inf
        if self._limits.money is not None and judge.prices is not None:
            money = self._limits.money - self._verdicts.spent.money
        for count, (question, _) in enumerate(waiting):
            prompt = estimate(question)
            tokens -= prompt + reply
            if judge.prices is not None:
                money -= prompt * judge.prices[0] + reply * judge.prices[1]
            if tokens < 0 or money < 0:
                return count
        return len(waiting)

    def _stop(self, judge: Judge) -> None:
        spent = self._verdicts.spent
        budget = f"{self._limits.tokens:,} tokens"
        if self._limits.money is not None and judge.prices is not None:
            budget += f" or {self._limits.money:g} in money"
        spent.stopped = (
            f"the budget of {budget} ends here: {self._done:,} of {self._total:,} verdicts are "
            f"there, for {spent.tokens:,} tokens"
        )
        self._emit(Event(STAGE, "warning", spent.stopped))

    def _tell(self) -> None:
        self._emit(Event(STAGE, "progress", "verdicts", self._done, self._total))


def estimate(question: Question) -> int:
    """Return at least about how many tokens a question's prompt has, in any script."""
    size = len(question.system.encode()) + sum(len(text.encode()) for _, text in question.pieces)
    return size // _BYTES_PER_TOKEN + 60
