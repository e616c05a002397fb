"""Every table, so that Alembic and tests see them all."""

from tutelage.store import (
    annotations,
    artifacts,
    human,
    judgements,
    preferences,
    records,
    releases,
    repairs,
    scores,
    shapes,
)

__all__ = [
    "annotations",
    "artifacts",
    "human",
    "judgements",
    "preferences",
    "records",
    "releases",
    "repairs",
    "scores",
    "shapes",
]
