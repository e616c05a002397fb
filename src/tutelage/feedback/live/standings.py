"""What the scores say of each release: its means with their bounds, and whether one has fallen.

A release is held against the one that it replaced, whose mean is known within bounds too; so the
risk of a false alarm is alpha over its whole life, however often anybody looks. Scores of other
days are compared with each other: what a change of the traffic did can't be told from what the
release did. While a rollout moves traffic, release/quality.py compares answers of the same time.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import select

from tutelage.core.config_live import LiveEvaluation
from tutelage.feedback.live.bounds import Bounds, fall_capital, lower_bound, mean_bounds
from tutelage.feedback.live.scores import score_values
from tutelage.store.base import Store
from tutelage.store.live import LiveRow
from tutelage.store.releases import ReleaseRow, RolloutRow

SHOWN = 0.05  # risk of the bounds that are shown
_OVERLAP = 500  # ids that are read again: two writers may commit out of order
_LOG_MAX = 690.0  # where a float would end

Key = tuple[str, str]  # deployment, release


@dataclass(frozen=True)
class Test:
    """A mean held against a level. `e` is the most that was ever won against it."""

    level: float
    e: float
    threshold: float

    @property
    def fallen(self) -> bool:
        """Whether the mean has fallen under the level."""
        return self.e >= self.threshold


@dataclass(frozen=True)
class Standing:
    """One metric of one release. `before` is the release that it replaced, with enough scores."""

    metric: str
    bounds: Bounds  # at the risk of SHOWN
    before: str | None = None  # release id
    before_bounds: Bounds | None = None
    against: Test | None = None  # the release before, less `drop`
    least: Test | None = None
    problem: str = ""  # why nothing can be said

    @property
    def fallen(self) -> bool:
        """Whether the release is worse than it may be."""
        return any(test is not None and test.fallen for test in (self.against, self.least))

    def sentence(self, names: Mapping[str, str]) -> str:
        """Return what the scores say, in words; `names` gives a release's name by id."""
        if self.problem or self.bounds.mean is None:
            return f"{self.metric}: {self.problem or 'no scores yet'}"
        said = f"{self.metric} is {_shown(self.bounds)}"
        if self.least is not None and self.least.fallen:
            return f"{said}: proven to be under {self.least.level:g}, the least that is asked for"
        if self.before is None or self.before_bounds is None or self.against is None:
            return said
        other = f"{names.get(self.before, self.before[:12])} before it had"
        known = f"{other} {_shown(self.before_bounds)}"
        if self.against.fallen:
            return f"{said}: worse, {known}"
        if self.bounds.low >= self.against.level:
            return f"{said}: as good, {known}"
        return f"{said}: not proven worse, {known}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            **asdict(self.bounds),
            "metric": self.metric,
            "before": self.before and {"release": self.before, **_plain(self.before_bounds)},
            "against": self.against and {**asdict(self.against), "fallen": self.against.fallen},
            "least": self.least and {**asdict(self.least), "fallen": self.least.fallen},
            "fallen": self.fallen,
            "problem": self.problem,
        }


def _plain(bounds: Bounds | None) -> dict[str, Any]:
    return asdict(bounds) if bounds else {}


def _shown(bounds: Bounds) -> str:
    answers = "1 answer" if bounds.n == 1 else f"{bounds.n:,} answers"
    return f"{bounds.mean:.3f} ({bounds.low:.3f} to {bounds.high:.3f}, {answers})"


@dataclass
class Series:
    """The scores of one metric in the order in which they came."""

    values: array[float] = field(default_factory=lambda: array("d"))
    counts: Counter[float] = field(default_factory=Counter)
    problem: str = ""

    def add(self, value: float) -> None:
        """Append a score."""
        if not 0 <= value <= 1:
            self.problem = "a score lies outside 0 to 1, and bounds need both ends"
        self.values.append(value)
        self.counts[value] += 1


class Standings:
    """The scores that were read so far, by deployment, release and metric."""

    def __init__(self, store: Store, settings: LiveEvaluation) -> None:
        self._store, self._settings = store, settings
        self._series: dict[Key, dict[str, Series]] = {}
        self._upto: dict[str, int] = {}  # release → the newest id that was read
        self._recent: dict[str, set[int]] = {}

    def read(self, releases: Iterable[str]) -> set[Key]:
        """Take up what is new of these releases; return the keys that got scores."""
        touched = set()
        for release in set(releases):
            after = max(0, self._upto.get(release, 0) - _OVERLAP)
            recent = self._recent.setdefault(release, set())
            for number, deployment, metric, value in score_values(self._store, release, after):
                if number not in recent:
                    recent.add(number)
                    series = self._series.setdefault((deployment, release), {})
                    series.setdefault(metric, Series()).add(value)
                    touched.add((deployment, release))
                    self._upto[release] = max(self._upto.get(release, 0), number)
            edge = self._upto.get(release, 0) - 2 * _OVERLAP
            self._recent[release] = {number for number in recent if number > edge}
        return touched

    def known(self) -> list[Key]:
        """Return the deployments and releases that have scores."""
        return sorted(self._series)

    def of(self, key: Key, before: str | None) -> list[Standing]:
        """Return what is known of a release; `before` is the id of the one that it replaced."""
        other = self._series.get((key[0], before), {}) if before else {}
        return [
            self._standing(metric, series, before, other.get(metric))
            for metric, series in self._series.get(key, {}).items()
        ]

    def _standing(
        self, metric: str, series: Series, before: str | None, other: Series | None
    ) -> Standing:
        problem = series.problem or (other.problem if other else "")
        if problem:
            return Standing(metric, Bounds(None, 0.0, 1.0, len(series.values)), problem=problem)
        bounds = mean_bounds(series.counts, SHOWN)
        wanted = self._settings.least.get(metric)
        part = self._settings.alpha / self._tests() / (2 if wanted is None else 3)
        least = None if wanted is None else _test(series, wanted, part)
        if other is None or before is None:
            return Standing(metric, bounds, least=least)
        level = lower_bound(other.counts, part) - self._settings.drop
        theirs = mean_bounds(other.counts, SHOWN)
        return Standing(metric, bounds, before, theirs, _test(series, level, part), least)

    def _tests(self) -> int:
        """Return how many metrics share alpha: all that are asked for."""
        asked = self._settings
        return max(1, len(asked.checks) + len(asked.scorers) + asked.judge)


def _test(series: Series, level: float, alpha: float) -> Test:
    path = fall_capital(series.values, level)
    peak = float(path.max(initial=0.0))
    return Test(level, math.exp(min(peak, _LOG_MAX)), 1 / alpha)


def replaced(store: Store) -> dict[Key, str]:
    """Return, by deployment and release, the release it was to replace in its newest rollout."""
    query = select(RolloutRow.deployment, RolloutRow.candidate, RolloutRow.baseline)
    with store.session() as session:
        rows = session.execute(query.order_by(RolloutRow.created_at, RolloutRow.id)).all()
    return {(deployment, ours): theirs for deployment, ours, theirs in rows if ours != theirs}


def release_names(store: Store) -> dict[str, str]:
    """Return every release's name by its id."""
    with store.session() as session:
        return {row.id: row.name for row in session.execute(select(ReleaseRow.id, ReleaseRow.name))}


def scored_releases(store: Store) -> list[str]:
    """Return the ids of the releases whose answers were drawn."""
    with store.session() as session:
        return list(session.scalars(select(LiveRow.release).distinct()))
