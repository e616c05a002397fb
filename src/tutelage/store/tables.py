"""Every table, so that Alembic and tests see them all."""

from tutelage.store import artifacts, records, releases, repairs, scores

__all__ = ["artifacts", "records", "releases", "repairs", "scores"]
