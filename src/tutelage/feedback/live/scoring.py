"""Scores drawn records, batch by batch: rules, scorers and the judge, kept in one transaction each.

Killed at any moment it loses nothing and pays nothing twice: a record waits until its scores are
in the store, and the judge's verdicts are there before that.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.config_live import LiveEvaluation
from tutelage.evaluation.judges.rubric import OVERALL
from tutelage.evaluation.scorers.base import Score
from tutelage.feedback.live import draw
from tutelage.feedback.live.answers import Answered, read_answers
from tutelage.feedback.live.checks import ReleaseChecks
from tutelage.feedback.live.judging import BUDGET, NOT_ASKED, Judging, Marked, mark
from tutelage.store.base import Store
from tutelage.store.live import LiveRow
from tutelage.store.releases import ReleaseRow
from tutelage.store.scores import ScoreRow

BATCH = 32  # records of one transaction
_BEHIND = 8 * BATCH  # waiting records from which on the judge is passed over
_PAUSE_S = 30.0  # before a judge that did not answer is asked again
_BEHIND_WHY = "the judge is slower than the traffic"

Scores = Mapping[str, Mapping[str, Score]]  # record → metric → score


@dataclass(frozen=True)
class Parts:
    """What scores with which rules."""

    settings: LiveEvaluation
    checks: Callable[[ReleaseRow], ReleaseChecks]
    judging: Judging | None = None


@dataclass
class Pass:
    """What one batch came to."""

    scored: int = 0
    skipped: int = 0
    judged: int = 0
    tokens: int = 0
    problem: str = ""  # why the judge marked less than it was to
    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.scored + self.skipped > 0

    def add(self, other: Pass) -> None:
        """Take up another batch's figures, but not its values."""
        self.scored += other.scored
        self.skipped += other.skipped
        self.judged += other.judged
        self.tokens += other.tokens
        self.problem = other.problem or self.problem


class Scoring:
    """One worker. Several may work on one store: a record is claimed by one of them."""

    def __init__(self, store: Store, parts: Parts, shares: draw.Shares | None = None) -> None:
        self._store, self._parts = store, parts
        self._shares = shares or draw.Shares.of(parts.settings)
        self._owner = secrets.token_hex(8)
        self._judge_from = 0.0  # time.monotonic() before which the judge is left alone

    def draw(self, since: datetime) -> datetime:
        """Draw from the records since `since`; return when the newest drawn one ended."""
        return draw.draw(self._store, self._shares, since)

    def step(self, now: datetime | None = None) -> Pass:
        """Score the next batch; an empty pass means that nothing waits."""
        now = now or utc_now()
        claimed = draw.claim(self._store, self._owner, BATCH, now)
        if not claimed:
            return Pass()
        answers, problems = read_answers(self._store, claimed)
        rules = {a.row.id: self._parts.checks(a.release).scores(a) for a in answers}
        marked = self._mark(answers, now)
        scores: dict[str, dict[str, Score]] = {
            record: ({OVERALL: marked.scores[record]} if record in marked.scores else {}) | found
            for record, found in rules.items()
        }
        return self._keep(claimed, scores, problems, marked)

    def close(self) -> None:
        """Let others have what was claimed."""
        draw.release_claims(self._store, self._owner)

    def _mark(self, answers: Sequence[Answered], now: datetime) -> Marked:
        judging, settings = self._parts.judging, self._parts.settings
        if judging is None or time.monotonic() < self._judge_from:
            return NOT_ASKED
        if draw.waiting(self._store) > _BEHIND:
            return Marked({}, problem=_BEHIND_WHY)
        asked = [a for a in answers if self._shares.judged(a.drawn, settings.judge_share)]
        asked.sort(key=lambda a: a.drawn.rollout is None)  # a rollout waits for its scores
        marked = mark(self._store, judging, asked, now)
        if marked.problem and marked.problem != BUDGET:
            self._judge_from = time.monotonic() + _PAUSE_S
        return marked

    def _keep(
        self,
        claimed: Sequence[LiveRow],
        scores: Scores,
        problems: Mapping[str, str],
        marked: Marked,
    ) -> Pass:
        done = Pass(judged=len(marked.scores), tokens=marked.tokens, problem=marked.problem)
        with self._store.begin() as session:
            mine = draw.still_owned(session, self._owner, [row.record for row in claimed])
            for row in mine:
                row.owner = row.until = None
                row.scored_at = utc_now()
                if row.record in problems:
                    row.state, row.problem = "skipped", problems[row.record]
                    done.skipped += 1
                    continue
                row.state = "done"
                done.scored += 1
                _add(session, row, scores[row.record], done)
        return done


def _add(session: Session, row: LiveRow, scores: Mapping[str, Score], done: Pass) -> None:
    for metric, score in scores.items():
        session.add(
            ScoreRow(
                item=row.record, candidate=row.release, metric=metric, value=score.value,
                evidence=score.evidence, source=str(score.evidence.get("source", "metric")),
            )
        )  # fmt: skip
        if score.value is not None:
            key = (row.deployment, row.release, metric)
            done.values.setdefault(key, []).append(float(score.value))
