"""Every table, so that Alembic and tests see them all."""

from tutelage.store import (
    alerts,
    annotations,
    artifacts,
    drift,
    human,
    improve,
    judgements,
    live,
    mining,
    preferences,
    records,
    releases,
    repairs,
    scores,
    shapes,
    usage,
)

__all__ = [
    "alerts",
    "annotations",
    "artifacts",
    "drift",
    "human",
    "improve",
    "judgements",
    "live",
    "mining",
    "preferences",
    "records",
    "releases",
    "repairs",
    "scores",
    "shapes",
    "usage",
]
