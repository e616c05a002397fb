"""What one release did in one stretch of time: counts, times, money, and what was said of it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from tutelage.evaluation.significance import wilson

LEAST = 20  # observations from which a point is not faint
LEAST_P95 = 40  # below, the slowest twentieth is one answer or two: it is not shown
_Z = 1.96


class Cell:
    """One release in one stretch. Add to it, then ask for its `point`."""

    __slots__ = (
        "answered", "cost", "failed", "first", "flagged", "latency", "priced", "requests",
        "scores", "seen", "signals", "tokens", "verdict",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = self.seen = self.failed = self.flagged = self.answered = self.priced = 0
        self.tokens, self.cost = 0, 0.0
        self.latency, self.first = array("f"), array("f")  # ms
        self.verdict = Mean()
        self.signals: dict[str, Mean] = {}
        self.scores: dict[str, Mean] = {}

    def point(self, shares: Mapping[str, bool]) -> dict[str, Any]:
        """Return its figures. `shares` are the signals shown: whether each is one of answers.

        Unknown figures are None: of no requests there is no share, of few no p95.
        """
        return {
            "requests": self.requests,
            "failed": share(self.failed, self.seen),
            "flagged": share(self.flagged, self.answered),
            "latency_p50_ms": _quantile(self.latency, 0.5, 1),
            "latency_p95_ms": _quantile(self.latency, 0.95, LEAST_P95),
            "first_token_p50_ms": _quantile(self.first, 0.5, 1),
            "tokens": self.tokens,
            "cost": self.cost if self.priced else None,
            "cost_per_request": self.cost / self.priced if self.priced else None,
            "feedback": self.verdict.told(),
            "signals": {
                name: self._signal(name, of_answers) for name, of_answers in shares.items()
            },
            "scores": {name: mean.told() for name, mean in sorted(self.scores.items())},
        }

    def _signal(self, name: str, of_answers: bool) -> dict[str, Any]:
        found = self.signals.get(name, Mean())
        return share(found.total, self.answered) if of_answers else found.told()

    def join(self, other: Cell) -> None:
        """Add another cell's observations to this one's."""
        for name in (
            "requests",
            "seen",
            "failed",
            "flagged",
            "answered",
            "priced",
            "tokens",
            "cost",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency.extend(other.latency)
        self.first.extend(other.first)
        self.verdict.join(other.verdict)
        for mine, theirs in ((self.signals, other.signals), (self.scores, other.scores)):
            for name, mean in theirs.items():
                mine.setdefault(name, Mean()).join(mean)


class Mean:
    """A running mean with its standard error."""

    __slots__ = ("count", "least", "most", "squares", "total")

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0
        self.least, self.most = math.inf, -math.inf

    def add(self, value: float) -> None:
        """Take one more value."""
        self.count += 1
        self.total += value
        self.squares += value * value
        self.least, self.most = min(self.least, value), max(self.most, value)

    def join(self, other: Mean) -> None:
        """Take another's values too."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def told(self) -> dict[str, Any]:
        """Return the mean with its 95 % interval (of one look) and how many values it rests on.

        Where every value lies in 0..1, so does the interval.
        """
        if not self.count:
            return _figure(None, None, None, 0)
        mean = self.total / self.count
        if self.count < 2:
            return _figure(mean, None, None, self.count)
        variance = max(0.0, self.squares / self.count - mean**2) * self.count / (self.count - 1)
        half = _Z * (variance / self.count) ** 0.5
        low, high = mean - half, mean + half
        if self.least >= 0 and self.most <= 1:
            low, high = max(0.0, low), min(1.0, high)
        return _figure(mean, low, high, self.count)


def share(part: float, whole: int) -> dict[str, Any]:
    """Return part / whole with Wilson's 95 % interval (of one look)."""
    if not whole:
        return _figure(None, None, None, 0)
    found = wilson(min(part, whole), whole)
    return _figure(min(1.0, part / whole), round(found.low, 9), round(found.high, 9), whole)


def _figure(value: float | None, low: float | None, high: float | None, n: int) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def _quantile(values: array[float], q: float, least: int) -> dict[str, Any]:
    if len(values) < least:
        return _figure(None, None, None, len(values))
    found = float(np.quantile(np.frombuffer(values, dtype=np.float32), q))
    return _figure(found, None, None, len(values))
