"""Every table, so that Alembic and tests see them all."""

from tutelage.store import artifacts, records, releases, scores

__all__ = ["artifacts", "records", "releases", "scores"]
