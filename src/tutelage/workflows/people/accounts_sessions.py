"""Signing in and out: a session is a random token in a cookie, of which the store holds a hash.

Every sign-in makes a new token, so nobody can plant one beforehand. A session ends when its time
is over, when its person signs out, or when an admin changes what they may do.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import TutelageError
from tutelage.store.accounts import SessionRow, UserRow
from tutelage.store.base import Store
from tutelage.workflows.people import accounts_tries, audit, passwords
from tutelage.workflows.people.accounts import Person, effective, end_sessions


class SignInRefused(TutelageError):
    """Somebody can't come in. `wait_s` is how long they have to wait before trying again."""

    def __init__(self, what: str, *, fix: str | None = None, wait_s: int = 0) -> None:
        super().__init__(what, fix=fix)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Visit:
    """Where somebody signs in from, and for how long at most."""

    address: str = ""
    browser: str = ""
    hours: float = 12.0


@dataclass(frozen=True)
class SignedIn:
    """A session that holds."""

    person: Person
    digest: str
    expires_at: datetime


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token: all that is ever stored, and what it is looked up by."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def sign_in(store: Store, name: str, password: str, visit: Visit) -> str:
    """Return the token of a new session; raise SignInRefused for a wrong name or password.

    A try counts before its password is looked at, so that many at once gain nothing.
    """
    known = name.strip().casefold()[:64]
    wait_s = accounts_tries.begin(store, known, visit.address)
    if wait_s:
        raise SignInRefused(
            f"there were too many wrong passwords: wait {_length(wait_s)}", wait_s=wait_s
        )
    with store.session() as session:
        row = session.scalar(select(UserRow).where(UserRow.name == known))
    right = passwords.matches(row.password if row is not None else None, password)
    if row is None or not right or row.disabled:
        audit.record(store, known, "sign-in.refused", {}, visit.address)
        raise SignInRefused("the name or the password is wrong")
    accounts_tries.clear(store, known, visit.address)
    renewed = passwords.hashed(password) if passwords.is_outdated(row.password or "") else None
    with store.begin() as session:
        current = session.get(UserRow, row.id)
        if current is None or current.disabled or current.password != row.password:
            raise SignInRefused("the name or the password is wrong")
        if renewed is not None:
            current.password = renewed
        return open_session(session, current, visit, "password")


def open_session(session: Session, row: UserRow, visit: Visit, how: str) -> str:
    """Make a session within the caller's transaction and return its token."""
    token = secrets.token_urlsafe(32)
    now = utc_now()
    session.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
    session.add(
        SessionRow(
            digest=digest_of(token),
            user=row.id,
            browser=visit.browser[:200],
            address=visit.address[:64],
            created_at=now,
            expires_at=now + timedelta(hours=visit.hours),
        )
    )
    row.signed_in_at = now
    audit.write(session, row.name, "sign-in", {"with": how}, visit.address)
    return token


def signed_in(store: Store, digest: str) -> SignedIn | None:
    """Return the session with this digest if it still holds."""
    with store.session() as session:
        found = session.execute(
            select(SessionRow.expires_at, UserRow.name, UserRow.roles)
            .join(UserRow, UserRow.id == SessionRow.user)
            .where(
                SessionRow.digest == digest,
                SessionRow.expires_at > utc_now(),
                UserRow.disabled.is_(False),
            )
        ).first()
    if found is None:
        return None
    return SignedIn(Person(found.name, effective(found.roles)), digest, found.expires_at)


def sign_out(store: Store, digest: str) -> None:
    """End one session."""
    with store.begin() as session:
        row = session.get(SessionRow, digest)
        if row is not None:
            user = session.get(UserRow, row.user)
            session.delete(row)
            audit.write(session, user.name if user else "", "sign-out", {})


def sign_out_everywhere(store: Store, name: str, *, by: str, keep: str | None = None) -> int:
    """End every session of a person (but the one with digest `keep`); return how many."""
    with store.begin() as session:
        row = session.scalar(select(UserRow).where(UserRow.name == name))
        if row is None:
            return 0
        theirs = [SessionRow.user == row.id, SessionRow.digest != (keep or "")]
        count = session.scalar(select(func.count()).select_from(SessionRow).where(*theirs)) or 0
        if keep is None:
            end_sessions(session, row.id)
        else:
            session.execute(delete(SessionRow).where(*theirs))
        audit.write(session, by, "sign-out.everywhere", {"name": name, "sessions": count})
    return count


def sessions_of(store: Store, name: str) -> list[dict[str, object]]:
    """Return a person's open sessions, newest first: browser, address, since, until, digest."""
    with store.session() as session:
        rows = session.scalars(
            select(SessionRow)
            .join(UserRow, UserRow.id == SessionRow.user)
            .where(UserRow.name == name, SessionRow.expires_at > utc_now())
            .order_by(SessionRow.created_at.desc())
        ).all()
    return [
        {
            "browser": row.browser,
            "address": row.address,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "digest": row.digest,
        }
        for row in rows
    ]


def change_password(store: Store, name: str, old: str, new: str, visit: Visit) -> str:
    """Give oneself another password; return the token of the one session that is left."""
    wait_s = accounts_tries.begin(store, name, visit.address)
    if wait_s:
        raise SignInRefused(
            f"there were too many wrong passwords: wait {_length(wait_s)}", wait_s=wait_s
        )
    with store.session() as session:
        row = session.scalar(select(UserRow).where(UserRow.name == name))
    if row is None or not passwords.matches(row.password, old):
        raise SignInRefused("the present password is wrong")
    accounts_tries.clear(store, name, visit.address)
    passwords.check(new, name)
    kept = passwords.hashed(new)
    with store.begin() as session:
        current = session.get(UserRow, row.id)
        if current is None or current.disabled:
            raise SignInRefused("the present password is wrong")
        current.password = kept
        end_sessions(session, current.id)
        audit.write(session, name, "users.password", {"name": name}, visit.address)
        return open_session(session, current, visit, "new password")


def _length(wait_s: int) -> str:
    if wait_s < 90:
        return f"{wait_s} seconds"
    return f"{-(-wait_s // 60)} minutes"
