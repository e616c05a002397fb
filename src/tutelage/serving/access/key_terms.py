"""A key's limits as people say them, for the command line, Python and HTTP: lengths, budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tutelage.core.artifact import utc_now
from tutelage.core.config import Project
from tutelage.core.durations import seconds
from tutelage.core.errors import DataError
from tutelage.serving.access.pricing import Pricing


def length_s(text: Any) -> float:
    """Return the seconds of a length such as 24h; raise DataError for what is none."""
    try:
        return seconds(str(text))
    except ValueError as error:
        raise DataError(str(error)) from None


def with_expiry(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `changes` with `expires`, a length from now or None, as `expires_at`."""
    found = dict(changes)
    if "expires" in found:
        length = found.pop("expires")
        found["expires_at"] = None if length is None else _from_now(length)
    return found


def _from_now(length: Any) -> datetime:
    return utc_now() + timedelta(seconds=length_s(length))


def require_prices(project: Project, budgets: Any, where: str | None = None) -> None:
    """Raise DataError if a budget limits the cost while nothing has a price."""
    if Pricing(project).known or not isinstance(budgets, Sequence):
        return
    if any(isinstance(one, Mapping) and one.get("unit") == "cost" for one in budgets):
        place = "there" if where else "to tutelage.yaml"
        raise DataError(
            "a budget limits the cost, and nothing has a price",
            where=where,
            fix=f"Add prices.tokens or prices.hour {place}",
        )
