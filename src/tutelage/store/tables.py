"""Every table, so that Alembic and tests see them all."""

from tutelage.store import annotations, artifacts, preferences, records, releases, repairs, scores

__all__ = ["annotations", "artifacts", "preferences", "records", "releases", "repairs", "scores"]
