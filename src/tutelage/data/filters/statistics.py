"""The third layer: the rows as a whole. Too few, all alike, unbalanced, refusing, drifted.

`fatal` says which findings stop curation: a version made of such rows could teach nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.filters.base import FilterSettings, at
from tutelage.data.filters.refusal import is_refusal
from tutelage.data.findings import Finding, catalogue
from tutelage.data.normalise.label import spellings
from tutelage.data.stability import NOTABLE, by_chance, length_shares, stability

MINIMUM_ROWS = 10  # one row a split and something to learn from
FEW_A_CLASS = 10
IMBALANCE = 10.0  # largest class over smallest
LONG = 8.0  # times the median length
FATAL = ("D2-T01", "D2-T02", "D2-T03")
_LEAST_FOR_DRIFT = 50  # rows a version


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
        yield from self._refusals(rows)
        yield from _long_rows(rows)
        previous = self._settings.previous
        if min(len(previous), len(rows)) >= _LEAST_FOR_DRIFT:
            yield from _drift(previous, rows)

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
        if not self._settings.output.labels:
            yield from _spelled_differently(rows, counts)
        for label, count in sorted(counts.items()):
            if count < FEW_A_CLASS:
                yield Finding("D2-T05", f"{label!r} has {count} {'row' if count == 1 else 'rows'}")
        if counts:
            (big, most), (small, least) = counts.most_common()[0], counts.most_common()[-1]
            if most / least >= IMBALANCE:
                detail = f"{big!r} has {most:,} rows, {small!r} {least:,}: {most / least:.0f} times"
                yield Finding("D2-T04", detail)

    def _refusals(self, rows: Sequence[Example]) -> Iterator[Finding]:
        if self._settings.output.labels:
            return
        limit = self._settings.refusal_share
        refusals = sum(refuses(row) for row in rows)
        if rows and refusals / len(rows) > limit:
            share = f"{refusals / len(rows):.0%} of the answers ({refusals:,})"
            yield Finding("D2-T06", f"{share} refuse; the limit is {limit:.0%}")


def refuses(row: Example) -> bool:
    """Return whether a row's answer, or the label in it, is a refusal."""
    return not row.is_text and is_refusal(row.label or row.answer or "")


def all_the_same(rows: Sequence[Example]) -> DataError | None:
    """Return the error for rows that all have one id, or None. Runs before duplicates leave."""
    if len(rows) > 1 and len({row.id for row in rows}) == 1:
        return _error("D2-T02", f"all {len(rows):,} rows are identical")
    return None


def fatal(findings: Sequence[Finding]) -> DataError | None:
    """Return the error for the first finding that stops curation, or None."""
    found = next((f for f in findings if f.id in FATAL), None)
    return _error(found.id, found.detail) if found else None


def _error(finding_id: str, detail: str) -> DataError:
    return DataError(f"{detail} [{finding_id}]", fix=catalogue()[finding_id].fix)


def _spelled_differently(rows: Sequence[Example], counts: Counter[str]) -> Iterator[Finding]:
    usual = spellings(counts)
    for row in rows:
        if row.label in usual:
            yield at(row, "D2-T10", f"{row.label!r}, and mostly {usual[row.label]!r}")


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


def _drift(previous: Sequence[Example], rows: Sequence[Example]) -> Iterator[Finding]:
    yield from _length_drift(
        "input", [len(r.input_text) for r in previous], [len(r.input_text) for r in rows]
    )
    yield from _length_drift(
        "answer", [len(r.answer or "") for r in previous], [len(r.answer or "") for r in rows]
    )
    labels = sorted({row.label for row in (*previous, *rows) if row.label is not None})
    if 2 <= len(labels) <= 200:
        one, two = (_label_shares(part, labels) for part in (previous, rows))
        moved = stability(one, two)
        if moved > max(NOTABLE, by_chance(len(labels), len(previous), len(rows))):
            most = labels[int(np.abs(two - one).argmax())]
            detail = f"label shares moved, {most!r} most (stability index {moved:.2f})"
            yield Finding("D2-T09", detail)


def _length_drift(name: str, previous: Sequence[int], now: Sequence[int]) -> Iterator[Finding]:
    old, new = np.array(previous), np.array(now)
    one, two = length_shares(old, new)
    moved = stability(one, two)
    if moved > max(NOTABLE, by_chance(len(one), len(old), len(new))):
        detail = f"{name} lengths: median {np.median(old):.0f} to {np.median(new):.0f} characters"
        yield Finding("D2-T09", f"{detail} (stability index {moved:.2f})")


def _label_shares(rows: Sequence[Example], labels: list[str]) -> NDArray[np.float64]:
    counts = Counter(row.label for row in rows)
    return np.array([counts[label] for label in labels], dtype=np.float64) / len(rows)
