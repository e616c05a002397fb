"""Exact duplicates: the same input and answer once; the same input with other answers is flagged.

"The same" is after normalisation: Unicode NFC, lower case, single spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tutelage.core.example import Example, normalise
from tutelage.data.dedup.base import Pairs, as_pairs
from tutelage.data.filters.base import at
from tutelage.data.findings import Finding, reason
from tutelage.data.pipeline import Dropped, StepResult


class ExactDuplicates:
    """Keeps the first of equal rows. `across_labels` says what happens to contradictions."""

    name = "exact"

    def __init__(self, across_labels: Literal["keep", "drop"] = "keep") -> None:
        self._drop = across_labels == "drop"

    def pairs(self, texts: Sequence[str]) -> Pairs:
        """Return each text that was there before, paired with its first copy, shape (P, 2)."""
        first: dict[str, int] = {}
        twins = [first.setdefault(normalise(text), index) for index, text in enumerate(texts)]
        return as_pairs(twins, range(len(twins)))

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return one row an input and answer; contradicting rows are kept or all dropped."""
        groups: dict[str, list[Example]] = {}
        for row in rows:
            groups.setdefault(input_key(row), []).append(row)
        lost: dict[int, Dropped] = {}
        findings: list[Finding] = []
        for group in groups.values():
            first: dict[str, Example] = {}
            for row in group:
                twin = first.setdefault(normalise(row.answer or ""), row)
                if twin is not row:
                    why = reason("D4-E01", f"the same as {twin.origin.source or twin.id}")
                    lost[id(row)] = Dropped(row, "D4-E01", why, twin.id)
                    findings.append(at(row, "D4-E01", f"same as {twin.origin.source}"))
            if len(first) > 1:
                findings += self._contradictions(list(first.values()), lost)
        kept = [row for row in rows if id(row) not in lost]
        dropped = [lost[id(row)] for row in rows if id(row) in lost]
        return StepResult(kept, dropped=dropped, findings=findings)

    def _contradictions(self, rows: list[Example], lost: dict[int, Dropped]) -> list[Finding]:
        key = "D4-K02" if self._drop else "D4-K01"
        answers = " and ".join(repr((row.label or row.answer or "")[:40]) for row in rows[:3])
        found = []
        for row in rows:
            detail = f"this input has the answers {answers}"
            found.append(at(row, key, detail))
            if self._drop:
                cause = next(other.id for other in rows if other is not row)
                lost[id(row)] = Dropped(row, key, reason(key, detail), cause)
        return found


def input_key(row: Example) -> str:
    """Return the conversation before the answer, normalised, system message included.

    Raw text is its own input: two texts never contradict each other.
    """
    if row.is_text:
        return normalise(row.input_text)
    return "\n".join(f"{turn.role}:{normalise(turn.content)}" for turn in row.context)
