"""People who sign in at an OpenID Connect server: who they are here, and what they may do.

A person is known by the server's issuer and `sub`, never by a name or an address that somebody
could take. Checking the server's tokens is web/auth/oidc.py's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.config_web import Oidc
from tutelage.core.errors import DataError
from tutelage.store.accounts import LinkRow, UserRow
from tutelage.store.base import Store
from tutelage.workflows.people import accounts, audit
from tutelage.workflows.people.accounts_sessions import (
    SignInRefused,
    Visit,
    digest_of,
    open_session,
)

_MINUTES = 10  # from being sent to the server until one is back


def remember(store: Store, data: Mapping[str, str]) -> str:
    """Keep what a browser must come back for; return the state that stands for it."""
    state = secrets.token_urlsafe(32)
    now = utc_now()
    with store.begin() as session:
        session.execute(delete(LinkRow).where(LinkRow.expires_at <= now))
        session.add(
            LinkRow(
                digest=digest_of(state),
                kind="oidc",
                data=dict(data),
                expires_at=now + timedelta(minutes=_MINUTES),
            )
        )
    return state


def recall(store: Store, state: str) -> dict[str, str] | None:
    """Return what `remember` kept, once; None for an unknown or late state."""
    with store.begin() as session:
        row = session.get(LinkRow, digest_of(state))
        if row is None or row.kind != "oidc":
            return None
        session.delete(row)
        return dict(row.data) if row.expires_at > utc_now() else None


def sign_in(store: Store, oidc: Oidc, claims: Mapping[str, Any], visit: Visit) -> str:
    """Return a session's token for the person of these checked claims; new ones are added."""
    subject = subject_of(oidc.issuer, str(claims["sub"]))
    given = _roles(oidc, claims)
    with store.begin() as session:
        row = session.scalar(select(UserRow).where(UserRow.subject == subject))
        if row is None:
            row = _new(session, oidc, claims, given)
        elif oidc.roles and row.roles != given:
            _change(session, row, given)
        if row.disabled:
            raise SignInRefused(f"{row.name} is disabled here", fix="Ask an admin")
        return open_session(session, row, visit, oidc.name)


def subject_of(issuer: str, sub: str) -> str:
    """Return what a person of a sign-in server is known by."""
    return f"{issuer} {sub}"


def _new(session: Session, oidc: Oidc, claims: Mapping[str, Any], roles: list[str]) -> UserRow:
    name = _name(oidc, claims)
    wanted = roles or [role for role in accounts.ROLES if role in oidc.default_roles]
    if not wanted:
        raise SignInRefused(f"{name} has no role here", fix="Ask an admin for one")
    try:
        row = accounts.make(
            session, name, wanted, subject=subject_of(oidc.issuer, str(claims["sub"]))
        )
    except DataError as error:
        raise SignInRefused(
            f"somebody else is called {name!r} here", fix="Ask an admin to sort it out"
        ) from error
    audit.write(session, name, "users.added", {"name": name, "roles": ", ".join(wanted)})
    return row


def _change(session: Session, row: UserRow, roles: list[str]) -> None:
    if not roles:
        raise SignInRefused(f"{row.name} has no role here any more", fix="Ask an admin for one")
    row.roles = roles
    accounts.end_sessions(session, row.id)
    audit.write(session, row.name, "users.roles", {"name": row.name, "roles": ", ".join(roles)})


def _roles(oidc: Oidc, claims: Mapping[str, Any]) -> list[str]:
    """Return the roles that a person's groups give."""
    said = claims.get(oidc.roles_claim, [])
    groups = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    held = {role for group in groups for role in oidc.roles.get(str(group), [])}
    return [role for role in accounts.ROLES if role in held]


def _name(oidc: Oidc, claims: Mapping[str, Any]) -> str:
    """Return what a new person is called: the claim's words, made fit to be a name."""
    said = str(claims.get(oidc.username_claim) or claims.get("email") or claims["sub"])
    fit = re.sub(r"[^a-z0-9._@+-]+", "-", said.casefold()).lstrip("._@+-")[:64]
    return accounts.checked_name(fit or "somebody")
