"""One-time links: the first admin's, and those by which a person chooses a password.

The store holds a link's hash alone. Looking at one does not use it up (mail programs look); it
ends when a password is chosen, when its time is over, or when a newer one takes its place.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.config_web import Web
from tutelage.store.accounts import LinkRow, UserRow
from tutelage.store.base import Store
from tutelage.workflows.people import accounts, audit, passwords
from tutelage.workflows.people.accounts_sessions import (
    SignInRefused,
    Visit,
    digest_of,
    open_session,
)

FIRST_HOURS = 24.0
PASSWORD_HOURS = 72.0
PATH = "/welcome"


@dataclass(frozen=True)
class Link:
    """A link that still works. `name` is whose password it sets; None: the first admin's."""

    kind: Literal["first", "password"]
    name: str | None


def first_link(store: Store, web: Web) -> str | None:
    """Return a new link that makes the first admin, or None if there is one or none is needed.

    The one printed before stops working.
    """
    if not web.accounts:
        return None
    with store.begin() as session:
        if accounts.has_admin(session):
            return None
        session.execute(delete(LinkRow).where(LinkRow.kind == "first"))
        return _address(web, _make(session, "first", None, FIRST_HOURS))


def password_link(
    store: Store, web: Web, name: str, *, by: str, hours: float = PASSWORD_HOURS
) -> str:
    """Return a new link by which a person chooses a password; an earlier one stops working."""
    with store.begin() as session:
        row = accounts.found(session, name)
        if row.disabled:
            raise SignInRefused(f"{row.name} is disabled", fix="Enable them first")
        session.execute(delete(LinkRow).where(LinkRow.user == row.id))
        token = _make(session, "password", row.id, hours)
        audit.write(session, by, "users.link", {"name": row.name})
    return _address(web, token)


def look(store: Store, token: str) -> Link | None:
    """Return what a link is for, or None if it doesn't work (any more)."""
    with store.session() as session:
        return _link(session, token)


def use(store: Store, token: str, name: str, password: str, visit: Visit) -> str:
    """Set the password (and make the first admin, called `name`); return a session's token."""
    with store.session() as session:
        link = _link(session, token)
    if link is None:
        raise _spent()
    known = link.name if link.name is not None else accounts.checked_name(name)
    passwords.check(password, known)
    kept = passwords.hashed(password)
    with store.begin() as session:
        row = session.get(LinkRow, digest_of(token))
        if row is None or row.expires_at <= utc_now():
            raise _spent()
        session.delete(row)
        if row.user is None:
            if accounts.has_admin(session):
                raise _spent()
            user = accounts.make(session, known, ["admin"], password=kept)
            audit.write(session, known, "users.first", {"name": known}, visit.address)
        else:
            user = _person(session, row)
            user.password = kept
            accounts.end_sessions(session, user.id)
            audit.write(session, known, "users.password", {"name": known}, visit.address)
        return open_session(session, user, visit, "link")


def _make(session: Session, kind: str, user: int | None, hours: float) -> str:
    token = secrets.token_urlsafe(32)
    now = utc_now()
    session.execute(delete(LinkRow).where(LinkRow.expires_at <= now))
    session.add(
        LinkRow(
            digest=digest_of(token),
            kind=kind,
            user=user,
            data={},
            expires_at=now + timedelta(hours=hours),
        )
    )
    return token


def _link(session: Session, token: str) -> Link | None:
    row = session.scalar(
        select(LinkRow).where(
            LinkRow.digest == digest_of(token),
            LinkRow.kind.in_(("first", "password")),
            LinkRow.expires_at > utc_now(),
        )
    )
    if row is None:
        return None
    if row.user is None:
        return None if accounts.has_admin(session) else Link("first", None)
    user = session.get(UserRow, row.user)
    return None if user is None or user.disabled else Link("password", user.name)


def _person(session: Session, row: LinkRow) -> UserRow:
    user = session.get(UserRow, row.user)
    if user is None or user.disabled:
        raise _spent()
    return user


def _address(web: Web, token: str) -> str:
    return f"{web.address}{PATH}/{token}"


def _spent() -> SignInRefused:
    return SignInRefused(
        "this link does not work any more",
        fix="A link works once and for a limited time: ask an admin for another",
    )
