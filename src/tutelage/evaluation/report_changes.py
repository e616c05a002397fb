"""The rows of the report document: what tuning fixed, broke, left wrong, and does best and worst.

Rows are chosen and put side by side here; how they look is report_rows.py's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.example import Example
from tutelage.evaluation.candidates import TUNED
from tutelage.evaluation.scoring import Scored
from tutelage.evaluation.task import Task

SHOWN = 40  # rows shown a group; the counts are of all
_CLOSE = 0.5  # a score that did not change and lies below this counts as wrong
_GROUPS = ("fixed", "broken", "both_wrong", "both_right")


def changes(task: Task, scored: Mapping[str, Scored], against: str | None) -> dict[str, Any]:
    """Return counts and rows by group: the tuned candidate against `against`, row by row.

    For a graded metric "fixed" means scored higher, and `best` and `worst` are the tuned model's
    highest and lowest scores; for right-or-wrong metrics both stay empty: the groups say it all.
    """
    if TUNED not in scored or against is None or against not in scored:
        empty: dict[str, Any] = {group: [] for group in (*_GROUPS, "best", "worst")}
        return {"against": None, "counts": dict.fromkeys(_GROUPS, 0), "graded": False, **empty}
    before, after = scored[against].scores[task.primary], scored[TUNED].scores[task.primary]
    groups: dict[str, list[tuple[float, Example]]] = {group: [] for group in _GROUPS}
    kept: list[tuple[float, Example]] = []
    for row in task.rows:
        old, new = before[row.id].value, after[row.id].value
        if old is None or new is None:
            continue
        kept.append((new, row))
        groups[_group(old, new)].append((_order(old, new), row))
    graded = any(value not in (0.0, 1.0) for value, _ in kept)
    worst = sorted(kept, key=lambda pair: pair[0]) if graded else []
    picked = {
        **{group: sorted(rows, key=lambda pair: pair[0]) for group, rows in groups.items()},
        "best": worst[::-1],
        "worst": worst,
    }
    shown = {
        group: [side_by_side(task, scored, row) for _, row in rows[:SHOWN]]
        for group, rows in picked.items()
    }
    counts = {group: len(rows) for group, rows in groups.items()}
    return {"against": against, "counts": counts, "graded": graded, **shown}


def _group(old: float, new: float) -> str:
    if new > old:
        return "fixed"
    if new < old:
        return "broken"
    return "both_wrong" if new < _CLOSE else "both_right"


def _order(old: float, new: float) -> float:
    """Return the sort key within a group: the largest change first, then the lowest score."""
    return -abs(new - old) if new != old else new


def side_by_side(task: Task, scored: Mapping[str, Scored], row: Example) -> dict[str, Any]:
    """Return one row: input, right answer, what each candidate wrote and its primary score."""
    written = {
        name: found
        for name, found in scored.items()
        if row.id in found.rows and (found.usage or name == TUNED)
    }
    scores = {name: found.scores[task.primary][row.id].value for name, found in written.items()}
    tuned = scored[TUNED].scores[task.primary][row.id]
    return {
        "id": row.id,
        "input": row.input_text,
        "expected": row.answer,
        "label": row.label,
        "answers": {name: found.rows[row.id].text for name, found in written.items()},
        "scores": scores,
        "why": tuned.evidence.get("why"),
    }


def spread(values: Sequence[float | None]) -> list[float]:
    """Return the values that are there and finite: what a distribution is drawn from."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]
