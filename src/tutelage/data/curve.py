"""What more rows would bring: a power law with a floor, fitted to nested parts of the data.

The fit itself is in power_law.py. Intervals come from resampling the scored rows and the repeats,
and drawing exponent and floor by their likelihood, since few points tell the floor badly. It
trains nothing: a `Score` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import EXIT_NOT_ENOUGH_EVIDENCE, DataError
from tutelage.data.power_law import PowerLaw, fit_laws

MIN_ROWS = 20  # with fewer rows a point says nothing
ROWS_A_LABEL = 3  # below it errors fall slower than a power law: such points are not fitted
ENOUGH_A_LABEL = 10  # in all: with fewer the forecasts are too low by several points
MIN_POINTS = 4
MIN_SCORED = 40  # rows scored at each size, over all repeats
_OFF = 0.03  # how far the curve may miss its own largest point, inside its interval or not
WIDEST = 0.04  # half the interval of doubling, above which the answer is "too few to say"
_DRAWS = 400

Array = NDArray[np.float64]
Score = Callable[[Sequence[int]], Sequence[float]]
"""Trains on the given rows; returns a score from 0 to 1 for each scored row, in fixed order."""


@dataclass(frozen=True)
class Point:
    """One training: how many rows, in which repeat, and what each scored row got, 0 to 1."""

    rows: int
    repeat: int
    hits: Array


@dataclass(frozen=True)
class Forecast:
    """The expected accuracy with `rows` training rows, and its interval."""

    rows: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The points (accuracy with its interval), the law, what was expected, what doubling brings.

    `enough` is False where the data can't say; `sentence` then says why. `check` is the forecast
    of the largest point from those up to half its rows, beside what was measured there.
    """

    points: list[Forecast]
    fitted: list[int]
    law: PowerLaw | None
    now: Forecast | None
    doubled: Forecast | None
    gain: tuple[float, float, float] | None  # of doubling: expected, low, high
    line: list[Forecast]
    check: dict[str, float] | None
    confidence: float
    enough: bool
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def sizes(rows: int, labels: int = 0, points: int = 7) -> list[int]:
    """Return the training sizes to measure, rising by a constant factor up to `rows`.

    Raises DataError if there are too few rows for one point.
    """
    least = smallest(labels)
    if rows < MIN_ROWS:
        error = DataError(
            f"{rows} training rows are too few for a learning curve",
            fix=f"Label at least {MIN_ROWS}, better {4 * MIN_ROWS}",
        )
        error.exit_code = EXIT_NOT_ENOUGH_EVIDENCE
        raise error
    start = min(max(least, math.ceil(rows / 20)), max(MIN_ROWS // 2, rows // 4))
    wanted = np.geomspace(start, rows, points)
    return sorted({round(float(size)) for size in wanted} | {rows})


def smallest(labels: int) -> int:
    """Return the rows from which on a power law may hold."""
    return max(MIN_ROWS, ROWS_A_LABEL * labels)


def nested(count: int, groups: Sequence[str], seed: int) -> list[int]:
    """Return an order of `count` rows whose every beginning is a training set: whole groups.

    Rows of one group (near-duplicates, one document) come one after the other.
    """
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for index in range(count):
        members.setdefault(groups[index], []).append(index)
    names = list(members)
    return [index for k in rng.permutation(len(names)) for index in members[names[k]]]


def fit_curve(
    points: Sequence[Point],
    *,
    labels: int = 0,
    confidence: float = 0.90,
    seed: int = 7,
) -> Curve:
    """Return the curve through `points`; all points of a repeat score the same rows in order.

    `labels` is the number of labels of a classification, 0 for other tasks.
    """
    if not points:
        raise DataError("there is no point to fit", fix="Measure at least four training sizes")
    table = _Table(points)
    shown = [_interval(table, size, confidence) for size in table.sizes]
    usable = [size for size in table.sizes if size >= smallest(labels)]
    if len(usable) < MIN_POINTS:
        why = (
            f"too few rows to say: {len(usable)} of {len(table.sizes)} training sizes have "
            f"{smallest(labels)} rows or more, {MIN_POINTS} are needed"
        )
        return Curve(
            shown, usable, None, None, None, None, [], None, confidence, False, why
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    last = usable[-1]
    targets = np.unique(np.geomspace(usable[0], 4 * last, 33).round()).astype(int).tolist()
    targets = sorted({*targets, last, 2 * last})
    law = _fit(table, usable)
    draws = _draws(table, usable, targets, rng)  # one row a draw, one column a target
    line = [
        _forecast(law, size, draws[:, k], confidence) for k, size in enumerate(targets)
    ]  # fmt: skip
    now, doubled = (line[targets.index(size)] for size in (last, 2 * last))
    steps = draws[:, targets.index(last)] - draws[:, targets.index(2 * last)]
    gain = _gain(law, last, steps, confidence)
    check = _check(table, usable, rng, confidence)
    problem = _few(last, labels, int(table.whole([last])[1][0])) or _unsure(gain, check)
    sentence = problem or _sentence(last, doubled, gain)
    return Curve(
        shown, usable, law, now, doubled, gain, line, check, confidence, problem is None, sentence
    )


def forecast(
    points: Sequence[Point],
    rows: int,
    *,
    labels: int = 0,
    confidence: float = 0.90,
    seed: int = 7,
) -> Forecast:
    """Return the expected accuracy at `rows` from `points` alone."""
    table = _Table(points)
    usable = [size for size in table.sizes if size >= smallest(labels)]
    if len(usable) < 3:
        raise DataError(
            f"{len(usable)} training sizes of {smallest(labels)} rows or more are too few to fit",
            fix="Measure at least three such sizes",
        )
    draws = _draws(table, usable, [rows], np.random.default_rng(seed))
    return _forecast(_fit(table, usable), rows, draws[:, 0], confidence)


class _Table:
    """Points by size and repeat, as hit rates that can be resampled."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.sizes = sorted({point.rows for point in points})
        self.repeats = sorted({point.repeat for point in points})
        self._hits = {(point.rows, point.repeat): point.hits for point in points}

    def whole(self, sizes: Sequence[int]) -> tuple[Array, Array]:
        """Return errors and the rows they were measured on, one a size."""
        return self._errors(sizes, dict.fromkeys(self.repeats), self.repeats)

    def resampled(self, sizes: Sequence[int], rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the same after drawing repeats, and scored rows within each, with replacement."""
        repeats = [self.repeats[k] for k in rng.integers(len(self.repeats), size=len(self.repeats))]
        picks: dict[int, NDArray[np.int64] | None] = {}
        for repeat in set(repeats):
            count = max(len(h) for (_, r), h in self._hits.items() if r == repeat)
            picks[repeat] = rng.integers(count, size=count)
        return self._errors(sizes, picks, repeats)

    def _errors(
        self,
        sizes: Sequence[int],
        picks: dict[int, NDArray[np.int64] | None],
        repeats: Sequence[int],
    ) -> tuple[Array, Array]:
        errors, counts = np.zeros(len(sizes)), np.zeros(len(sizes))
        for k, size in enumerate(sizes):
            wrong, total = 0.0, 0
            for repeat in repeats:
                hits = self._hits.get((size, repeat))
                if hits is None:
                    continue
                pick = picks[repeat]
                drawn = hits if pick is None else hits[pick]
                wrong += len(drawn) - float(drawn.sum())
                total += len(drawn)
            errors[k], counts[k] = (wrong / total, total) if total else (0.5, 0)
        return errors, counts


def _fit(table: _Table, sizes: Sequence[int]) -> PowerLaw:
    return fit_laws(sizes, *table.whole(sizes)).best()


def _draws(
    table: _Table, sizes: Sequence[int], targets: Sequence[int], rng: np.random.Generator
) -> Array:
    """Return errors expected at `targets`, shape (draws, targets), one law a resampling."""
    found = np.empty((_DRAWS, len(targets)))
    for k in range(_DRAWS):
        laws = fit_laws(sizes, *table.resampled(sizes, rng))
        found[k] = laws.drawn(rng.random()).errors(targets)
    return found


def _forecast(law: PowerLaw, rows: int, draws: Array, confidence: float) -> Forecast:
    accuracy = 1.0 - min(law.error(rows), 1.0)
    high, low = (1.0 - float(q) for q in np.quantile(draws, _tails(confidence)))
    return Forecast(rows, accuracy, min(low, accuracy), max(high, accuracy))


def _gain(law: PowerLaw, rows: int, steps: Array, confidence: float) -> tuple[float, float, float]:
    value = law.error(rows) - law.error(2 * rows)
    low, high = (float(q) for q in np.quantile(steps, _tails(confidence)))
    return value, min(low, value), max(high, value)


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _interval(table: _Table, size: int, confidence: float) -> Forecast:
    """Return a measured accuracy with Wilson's interval over all scored rows of a size."""
    from scipy.stats import norm

    errors, counts = table.whole([size])
    right, n = 1.0 - float(errors[0]), float(counts[0])
    z = float(norm.ppf(_tails(confidence)[1]))
    middle = (right + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(right * (1 - right) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Forecast(size, right, max(0.0, middle - half), min(1.0, middle + half))


def _check(
    table: _Table, sizes: Sequence[int], rng: np.random.Generator, confidence: float
) -> dict[str, float] | None:
    """Return the largest point's forecast from the points up to half its rows, or None."""
    last = sizes[-1]
    half = [size for size in sizes if size <= last / 2]
    if len(half) < 3:
        return None
    expected = _forecast(
        _fit(table, half), last, _draws(table, half, [last], rng)[:, 0], confidence
    )  # fmt: skip
    measured = 1.0 - float(table.whole([last])[0][0])
    return {
        "rows": last,
        "from_rows": half[-1],
        "expected": expected.accuracy,
        "low": expected.low,
        "high": expected.high,
        "measured": measured,
        "off": abs(expected.accuracy - measured),
        "inside": float(expected.low <= measured <= expected.high),
    }


def _few(rows: int, labels: int, scored: int) -> str | None:
    """Return why the rows are too few, or None."""
    if rows < ENOUGH_A_LABEL * labels:
        return (
            f"too few rows to say: {rows:,} rows are {rows / labels:.1f} a label, "
            f"{ENOUGH_A_LABEL} are needed"
        )
    if scored < MIN_SCORED:
        return f"too few rows to say: {scored} rows are scored, {MIN_SCORED} are needed"
    return None


def _unsure(gain: tuple[float, float, float], check: dict[str, float] | None) -> str | None:
    """Return why the curve can't be relied on, or None."""
    if check is not None and not check["inside"] and check["off"] > _OFF:
        return (
            f"too few rows to say: from up to {check['from_rows']:,.0f} rows the curve expects "
            f"{check['expected']:.1%} at {check['rows']:,.0f}, measured were "
            f"{check['measured']:.1%}"
        )
    if (gain[2] - gain[1]) / 2 > WIDEST:
        return (
            f"too few rows to say: doubling would bring between {100 * gain[1]:+.1f} and "
            f"{100 * gain[2]:+.1f} points"
        )
    return None


def _sentence(rows: int, doubled: Forecast, gain: tuple[float, float, float]) -> str:
    """Return the answer in one sentence for a person."""
    return (
        f"{doubled.rows:,} rows instead of {rows:,} would bring {100 * gain[0]:+.1f} points "
        f"({100 * gain[1]:+.1f} to {100 * gain[2]:+.1f}): {doubled.accuracy:.1%} are expected "
        f"({doubled.low:.1%} to {doubled.high:.1%})"
    )
