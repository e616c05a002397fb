"""The people who use the web page: added, given roles, disabled, listed. Each change is audited.

Whoever loses a role, a password or the right to come in is signed out everywhere. How they sign
in stands in accounts_sessions.py; nothing here speaks HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.config_web import Role
from tutelage.core.errors import DataError, did_you_mean
from tutelage.store.accounts import LinkRow, SessionRow, UserRow
from tutelage.store.base import Store
from tutelage.workflows.people import audit, passwords

ROLES: tuple[str, ...] = get_args(Role)
LOCAL = "local"  # the one user of a page without accounts
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


@dataclass(frozen=True)
class Person:
    """Who is signed in. An admin has every role."""

    name: str
    roles: frozenset[str]


EVERY_ROLE = frozenset(ROLES)
LOCAL_PERSON = Person(LOCAL, EVERY_ROLE)


def people(store: Store) -> list[dict[str, Any]]:
    """Return everybody by name: roles, state, since when, last sign-in, open sessions."""
    with store.session() as session:
        counted = session.execute(
            select(SessionRow.user, func.count())
            .where(SessionRow.expires_at > utc_now())
            .group_by(SessionRow.user)
        ).tuples()
        open_ = dict(counted.all())
        rows = session.scalars(select(UserRow).order_by(UserRow.name)).all()
    return [_as_dict(row, open_.get(row.id, 0)) for row in rows]


def person(store: Store, name: str) -> dict[str, Any]:
    """Return one of `people`; raise DataError for a name that nobody has."""
    with store.session() as session:
        row = found(session, name)
        count = session.scalar(
            select(func.count()).where(SessionRow.user == row.id, SessionRow.expires_at > utc_now())
        )
    return _as_dict(row, count or 0)


def add(
    store: Store,
    name: str,
    roles: Sequence[str],
    *,
    by: str,
    password: str | None = None,
    subject: str | None = None,
) -> dict[str, Any]:
    """Add a person. Without a password or subject (of OIDC) they need a link to choose one."""
    known = checked_name(name)
    wanted = checked_roles(roles)
    kept = _hashed(password, known) if password is not None else None
    with store.begin() as session:
        make(session, known, wanted, password=kept, subject=subject)
        audit.write(session, by, "users.added", {"name": known, "roles": ", ".join(wanted)})
    return person(store, known)


def set_roles(store: Store, name: str, roles: Sequence[str], *, by: str) -> dict[str, Any]:
    """Give a person these roles and no others; they sign in anew."""
    wanted = checked_roles(roles)
    with store.begin() as session:
        row = found(session, name)
        if row.roles != wanted:
            if "admin" not in wanted:
                _keep_an_admin(session, row, "lose the role admin")
            row.roles = wanted
            end_sessions(session, row.id)
            audit.write(session, by, "users.roles", {"name": row.name, "roles": ", ".join(wanted)})
    return person(store, name)


def set_password(store: Store, name: str, password: str, *, by: str) -> dict[str, Any]:
    """Give a person a password; they are signed out everywhere and their links end."""
    kept = _hashed(password, name.casefold())
    with store.begin() as session:
        row = found(session, name)
        row.password = kept
        end_sessions(session, row.id)
        session.execute(delete(LinkRow).where(LinkRow.user == row.id))
        audit.write(session, by, "users.password", {"name": row.name})
    return person(store, name)


def set_disabled(store: Store, name: str, disabled: bool, *, by: str) -> dict[str, Any]:
    """Shut a person out (signed out at once), or let them in again. What they did stays."""
    with store.begin() as session:
        row = found(session, name)
        if disabled:
            _keep_an_admin(session, row, "be disabled")
            end_sessions(session, row.id)
            session.execute(delete(LinkRow).where(LinkRow.user == row.id))
        if row.disabled != disabled:
            row.disabled = disabled
            action = "users.disabled" if disabled else "users.enabled"
            audit.write(session, by, action, {"name": row.name})
    return person(store, name)


def make(
    session: Session,
    name: str,
    roles: Iterable[str],
    *,
    password: str | None = None,
    subject: str | None = None,
) -> UserRow:
    """Add a person's row; raise DataError if the name or the subject is somebody's."""
    if session.scalar(select(UserRow.id).where(UserRow.name == name)) is not None:
        raise DataError(f"there is already somebody called {name!r}", fix="Choose another name")
    if subject and session.scalar(select(UserRow.id).where(UserRow.subject == subject)) is not None:
        raise DataError("this account of the sign-in server is somebody else's here")
    row = UserRow(name=name, roles=list(roles), password=password, subject=subject)
    session.add(row)
    session.flush()
    return row


def found(session: Session, name: str) -> UserRow:
    """Return a person's row; raise DataError for a name that nobody has."""
    row = session.scalar(select(UserRow).where(UserRow.name == name.strip().casefold()))
    if row is None:
        names = session.scalars(select(UserRow.name)).all()
        raise DataError(
            f"there is nobody called {name!r}",
            fix=f"{did_you_mean(name, names)}`tutelage users list` shows everybody",
        )
    return row


def end_sessions(session: Session, user: int) -> None:
    """Sign a person out everywhere."""
    session.execute(delete(SessionRow).where(SessionRow.user == user))


def has_admin(session: Session, *, besides: int | None = None) -> bool:
    """Return whether somebody (other than `besides`) is an admin and may come in."""
    rows = session.scalars(select(UserRow).where(UserRow.disabled.is_(False)))
    return any("admin" in row.roles and row.id != besides for row in rows)


def checked_name(name: str) -> str:
    """Return a name in lower case; raise DataError if it can't be one."""
    known = name.strip().casefold()
    if not _NAME.fullmatch(known):
        raise DataError(
            f"{name!r} can't be a name here",
            fix="Use up to 64 of a-z 0-9 . _ @ + - beginning with a letter or digit",
        )
    if known == LOCAL:
        raise DataError(f"{LOCAL!r} is the user of a page without accounts", fix="Choose another")
    return known


def checked_roles(roles: Sequence[str]) -> list[str]:
    """Return roles in their usual order; raise DataError for none or an unknown one."""
    for role in roles:
        if role not in ROLES:
            raise DataError(
                f"{role!r} is not a role",
                fix=f"{did_you_mean(role, ROLES)}Roles are {', '.join(ROLES)}",
            )
    if not roles:
        raise DataError("a person needs a role", fix=f"Roles are {', '.join(ROLES)}")
    return [role for role in ROLES if role in roles]


def effective(roles: Iterable[str]) -> frozenset[str]:
    """Return what roles allow: an admin may do everything."""
    held = frozenset(str(role) for role in roles)
    return EVERY_ROLE if "admin" in held else held


def _keep_an_admin(session: Session, row: UserRow, what: str) -> None:
    if "admin" in row.roles and not row.disabled and not has_admin(session, besides=row.id):
        raise DataError(
            f"{row.name} is the only admin and can't {what}", fix="Make somebody else admin first"
        )


def _hashed(password: str, name: str) -> str:
    passwords.check(password, name)
    return passwords.hashed(password)


def _as_dict(row: UserRow, sessions: int) -> dict[str, Any]:
    ready = row.password is not None or row.subject is not None
    return {
        "name": row.name,
        "roles": list(row.roles),
        "state": "disabled" if row.disabled else "active" if ready else "invited",
        "oidc": row.subject is not None,
        "password": row.password is not None,
        "created_at": row.created_at,
        "signed_in_at": row.signed_in_at,
        "sessions": sessions,
    }
