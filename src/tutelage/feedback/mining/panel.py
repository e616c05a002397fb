"""Where judges of one answer differ: the verdicts that live evaluation paid for, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from tutelage.feedback.mining.scan import CHUNK, Window
from tutelage.store.base import Store
from tutelage.store.judgements import JudgeVerdictRow
from tutelage.store.live import LiveRow


@dataclass(frozen=True)
class Split:
    """The widest difference of judges on one record, 0..1, on which criterion, and their levels."""

    strength: float
    criterion: str
    levels: Mapping[str, int]

    @property
    def words(self) -> str:
        """The difference in words."""
        told = ", ".join(f"{judge} {level}" for judge, level in self.levels.items())
        return f"judges differ on {self.criterion}: {told}"


def splits(store: Store, window: Window) -> dict[str, Split]:
    """Return, by record, where judges gave different levels.

    Levels are compared on the range that the criterion was given at all.
    """
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    highest: dict[str, int] = defaultdict(int)
    lowest: dict[str, int] = {}
    query = (
        select(JudgeVerdictRow.item, JudgeVerdictRow.criterion, JudgeVerdictRow.judge,
               JudgeVerdictRow.outcome)
        .join(LiveRow, LiveRow.record == JudgeVerdictRow.item)
        .where(JudgeVerdictRow.outcome.is_not(None), LiveRow.at < window.until)
        .order_by(JudgeVerdictRow.at, JudgeVerdictRow.key)
    )  # fmt: skip
    if window.since is not None:
        query = query.where(LiveRow.at >= window.since)
    with store.session() as session:
        rows = session.execute(query.execution_options(yield_per=CHUNK))
        for item, criterion, judge, outcome in rows:
            if outcome is None or not outcome.isdigit():
                continue  # a duel: it compares, and marks nothing
            level = int(outcome)
            found[item, criterion][judge] = level
            highest[criterion] = max(highest[criterion], level)
            lowest[criterion] = min(lowest.get(criterion, level), level)
    out: dict[str, Split] = {}
    for (item, criterion), levels in found.items():
        apart = max(levels.values()) - min(levels.values())
        strength = apart / max(highest[criterion] - lowest[criterion], 1)
        if apart and strength > (out[item].strength if item in out else 0.0):
            out[item] = Split(strength, criterion, levels)
    return out
