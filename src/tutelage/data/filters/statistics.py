"""The third layer: the rows as a whole. Too few, all alike, unbalanced, drifted.

`fatal` says which findings stop curation: a version made of such rows could teach nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.filters.base import FilterSettings, at
from tutelage.data.filters.content import is_refusal
from tutelage.data.findings import Finding, catalogue

MINIMUM_ROWS = 10  # one row a split and something to learn from
FEW_A_CLASS = 10
REFUSAL_SHARE = 0.05
IMBALANCE = 10.0  # largest class over smallest
DRIFT = 0.2  # population stability index: 0.1 some, 0.2 much
LONG = 8.0  # times the median length
FATAL = ("D2-T01", "D2-T02", "D2-T03")


class StatisticsCheck:
    """Checks counts, balance, lengths, refusals, and drift against the last version."""

    def __init__(self, settings: FilterSettings | None = None) -> None:
        self._settings = settings or FilterSettings()

    def check(self, example: Example) -> Iterator[Finding]:
        """Yield nothing: statistics need all rows."""
        yield from ()

    def check_all(self, rows: Sequence[Example]) -> Iterator[Finding]:
        """Yield every finding about the set."""
        yield from self._amount(rows)
        yield from self._balance(rows)
        refusals = sum(is_refusal(row.answer or "") for row in rows)
        if rows and refusals / len(rows) > REFUSAL_SHARE:
            share = f"{refusals / len(rows):.0%} of the answers ({refusals:,})"
            yield Finding("D2-T06", f"{share} refuse; the limit is {REFUSAL_SHARE:.0%}")
        yield from _long_rows(rows)
        yield from self._drift(rows)

    @staticmethod
    def _amount(rows: Sequence[Example]) -> Iterator[Finding]:
        if len(rows) < MINIMUM_ROWS:
            noun = "row is" if len(rows) == 1 else "rows are"
            detail = f"{len(rows)} usable {noun} left, and at least {MINIMUM_ROWS} are needed"
            yield Finding("D2-T01", detail)

    def _balance(self, rows: Sequence[Example]) -> Iterator[Finding]:
        if self._settings.task != "classification" or not rows:
            return
        counts = Counter(row.label for row in rows if row.label is not None)
        if len(counts) == 1:
            (label,) = counts
            yield Finding("D2-T03", f"every row has the label {label!r}")
            return
        for label in self._settings.output.labels:
            if label not in counts:
                yield Finding("D2-T07", f"no row has the label {label!r}")
        for label, count in sorted(counts.items()):
            if count < FEW_A_CLASS:
                yield Finding("D2-T05", f"{label!r} has {count} {'row' if count == 1 else 'rows'}")
        if counts:
            (big, most), (small, least) = counts.most_common()[0], counts.most_common()[-1]
            if most / least >= IMBALANCE:
                detail = f"{big!r} has {most:,} rows, {small!r} {least:,}: {most / least:.0f} times"
                yield Finding("D2-T04", detail)

    def _drift(self, rows: Sequence[Example]) -> Iterator[Finding]:
        previous = self._settings.previous
        if len(previous) < 50 or len(rows) < 50:
            return
        old = np.array([len(row.input_text) for row in previous])
        new = np.array([len(row.input_text) for row in rows])
        edges = np.unique(np.quantile(old, np.linspace(0.1, 0.9, 9)))
        lengths = stability(_shares(old, edges), _shares(new, edges))
        if lengths > DRIFT:
            detail = (
                f"input lengths: median {np.median(old):.0f} to {np.median(new):.0f} characters"
            )
            yield Finding("D2-T09", f"{detail} (stability index {lengths:.2f})")
        labels = sorted({row.label for row in (*previous, *rows) if row.label is not None})
        if 2 <= len(labels) <= 200:
            one, two = (_label_shares(part, labels) for part in (previous, rows))
            moved = stability(one, two)
            if moved > DRIFT:
                most = labels[int(np.abs(two - one).argmax())]
                detail = f"label shares moved, {most!r} most (stability index {moved:.2f})"
                yield Finding("D2-T09", detail)


def all_the_same(rows: Sequence[Example]) -> DataError | None:
    """Return the error for rows that all have one id, or None. Runs before duplicates leave."""
    if len(rows) > 1 and len({row.id for row in rows}) == 1:
        return _error("D2-T02", f"all {len(rows):,} rows are identical")
    return None


def fatal(findings: Sequence[Finding]) -> DataError | None:
    """Return the error for the first finding that stops curation, or None."""
    found = next((f for f in findings if f.id in FATAL), None)
    return _error(found.id, found.detail) if found else None


def stability(
    expected: np.ndarray[tuple[int], np.dtype[np.float64]],
    found: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """Return the population stability index of two histograms of shares, sum((f-e) ln(f/e))."""
    floor = 1e-3
    one, two = np.maximum(expected, floor), np.maximum(found, floor)
    return float(((two - one) * np.log(two / one)).sum())


def _error(finding_id: str, detail: str) -> DataError:
    return DataError(f"{detail} [{finding_id}]", fix=catalogue()[finding_id].fix)


def _long_rows(rows: Sequence[Example]) -> Iterator[Finding]:
    if len(rows) < 20:
        return
    lengths = [sum(len(m.content) for m in row.messages) for row in rows]
    median = float(np.median(lengths))
    for row, length in zip(rows, lengths, strict=True):
        if length > LONG * median and length > 2000:
            yield at(
                row, "D2-T08", f"{length:,} characters, {length / median:.0f} times the median"
            )


def _shares(
    values: np.ndarray[tuple[int], np.dtype[np.int64]],
    edges: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    return counts / len(values)


def _label_shares(
    rows: Sequence[Example], labels: list[str]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = Counter(row.label for row in rows)
    return np.array([counts[label] for label in labels], dtype=np.float64) / len(rows)
