"""What a rollout's page shows, look by look: both arms' figures, their course, the tests' bound.

Each look reads of the request log only what is new. It judges as the controller does and moves
nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tutelage.core.config_deploy import Limits
from tutelage.release import sequential as seq
from tutelage.release.arms import ArmLog, ScoreLog
from tutelage.release.evidence import Collector, Evidence
from tutelage.release.means import ScoreBlocks
from tutelage.release.power import memory_unseen
from tutelage.release.quality import score_tests
from tutelage.release.rollback import TESTS, judge, run_tests, unseen
from tutelage.release.rollout import ACTIVE
from tutelage.release.routes import journal, last_rollout, memory_before
from tutelage.store.base import Store
from tutelage.store.releases import RolloutRow, TransitionRow
from tutelage.workflows.context import Context
from tutelage.workflows.release import rollout

POINTS = 120  # of a line that is drawn
SPANS = 40  # of time that latencies are summed up in
_QUANTILES = (0.5, 0.95, 0.99)
_LOG10 = float(np.log(10))
_FRESH_S = 0.9  # a look serves everybody who looks within this time

_watches: WeakKeyDictionary[Store, dict[str, RolloutWatch]] = WeakKeyDictionary()


def watch_of(ctx: Context, deployment: str) -> RolloutWatch:
    """Return the watch of a deployment that all who look at it share."""
    found = _watches.setdefault(ctx.store, {})
    return found.setdefault(deployment, RolloutWatch(ctx, deployment))


class RolloutWatch:
    """Follows the newest rollout of one deployment, whether it is under way or has ended."""

    def __init__(self, ctx: Context, deployment: str) -> None:
        self._ctx, self.deployment = ctx, deployment
        self._lock = threading.Lock()
        self._of: str | None = None
        self._collector: Collector | None = None
        self._looked = float("-inf")
        self._seen: dict[str, Any] = {}
        self._figures: tuple[object, dict[str, Any]] | None = None

    def look(self) -> dict[str, Any]:
        """Return `rollout.status` with `figures` of the newest rollout, None without one.

        Figures: `arms` (requests, failed, flagged, error_rate, p50, p95, p99), `ratios` of the
        percentiles, `course` of latencies over time, `bounds` of the tests with their `bound`,
        `scores`, and the verdict with its reasons and what could not have been seen.
        """
        with self._lock:
            if time.monotonic() - self._looked > _FRESH_S:
                self._seen = self._look()
                self._looked = time.monotonic()
            return self._seen

    def moved(self) -> None:
        """Let the next look read anew, whenever it comes: somebody moved the rollout."""
        self._looked = float("-inf")

    def _look(self) -> dict[str, Any]:
        data = rollout.status(self._ctx, self.deployment, judged=False)
        row = last_rollout(self._ctx.store, self.deployment)
        if row is None:
            return {**data, "figures": None}
        found = self._read(row)
        scored = {metric: len(one.value) for metric, one in found.scores.items()}
        key = (row.id, row.state in ACTIVE, len(found.baseline), len(found.canary), scored,
               len(found.canary.refused), found.baseline.problem)  # fmt: skip
        if self._figures is None or self._figures[0] != key:
            limits, under_way = self._ctx.config.deploy.limits, row.state in ACTIVE
            moves = journal(self._ctx.store, row.id)
            self._figures = key, figures_of(found, limits, moves, under_way=under_way)
        return {**data, "figures": self._figures[1]}

    def _read(self, row: RolloutRow) -> Evidence:
        if self._collector is None or self._of != row.id:
            self._collector, self._of = Collector(self._ctx.store, row), row.id
        return self._collector.read()


def figures_of(
    found: Evidence, limits: Limits, moves: Sequence[TransitionRow] = (), *, under_way: bool = True
) -> dict[str, Any]:
    """Return what `RolloutWatch.look` has under `figures`, from what both arms did.

    `moves` is the rollout's journal.
    """
    verdict = judge(found.baseline, found.canary, limits, found.scores)
    arms = {"baseline": _arm(found.baseline), "canary": _arm(found.canary)}
    hidden: list[str] = []
    if under_way and verdict.verdict in ("pass", "inconclusive"):
        hidden = unseen(found.baseline, found.canary, limits, found.scores)
        hidden += memory_unseen(memory_before(moves))
    readable = verdict.verdict != "collector_error"
    return {
        "arms": arms,
        "ratios": {name: _ratio(arms, name) for name in ("p50", "p95", "p99")},
        "limit": limits.latency,
        "error_limit": limits.error_rate,
        "course": _course(found) if readable else [],
        "bounds": _bounds(found, limits) if readable and found.canary.live.any() else [],
        "scores": _scores(found.scores, limits, int(found.canary.live.sum())),
        "verdict": verdict.verdict,
        "reasons": list(verdict.reasons),
        "withheld": verdict.withheld,
        "unseen": hidden,
    }


def _arm(arm: ArmLog) -> dict[str, Any]:
    live = arm.live
    latency = arm.latency_ms[live & ~arm.failed]
    shown = np.quantile(latency, _QUANTILES).tolist() if len(latency) else (None,) * 3
    requests, failed = int(live.sum()), int(arm.failed[live].sum())
    return {
        "requests": requests,
        "failed": failed,
        "flagged": int(arm.flagged[live].sum()),
        "error_rate": failed / requests if requests else None,
        **dict(zip(("p50", "p95", "p99"), shown, strict=True)),
    }


def _ratio(arms: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    before, now = arms["baseline"][name], arms["canary"][name]
    return now / before if before and now is not None else None


def _course(found: Evidence) -> list[dict[str, Any]]:
    """Return, for equal spans of the rollout's time, each arm's p50 and p95 and requests."""
    sides = {"baseline": found.baseline, "canary": found.canary}
    times = np.concatenate([arm.at[arm.live] for arm in sides.values()])
    if not len(times):
        return []
    begin, end = float(times.min()), float(times.max())
    edges = np.linspace(begin, max(end, begin + 1.0), SPANS + 1)
    rows: list[dict[str, Any]] = [{"at": float(edge)} for edge in edges[1:]]
    for name, arm in sides.items():
        kept = arm.live & ~arm.failed
        place = np.clip(np.searchsorted(edges, arm.at[kept], side="right") - 1, 0, SPANS - 1)
        latency = arm.latency_ms[kept]
        for index, row in enumerate(rows):
            here = latency[place == index]
            p50, p95 = np.quantile(here, (0.5, 0.95)).tolist() if len(here) else (None, None)
            row[name] = {"requests": len(here), "p50": p50, "p95": p95}
    return rows


def _bounds(found: Evidence, limits: Limits) -> list[dict[str, Any]]:
    """Return each test's evidence in powers of ten by canary requests, and where it decides."""
    bound = float(np.log10(len(TESTS) / limits.alpha))
    rows = [
        {
            "name": test.name, "says": test.says, "observed": test.observed,
            "expected": round(test.expected, 1), "requests": test.requests, "bound": bound,
            **_line(test.seen, test.path),
        }
        for test in run_tests(found.baseline, found.canary, limits)
    ]  # fmt: skip
    marks = score_tests(found.scores, limits, len(TESTS), int(found.canary.live.sum()))
    for mark in marks:
        blocks = ScoreBlocks.of(found.scores[mark.metric])
        seen = np.cumsum(blocks.canary)
        rows.append({
            "name": f"score {mark.metric}", "says": "scored lower", "observed": None,
            "expected": None, "requests": mark.scored, "bound": mark.threshold / _LOG10,
            **_line(seen, blocks.worse()),
        })  # fmt: skip
    return rows


def _line(seen: NDArray[np.int64], path: NDArray[np.float64]) -> dict[str, Any]:
    """Return at most POINTS of a path, its highest point among them, and where it is now."""
    size = min(len(seen), len(path))
    if not size:
        return {"points": [[0, 0.0]], "now": 0.0, "peak": 0.0}
    log10 = path[:size] / _LOG10
    places = np.linspace(0, size - 1, min(size, POINTS)).round().astype(int)
    places = np.unique(np.append(places, int(log10.argmax())))
    points = [[int(seen[i]), round(float(log10[i]), 3)] for i in places]
    peak = max(0.0, float(log10.max()))
    return {"points": [[0, 0.0], *points], "now": float(log10[-1]), "peak": peak}


def _scores(scores: ScoreLog, limits: Limits, requests: int) -> list[dict[str, Any]]:
    marks = score_tests(scores, limits, len(TESTS), requests)
    return [{"metric": mark.metric, **mark.as_dict(), "withheld": mark.withheld} for mark in marks]


def shown_e(log10: float) -> str:
    """Return an e-value for a person from its power of ten: 3.2, 145, 10^12."""
    if log10 > 6:
        return f"10^{log10:.0f}"
    return f"{seq.shown(log10 * _LOG10):.3g}"
