"""What the requests of a release cost, looked up once a release. It sets no price."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from tutelage.core.config import Project
from tutelage.serving.access.pricing import Pricing
from tutelage.store.base import Store
from tutelage.store.releases import ReleaseRow

# release id, tokens asked, tokens answered, seconds -> money, or None without a price
Price = Callable[[str, int, int, float], float | None]


def prices(store: Store, project: Project) -> Price:
    """Return the price of a request of a release, in the project's currency."""
    pricing = Pricing(project)
    with store.session() as session:
        rows = session.execute(select(ReleaseRow.id, ReleaseRow.name, ReleaseRow.manifest)).all()
    known = {row.id: (row.name, bool(row.manifest.get("adapter"))) for row in rows}

    def price(release: str, asked: int, answered: int, seconds: float) -> float | None:
        name, tuned = known.get(release, (release[:12], False))
        return pricing.cost(name, tuned, (asked, answered), seconds)

    return price


def free(release: str, asked: int, answered: int, seconds: float) -> float | None:
    """Return None: nothing has a price."""
    return None
