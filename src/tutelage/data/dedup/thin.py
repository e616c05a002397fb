"""The step that leaves out near-duplicates, for projects that ask for it (data.dedup.near: drop).

A row is left out only if a kept row has nearly the same input *and* the same answer. Rows of the
test split are preferred to others as the one that stays, so no test row makes way for a new one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from tutelage.core.example import SPLITS, Example, SplitName, normalise
from tutelage.data.dedup.near import NearDuplicates
from tutelage.data.filters.base import at
from tutelage.data.findings import Finding, reason
from tutelage.data.pipeline import Dropped, StepResult


class NearStep:
    """Keeps one row of near-duplicates with one answer, or with `near="keep"` only counts them.

    `frozen` is the side of rows of earlier versions, by example id.
    """

    name = "near"

    def __init__(
        self,
        near: Literal["keep", "drop"] = "keep",
        threshold: float = 80.0,
        frozen: Mapping[str, SplitName] | None = None,
    ) -> None:
        self._drop = near == "drop"
        self._threshold = threshold
        self._frozen = frozen or {}

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return the rows that stay, and each one left out with the row it resembles."""
        near: dict[int, list[int]] = defaultdict(list)
        for i, j in NearDuplicates(self._threshold).pairs([r.input_text for r in rows]).tolist():
            near[i].append(j)
            near[j].append(i)
        if not self._drop:
            return StepResult(list(rows), findings=_kept(rows, near))
        stays: set[int] = set()
        lost: dict[int, Dropped] = {}
        findings: list[Finding] = []
        for index in sorted(near, key=lambda i: (self._order(rows[i]), i)):
            row = rows[index]
            twin = next(
                (rows[i] for i in near[index] if i in stays and self._same(row, rows[i])), None
            )
            if twin is None:
                stays.add(index)
                continue
            detail = f"nearly the same as {twin.origin.source or twin.id}"
            lost[index] = Dropped(row, "D4-N02", reason("D4-N02", detail), twin.id)
            findings.append(at(row, "D4-N02", detail))
        kept = [row for index, row in enumerate(rows) if index not in lost]
        return StepResult(kept, dropped=[lost[i] for i in sorted(lost)], findings=findings)

    def _order(self, row: Example) -> int:
        """Return 0 for a frozen test row, then validation, train, and rows that are new."""
        for known in (row.id, *row.origin.parents):
            if known in self._frozen:
                return len(SPLITS) - 1 - SPLITS.index(self._frozen[known])
        return len(SPLITS)

    def _same(self, one: Example, two: Example) -> bool:
        """Return whether two rows have one label or, without labels, nearly the same answer."""
        if one.label is not None or two.label is not None:
            return one.label == two.label
        left, right = normalise(one.answer or ""), normalise(two.answer or "")
        return left == right or len(NearDuplicates(self._threshold).pairs([left, right])) > 0


def _kept(rows: Sequence[Example], near: Mapping[int, list[int]]) -> list[Finding]:
    """Return a finding for each row that is nearly the same as an earlier one."""
    found = []
    for index in sorted(near):
        first = min(near[index])
        if first < index:
            twin = rows[first]
            found.append(at(rows[index], "D4-N01", f"like {twin.origin.source or twin.id}"))
    return found
