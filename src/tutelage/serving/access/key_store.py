"""API keys in the store: made, changed, rotated, revoked, listed. The secret is shown once.

keys.py holds the active ones in memory and says who is calling.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import inf
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, DataError, NotFound, did_you_mean
from tutelage.serving.access.keys import ROLES, UNITS, Allowance, Caller, digest
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow, KeyRow

PERIODS = ("minute", "hour", "day", "month", "total")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,79}")
_MOST_A_MINUTE = 1_000_000_000  # what every store's whole numbers can hold
CHANGEABLE = (
    "role", "expires_at", "deployments", "requests_per_minute", "tokens_per_minute", "budgets",
)  # fmt: skip


def load_keys(store: Store) -> dict[str, Caller]:
    """Return the active keys by digest; a rotated key's old secret too, until its time is up."""
    with store.session() as session:
        rows = list(session.scalars(select(KeyRow).where(KeyRow.active)))
    found: dict[str, Caller] = {}
    for row in rows:
        if row.role not in ROLES:
            continue
        found[row.hash] = _caller(row, row.expires_at)
        if row.previous and row.previous_until:
            ends = [row.previous_until, *([row.expires_at] if row.expires_at else [])]
            found[row.previous] = _caller(row, min(ends))
    return found


def _caller(row: KeyRow, expires: datetime | None) -> Caller:
    return Caller(
        row.name,
        row.role,  # type: ignore[arg-type]
        expires.timestamp() if expires else None,
        frozenset(row.deployments) if row.deployments is not None else None,
        row.requests_per_minute,
        row.tokens_per_minute,
        tuple(Allowance(**budget) for budget in row.budgets or ()),
    )


def create_key(store: Store, name: str, role: str = "client", **limits: Any) -> str:
    """Return a new secret for `name`. It is not stored: only its SHA-256 is.

    `limits` are `expires_at`, `deployments`, `requests_per_minute`, `tokens_per_minute` and
    `budgets`. Raises DataError for what makes no sense, Conflict if the name is taken.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"a key can't be named {name[:80]!r}",
            fix="Name who will use it: 1 to 80 letters, digits, spaces and . _ @ + -",
        )
    secret = _secret()
    with store.begin() as session:
        if session.scalars(select(KeyRow).where(KeyRow.name == name)).first():
            raise Conflict(
                f"a key named {name!r} exists",
                fix="Choose another name, or rotate that key to get a new secret for it",
            )
        row = KeyRow(hash=digest(secret), name=name, role="client")
        _change(session, row, {"role": role, **limits})
        session.add(row)
    return secret


def update_key(store: Store, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change what is in `changes` (as for create_key, and `role`) and return the key.

    None takes a limit away. Raises DataError for an unknown key or a change that makes no sense.
    """
    with store.begin() as session:
        row = _find(session, name)
        _change(session, row, changes)
        return _described(row)


def rotate_key(store: Store, name: str, grace_s: float = 0.0) -> str:
    """Return a new secret for `name`; the old one works for `grace_s` seconds more.

    Name, limits, budgets and what they have spent stay. Raises DataError for a revoked key.
    """
    secret = _secret()
    with store.begin() as session:
        row = _find(session, name)
        if not row.active:
            raise DataError(f"the key {name!r} is revoked", fix="Create one with another name")
        keeps = grace_s > 0
        row.previous = row.hash if keeps else None
        row.previous_until = utc_now() + timedelta(seconds=grace_s) if keeps else None
        row.hash = digest(secret)
    return secret


def revoke_key(store: Store, name: str) -> None:
    """Make the key unusable from the next refresh on. Raises DataError if there is none."""
    with store.begin() as session:
        row = _find(session, name)
        row.active, row.previous, row.previous_until = False, None, None


def get_key(store: Store, name: str) -> dict[str, Any]:
    """Return one key as `list_keys` does. Raises DataError if there is none."""
    with store.session() as session:
        return _described(_find(session, name))


def list_keys(store: Store) -> list[dict[str, Any]]:
    """Return every key's name, role, state and limits; never a secret."""
    with store.session() as session:
        return [_described(r) for r in session.scalars(select(KeyRow).order_by(KeyRow.created_at))]


def _described(row: KeyRow) -> dict[str, Any]:
    expired = row.expires_at is not None and row.expires_at <= utc_now()
    rotating = row.previous_until is not None and row.previous_until > utc_now()
    return {
        "name": row.name,
        "role": row.role,
        "active": row.active and not expired,
        "state": "revoked" if not row.active else "expired" if expired else "active",
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "old_secret_until": row.previous_until if rotating else None,
        "deployments": row.deployments,
        "requests_per_minute": row.requests_per_minute,
        "tokens_per_minute": row.tokens_per_minute,
        "budgets": row.budgets or [],
    }


def _secret() -> str:
    return f"tut_{secrets.token_urlsafe(32)}"


def _find(session: Session, name: str) -> KeyRow:
    row = session.scalars(select(KeyRow).where(KeyRow.name == name)).first()
    if row is None:
        known = list(session.scalars(select(KeyRow.name)))
        hint = did_you_mean(name, known)
        raise NotFound(
            f"there is no key named {name!r}", fix=f"{hint}`tutelage keys list` shows them"
        )
    return row


def _change(session: Session, row: KeyRow, changes: Mapping[str, Any]) -> None:
    """Put checked changes into `row`; raise DataError for the first that makes no sense."""
    for name, value in changes.items():
        if name not in CHANGEABLE:
            hint = did_you_mean(name, CHANGEABLE)
            raise DataError(f"a key has no {name!r}", fix=f"{hint}Known: {', '.join(CHANGEABLE)}")
        if name == "role" and value not in ROLES:
            raise DataError(f"{value!r} is not a role", fix=f"Choose one of {', '.join(ROLES)}")
        if name == "expires_at":
            value = _moment(value)
        if name in ("requests_per_minute", "tokens_per_minute"):
            _at_least_one(name, value)
        if name == "deployments":
            value = _deployments(session, value)
        if name == "budgets":
            value = _budgets(value)
        setattr(row, name, value)


def _moment(value: Any) -> datetime | None:
    """Return a time in the future, from a datetime or ISO 8601 text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise DataError(
                f"{value!r} is no time", fix="Write it as 2027-01-31T00:00:00+00:00"
            ) from None
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise DataError("'expires_at' must be a time", fix="Write 2027-01-31T00:00:00+00:00")
    moment: datetime = value if value.tzinfo else value.replace(tzinfo=utc_now().tzinfo)
    if moment <= utc_now():
        raise DataError(f"{moment.isoformat()} is over", fix="Let the key expire in the future")
    return moment


def _at_least_one(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise DataError(
            f"{name!r} must be a whole number of 1 or more", fix="Leave it out for none"
        )
    if value is not None and value > _MOST_A_MINUTE:
        raise DataError(
            f"{name!r} can be {_MOST_A_MINUTE:,} at most", fix="Leave it out for no limit"
        )


def _deployments(session: Session, value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError("'deployments' must be a list of names", fix="Leave it out to allow all")
    known = list(session.scalars(select(DeploymentRow.name)))
    for name in value:
        if name not in known:
            hint = did_you_mean(str(name), known)
            more = f"Known: {', '.join(known)}" if known else "`tutelage deploy create` makes one"
            raise DataError(f"there is no deployment {name!r}", fix=f"{hint}{more}")
    return sorted({str(name) for name in value})


def _budgets(value: Any) -> list[dict[str, Any]]:
    """Return budgets in one form; raise DataError for two of a unit and period."""
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError("'budgets' must be a list", fix='Write [{"unit": "tokens", ...}]')
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for item in value:
        if not isinstance(item, Mapping) or set(item) != {"unit", "per", "limit"}:
            raise DataError(
                "a budget needs 'unit', 'per' and 'limit', and nothing else",
                fix='Write {"unit": "tokens", "per": "day", "limit": 100000}',
            )
        unit, per, limit = item["unit"], item["per"], item["limit"]
        if unit not in UNITS:
            raise DataError(f"{unit!r} is no unit", fix=f"Choose one of {', '.join(UNITS)}")
        if per not in PERIODS:
            raise DataError(f"{per!r} is no period", fix=f"Choose one of {', '.join(PERIODS)}")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < inf:
            raise DataError("a budget's limit must be a number of 0 or more", fix="Correct it")
        if (unit, per) in found:
            raise DataError(f"two budgets limit {unit} per {per}", fix="Keep one of them")
        found[unit, per] = {"unit": unit, "per": per, "limit": limit}
    return list(found.values())
