"""Requests of a rollout drawn at random: what rollout_decisions.py simulates. It judges nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.release.arms import ArmLog, Scores
from tutelage.release.sequential import NOBODY

MEDIAN_MS = 400.0  # of the stable release's log-normal latency
BASE_ERRORS = 0.01  # share of the stable release's requests that fail
BASE_FLAGS = 0.02  # that a check flags
BASE_SCORE = 0.80  # share of its scored answers that are right


@dataclass(frozen=True)
class Scenario:
    """One kind of candidate. `good` ones should never be stopped."""

    name: str
    good: bool
    weight: float = 0.05  # share of the requests that the canary gets, where it is fixed
    slower: float = 1.0  # factor on every canary latency
    tail: tuple[float, float] = (0.0, 1.0)  # share of canary requests, and the factor on them
    errors: float = BASE_ERRORS  # of the canary
    flags: float = BASE_FLAGS
    spread: float = 0.4  # sigma of the log-normal latency
    outage: float = 0.0  # share of both arms' requests in the middle that fails
    swing: float = 0.0  # both arms' load rises and falls by this factor
    starts_at: float = 0.0  # the harm starts after this share of the run
    scored: float = 0.0  # share of answers that get a score
    points: float = 0.0  # the canary's score is lower by so many points
    users: int = 0  # who keep one release each; 0: each request is another user's
    burst: int = 1  # requests that one of them sends in a row
    moment: float = 0.0  # sigma of what slows all requests of a burst alike
    heavy: float = 0.0  # share of the users whose requests take three times as long


@dataclass
class Log:
    """Requests of both arms as they come; `draw` adds some, arrays have one row a request."""

    scenario: Scenario
    rng: np.random.Generator
    length: int  # requests of the whole run, for what depends on the place in it
    at: list[NDArray[np.float64]] = field(default_factory=list)
    canary: list[NDArray[np.bool_]] = field(default_factory=list)
    latency: list[NDArray[np.float64]] = field(default_factory=list)
    failed: list[NDArray[np.bool_]] = field(default_factory=list)
    flagged: list[NDArray[np.bool_]] = field(default_factory=list)
    step: list[NDArray[np.int64]] = field(default_factory=list)
    score: list[NDArray[np.float64]] = field(default_factory=list)  # nan: not scored
    user: list[NDArray[np.int64]] = field(default_factory=list)
    drawn: int = 0

    def __post_init__(self) -> None:
        users = self.scenario.users
        self.bucket = self.rng.random(users)  # a user has the canary while its share is over it
        self.factor = np.where(self.rng.random(users) < self.scenario.heavy, 3.0, 1.0)

    def draw(self, count: int, weight: float, step: int = 0) -> int:
        """Add `count` requests of which the canary gets a share; return how many it got."""
        case, rng = self.scenario, self.rng
        at = self.drawn + np.arange(count, dtype=np.float64)
        place = at / self.length
        user, slow = self._who(count)
        canary = (self.bucket[user] if case.users else rng.random(count)) < weight
        harmed = canary & (place >= case.starts_at)
        latency = MEDIAN_MS * slow * rng.lognormal(0.0, case.spread, count)
        if case.swing:
            latency *= 1 + (case.swing - 1) * (0.5 + 0.5 * np.sin(place * 6 * np.pi))
        share, factor = case.tail
        latency = np.where(harmed & (rng.random(count) < share), latency * factor, latency)
        rate = np.where(harmed, case.errors, BASE_ERRORS)
        if case.outage:
            rate = np.where((place > 0.4) & (place < 0.6), case.outage, rate)
        right = rng.random(count) < BASE_SCORE - np.where(harmed, case.points / 100, 0.0)
        self.at.append(at)
        self.user.append(user)
        self.canary.append(canary)
        self.latency.append(np.where(harmed, latency * case.slower, latency))
        self.failed.append(rng.random(count) < rate)
        self.flagged.append(rng.random(count) < np.where(harmed, case.flags, BASE_FLAGS))
        self.step.append(np.full(count, step, np.int64))
        self.score.append(np.where(rng.random(count) < case.scored, right.astype(float), np.nan))
        self.drawn += count
        return int(canary.sum())

    def _who(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return who asks the next requests, and a factor on the latency of each."""
        case, rng = self.scenario, self.rng
        if not case.users:
            return np.full(count, NOBODY), np.ones(count)
        bursts = -(-count // case.burst)
        user = np.repeat(rng.integers(0, case.users, bursts), case.burst)[:count]
        moment = np.repeat(rng.lognormal(0.0, case.moment, bursts), case.burst)[:count]
        return user, self.factor[user] * moment

    def arms(self, upto: int | None = None, *, by_user: bool = True) -> tuple[ArmLog, ArmLog]:
        """Return both arms' logs, of all or until the canary had `upto` requests.

        Without `by_user` they don't tell who asked.
        """
        canary = np.concatenate(self.canary)
        keep = np.ones(len(canary), bool)
        if upto is not None:
            keep[int(np.flatnonzero(canary)[upto - 1]) + 1 :] = False
        parts = [np.concatenate(p) for p in (self.at, self.latency, self.failed, self.flagged)]
        step, user = np.concatenate(self.step), np.concatenate(self.user)

        def arm(mine: NDArray[np.bool_]) -> ArmLog:
            at, latency, failed, flagged = (part[mine & keep] for part in parts)
            who = user[mine & keep] if by_user else None
            return ArmLog(at, latency, failed, flagged, step[mine & keep], user=who)

        return arm(~canary), arm(canary)

    def scores(self) -> dict[str, Scores]:
        """Return the scores so far; empty where nothing is scored."""
        if not self.scenario.scored:
            return {}
        canary, score = np.concatenate(self.canary), np.concatenate(self.score)
        there = ~np.isnan(score)
        return {"judge": Scores(canary[there], score[there])}

    def history(self, count: int = 500) -> ArmLog:
        """Return requests of the same users to the stable release, from before the rollout."""
        user, slow = self._who(count)
        latency = MEDIAN_MS * slow * self.rng.lognormal(0.0, self.scenario.spread, count)
        none, at = np.zeros(count, bool), -1.0 - np.arange(count)[::-1]
        return ArmLog(at, latency, none, none, np.full(count, -1), user=user)


def fixed(scenario: Scenario, requests: int, rng: np.random.Generator) -> Log:
    """Return a run at one share, with `requests` canary requests on average."""
    count = round(requests / scenario.weight)
    log = Log(scenario, rng, count)
    log.draw(count, scenario.weight)
    return log


def with_history(baseline: ArmLog, before: ArmLog) -> ArmLog:
    """Return the baseline's log with what was known before."""
    return replace(
        baseline,
        at=np.concatenate((before.at, baseline.at)),
        latency_ms=np.concatenate((before.latency_ms, baseline.latency_ms)),
        failed=np.concatenate((before.failed, baseline.failed)),
        flagged=np.concatenate((before.flagged, baseline.flagged)),
        step=np.concatenate((before.step, baseline.step)),
        user=np.concatenate((before.users, baseline.users)),
    )
