"""How far curation is: its steps, and the share of the usual time that is over when each begins."""

from __future__ import annotations

from tutelage.core.events import Event
from tutelage.workflows.context import Context

# of 100,000 short rows on two cores (bench/curate.py); a step that is not here is not announced
_BEGINS = {
    "read": 0.0, "clean": 0.18, "privacy": 0.2, "repairs": 0.42, "schema": 0.43, "content": 0.44,
    "exact": 0.47, "near": 0.5, "statistics": 0.56, "clusters": 0.58, "sides": 0.72,
    "benchmarks": 0.78, "certificate": 0.79, "quality": 0.83, "version": 0.9, "freeze": 0.97,
}  # fmt: skip


def tell(ctx: Context, step: str) -> None:
    """Say which step of curation begins."""
    if step in _BEGINS:
        ctx.emit(Event("curate", "progress", step, done=_BEGINS[step], total=1.0))
