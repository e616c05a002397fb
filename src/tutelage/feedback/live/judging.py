"""The judge's marks on live answers: no reference, and no more tokens than the day has.

The budget is paced: by noon half of it may be spent, so that evening traffic is marked as well.
What was spent is read from the verdicts in the store, so a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select

from tutelage.core.errors import ModelError
from tutelage.evaluation.judges import marks
from tutelage.evaluation.judges.asker import Asker, Judge, Limits, Verdicts
from tutelage.evaluation.judges.marks import Panel
from tutelage.evaluation.judges.questions import Question
from tutelage.evaluation.judges.rubric import OVERALL, Rubric
from tutelage.evaluation.scorers.base import Score
from tutelage.feedback.live.answers import Answered, Logged
from tutelage.store.base import Store
from tutelage.store.judgements import JudgeVerdictRow
from tutelage.store.live import LiveRow

_DAY_S = 86_400.0
_HEAD_START_S = 3_600.0  # the first hour's part may be spent at once
_WHO = "live"
BUDGET = "the day's budget of tokens is spent so far"


@dataclass(frozen=True)
class Judging:
    """Who marks, by which rubric, and how much a day. `rubric.reference` is off."""

    judges: tuple[Judge, ...]
    rubric: Rubric
    limits: Limits  # `tokens` is the day's
    panel: Panel = "mean"
    paced: bool = True  # the budget is spread over the day


@dataclass(frozen=True)
class Marked:
    """The overall marks by record, and why asking ended early, if it did."""

    scores: Mapping[str, Score]
    tokens: int = 0
    problem: str = ""


NOT_ASKED = Marked({})


def mark(store: Store, judging: Judging, answers: Sequence[Answered], now: datetime) -> Marked:
    """Return the marks of the answers that the budget still pays for.

    A judge that does not answer leaves its answers unmarked. What was asked before is not asked
    again.
    """
    if not answers:
        return NOT_ASKED
    left = judging.limits.tokens
    if judging.paced:
        left = allowance(left, now)
    left -= spent(store, now, but=[answered.row.id for answered in answers])
    if left <= 0:
        return Marked({}, problem=BUDGET)
    limits = replace(judging.limits, tokens=left)
    cases = [_Case.of(judging, answered) for answered in answers]
    questions = [question for case in cases for question in case.questions]
    problem = ""
    try:
        verdicts = Asker(store, judging.judges, limits).ask(questions)
        problem = BUDGET if verdicts.spent.stopped else ""
    except ModelError as error:
        problem = error.sentence()
        verdicts = Asker(store, judging.judges, limits).recall(questions)
    scores = {case.row.id: case.score(judging, verdicts) for case in cases}
    given = {record: score for record, score in scores.items() if score.value is not None}
    return Marked(given, verdicts.spent.tokens, problem)


@dataclass(frozen=True)
class _Case:
    """One answer, and what is asked about it."""

    rubric: Rubric
    row: Logged
    texts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, judging: Judging, answered: Answered) -> _Case:
        rubric = replace(judging.rubric, task=answered.prompt)
        return cls(rubric, answered.row, {_WHO: {answered.row.id: answered.text}})

    @property
    def questions(self) -> list[Question]:
        return marks.questions(self.rubric, [self.row], self.texts)

    def score(self, judging: Judging, verdicts: Verdicts) -> Score:
        table = marks.scores(
            self.rubric, [self.row], self.texts, verdicts, judging.judges, judging.panel
        )
        return table[_WHO][OVERALL][self.row.id]


def spent(store: Store, now: datetime, but: Sequence[str] = ()) -> int:
    """Return the tokens that verdicts on live answers took since midnight UTC.

    Those on the records `but` are left out: whoever asks about them again counts them.
    """
    tokens = func.sum(JudgeVerdictRow.prompt_tokens + JudgeVerdictRow.completion_tokens)
    query = (
        select(func.coalesce(tokens, 0))
        .join(LiveRow, LiveRow.record == JudgeVerdictRow.item)
        .where(JudgeVerdictRow.at >= _midnight(now), JudgeVerdictRow.item.not_in(but))
    )
    with store.session() as session:
        return int(session.scalar(query) or 0)


def allowance(tokens: int, now: datetime) -> int:
    """Return how many of a day's tokens may be spent by `now`: the day's part, an hour ahead."""
    elapsed = (now - _midnight(now)).total_seconds()
    return int(tokens * min(1.0, (elapsed + _HEAD_START_S) / _DAY_S))


def _midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)
