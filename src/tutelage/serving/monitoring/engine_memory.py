"""How full the engine's memory is, as ratios by kind: machine, GPU, keys and values.

It samples what a launcher tells; what a high ratio means is decided in release/rollback.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

import psutil

from tutelage.core.errors import TutelageError
from tutelage.release.evidence import Facts

_EVERY_S = 5.0
_TIMEOUT_S = 2.0
_log = logging.getLogger(__name__)

Ratios = Mapping[str, float]


class EngineMemory:
    """Samples of one host's memory, and for each rollout those from before and since its load.

    A sample counts for every rollout under way: their candidates share the engine.
    """

    def __init__(self, host: Any, *, every_s: float = _EVERY_S) -> None:
        self._host, self._every_s = host, every_s
        self._at = -float("inf")
        self._before: dict[str, Ratios | None] = {}
        self._since: dict[str, list[Ratios]] = {}

    async def before(self, rollout: str) -> None:
        """Sample once for a rollout whose candidate is about to be loaded."""
        if rollout not in self._before:
            self._before[rollout] = await self._sample()

    def knows(self, rollout: str) -> bool:
        """Return whether a sample from before was taken or recalled."""
        return rollout in self._before

    def was(self, rollout: str) -> Ratios | None:
        """Return the sample from before a rollout's candidate came; None: nothing was told."""
        return self._before.get(rollout)

    def recall(self, rollout: str, before: Ratios | None) -> None:
        """Take the sample from before that the journal kept."""
        self._before[rollout] = before

    def keep(self, rollouts: Collection[str | None]) -> None:
        """Forget the rollouts that were looked at and are not among these."""
        for rollout in [name for name in self._since if name not in rollouts]:
            del self._since[rollout]
            self._before.pop(rollout, None)

    async def look(self, rollout: str) -> None:
        """Sample for a rollout under way, not more often than every five seconds."""
        self._since.setdefault(rollout, [])
        if time.monotonic() - self._at >= self._every_s:
            await self._sample()

    def facts(self, rollout: str, fault: str | None = None) -> Facts:
        """Return what is known for a verdict."""
        before = self._before.get(rollout) or {}
        return Facts(_by_kind(self._since.get(rollout, [])), _by_kind([before]), fault)

    async def _sample(self) -> Ratios | None:
        """Return how full the memory is, and note it for each rollout; None: it is not told."""
        self._at = time.monotonic()
        found = await self._ask()
        if found is not None:
            for kept in self._since.values():
                kept[:] = [*kept, found][-2:]
        return found

    async def _ask(self) -> Ratios | None:
        stats = getattr(self._host, "stats", None)
        if stats is None:
            return None
        try:
            told = await asyncio.wait_for(stats(), _TIMEOUT_S)
        except (TutelageError, TimeoutError, OSError, ValueError) as error:
            _log.warning("the engine's memory is not known: %s", error)
            return None
        return ratios(told) or (None if _is_silent(told) else {})


def ratios(stats: Mapping[str, Any]) -> Ratios:
    """Return the ratios in what a launcher's `stats()` tells.

    `memory` maps a kind ("GPU memory", "KV cache") to a ratio; `pss_mb` is the engine's share of
    this machine's memory.
    """
    told = stats.get("memory")
    found = {str(k): float(v) for k, v in told.items()} if isinstance(told, Mapping) else {}
    if stats.get("pss_mb"):
        total = psutil.virtual_memory().total
        found["memory"] = float(stats["pss_mb"]) * 2**20 / total
    return found


def _is_silent(stats: Mapping[str, Any]) -> bool:
    """Return whether no server tells of its memory; one whose cache has room tells no ratio."""
    figures = [backend.get("figures", {}) for backend in stats.get("backends", ())]
    return not any({"kv_cache", "gpu_memory"} & set(found) for found in figures)


def _by_kind(samples: list[Ratios]) -> dict[str, tuple[float, ...]]:
    kinds = {kind for sample in samples for kind in sample}
    return {k: tuple(s[k] for s in samples if k in s) for k in sorted(kinds)}
