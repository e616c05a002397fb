"""Every table, so that Alembic and tests see them all."""

from tutelage.store import (
    alerts,
    annotations,
    artifacts,
    human,
    judgements,
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
    "human",
    "judgements",
    "mining",
    "preferences",
    "records",
    "releases",
    "repairs",
    "scores",
    "shapes",
    "usage",
]
