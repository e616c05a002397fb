"""What the log says of a rollout that is under way, now: for people, who move nothing by it."""

from __future__ import annotations

from typing import Any

from tutelage.core.config import Limits
from tutelage.release.evidence import read_evidence
from tutelage.release.power import memory_unseen
from tutelage.release.rollback import judge, unseen
from tutelage.release.routes import journal, memory_before
from tutelage.store.base import Store
from tutelage.store.releases import RolloutRow


def standing(store: Store, row: RolloutRow, limits: Limits) -> dict[str, Any]:
    """Return the verdict with its reasons and evidence, and what could not have been seen yet."""
    found = read_evidence(store, row)
    verdict = judge(found.baseline, found.canary, limits, found.scores)
    hidden: list[str] = []
    if verdict.verdict in ("pass", "inconclusive"):
        hidden = unseen(found.baseline, found.canary, limits, found.scores)
        hidden += memory_unseen(memory_before(journal(store, row.id)))
    return {
        "verdict": verdict.verdict,
        "reasons": list(verdict.reasons),
        "withheld": verdict.withheld,
        "evidence": dict(verdict.evidence),
        "unseen": hidden,
    }
