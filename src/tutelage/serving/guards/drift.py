"""Whether live traffic still looks like the golden rows: a change alarm with a known error rate.

Each value gets its conformal p-value among the golden rows and the live ones before it, which is
uniform as long as all of them could have come in any order (Vovk, Gammerman and Shafer,
"Algorithmic Learning in a Random World", 2nd ed. 2022, ch. 8). Bets on the p-values are summed in
Shiryaev-Roberts statistics, M <- (M + 1) b(p); an alarm at M >= c comes on average no sooner than
after c values (Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2(2), 2024, theorem 2.4).

Golden rows are few, so small shifts stay unseen however long the traffic: `Drift.index` tells how
far apart the two are. Nothing here knows of requests or clocks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.stability import length_shares, stability
from tutelage.serving.guards.window import OTHER

EPOCH = 10_000  # live values after which a series begins afresh from its golden rows
MOST_LABELS = 50  # labels that are watched one by one; rarer ones are OTHER
_LEAST_TOLD = 20  # live values before an index means anything

Floats = NDArray[np.float64]


def bets(p: Floats) -> Floats:
    """Return eight bets against uniform p-values, each with mean 1; shape (K,) -> (8, K).

    Against values that are larger or smaller (linear and power bets), further out, and closer in.
    """
    p = np.clip(p, 1e-9, 1 - 1e-9)
    lean, far = 1 - 2 * p, np.abs(1 - 2 * p)
    return np.stack(
        [
            1 + 0.5 * lean, 1 - 0.5 * lean, 1 + lean, 1 - lean,
            0.3 * p**-0.7, 0.3 * (1 - p) ** -0.7, 0.3 * (1 - far) ** -0.7, 1 - 0.8 * (2 * far - 1),
        ]
    )  # fmt: skip


class _Sums:
    """Shiryaev-Roberts statistics of K sequences of p-values, averaged over bets and sequences."""

    def __init__(self, sequences: int) -> None:
        self._sums = np.zeros((8, sequences))

    def add(self, p: Floats) -> float:
        """Take one p-value a sequence, shape (K,); return the average statistic."""
        self._sums = (self._sums + 1) * bets(p)
        return float(self._sums.mean())


class NumberSeries:
    """A number a value, such as a length."""

    def __init__(self, golden: Sequence[int], rng: np.random.Generator, window: int) -> None:
        self._golden, self._rng = sorted(golden), rng
        self._latest: deque[int] = deque(maxlen=window)
        self.restart()

    def restart(self) -> None:
        """Forget the evidence and begin again from the golden rows."""
        self._pool: list[int] = list(self._golden)
        self._sums = _Sums(1)

    def add(self, value: int) -> float:
        """Take a live value; return the statistic."""
        if len(self._pool) - len(self._golden) >= EPOCH:
            self.restart()
        more = len(self._pool) - bisect_right(self._pool, value)
        ties = bisect_right(self._pool, value) - bisect_left(self._pool, value) + 1
        insort(self._pool, value)
        self._latest.append(value)
        p = (more + self._rng.random() * ties) / len(self._pool)
        return self._sums.add(np.array([p]))

    def index(self) -> float:
        """Return the stability index of the latest values against the golden rows."""
        old, new = np.array(self._golden), np.array(self._latest)
        if min(len(old), len(new)) < _LEAST_TOLD:
            return 0.0
        return _beyond_chance(*length_shares(old, new), len(old), len(new))

    def tell(self) -> str:
        """Return what changed, in words."""
        old, new = np.median(self._golden), np.median(list(self._latest))
        return f"a median of {new:,.0f} characters lately, {old:,.0f} in the evaluated rows"


class LabelSeries:
    """A label a value, out of those of the golden rows or OTHER; each is watched by itself."""

    def __init__(self, golden: Mapping[str, int], rng: np.random.Generator, window: int) -> None:
        kept = Counter(golden)
        kept.pop(OTHER, None)
        self._labels = [label for label, _ in kept.most_common(MOST_LABELS)] + [OTHER]
        self._place = {label: i for i, label in enumerate(self._labels)}
        counts = [golden.get(label, 0) for label in self._labels]
        counts[-1] += sum(golden.values()) - sum(counts)
        self._golden = np.array(counts, dtype=np.float64)
        self._rng = rng
        self._latest: deque[int] = deque(maxlen=window)
        self.restart()

    def restart(self) -> None:
        """Forget the evidence and begin again from the golden rows."""
        self._counts = self._golden.copy()
        self._sums = _Sums(len(self._labels))

    def add(self, value: str) -> float:
        """Take a live value; return the statistic."""
        total = float(self._counts.sum())
        if total - self._golden.sum() >= EPOCH:
            self.restart()
            total = float(self._counts.sum())
        place = self._place.get(value, len(self._labels) - 1)
        theta = self._rng.random(len(self._labels))
        p = (self._counts + theta * (total - self._counts + 1)) / (total + 1)
        p[place] = theta[place] * (self._counts[place] + 1) / (total + 1)
        self._counts[place] += 1
        self._latest.append(place)
        return self._sums.add(p)

    def index(self) -> float:
        """Return the stability index of the latest values against the golden rows."""
        old, new = int(self._golden.sum()), len(self._latest)
        if min(old, new) < _LEAST_TOLD:
            return 0.0
        return _beyond_chance(self._golden / old, self._shares(), old, new)

    def tell(self) -> str:
        """Return what grew most, in words."""
        old, new = self._golden / self._golden.sum(), self._shares()
        most = int((new - old).argmax())
        label = self._labels[most]
        named = "none of the usual ones" if label == OTHER else repr(label)
        return f"{named} {new[most]:.0%} lately, {old[most]:.0%} in the evaluated rows"

    def _shares(self) -> Floats:
        counts = np.bincount(np.array(self._latest), minlength=len(self._labels))
        return counts / max(1, len(self._latest))


def _beyond_chance(one: Floats, two: Floats, rows: int, values: int) -> float:
    """Return the stability index less what two samples of one distribution have on average.

    That is (B - 1)(1/n + 1/m) for the B bins that hold anything (Yurdakul and Naranjo 2020).
    """
    bins = int(((one > 0) | (two > 0)).sum())
    return max(0.0, stability(one, two) - (bins - 1) * (1 / rows + 1 / values))


@dataclass(frozen=True)
class Drift:
    """What one series shows. `evidence` is the statistic over the alarm's threshold, 0..1 and up.

    `index` is the stability index of the latest values: under 0.1 the same, from 0.2 on much.
    """

    series: str
    drifted: bool
    evidence: float
    index: float
    values: int
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "series": self.series, "drifted": self.drifted, "evidence": round(self.evidence, 4),
            "index": round(self.index, 3), "values": self.values, "why": self.why,
        }  # fmt: skip


class Watch:
    """One series under watch: remembers whether it has drifted, and tells changes of that.

    It drifts when the statistic reaches `threshold` while the latest values' index is notable, and
    is back when that index is no more.
    """

    def __init__(
        self, name: str, series: NumberSeries | LabelSeries, threshold: float, notable: float
    ) -> None:
        self.name = name
        self._series, self._threshold, self._notable = series, threshold, notable
        self._values = 0
        self._statistic = 0.0
        self._drifted = False

    def add(self, value: Any) -> Drift | None:
        """Take a live value; return what changed: drifted or back. None: nothing did."""
        self._values += 1
        self._statistic = self._series.add(value)
        if self._statistic >= self._threshold:
            index = self._series.index()
            now = self.state()
            self._series.restart()
            if index >= self._notable and not self._drifted:
                self._drifted = True
                return Drift(self.name, True, now.evidence, index, self._values, now.why)
        elif self._drifted and self._values % 20 == 0 and self._series.index() < self._notable:
            self._drifted = False
            return self.state()
        return None

    def state(self) -> Drift:
        """Return what is known now."""
        why = self._series.tell() if self._values else ""
        evidence = self._statistic / self._threshold
        return Drift(self.name, self._drifted, evidence, self._series.index(), self._values, why)
