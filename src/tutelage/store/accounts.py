"""Rows about who may open the web page: people, sessions, one-time links, tries, the audit log.

Secrets (session tokens, links) are kept as SHA-256 alone, passwords as argon2id. Lines of the
audit log are added and never changed: each holds a digest over itself and the line before.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base


class UserRow(Base):
    """A person. Without a password or a subject nobody can sign in as them yet."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)  # in lower case
    roles: Mapped[list[Any]]
    password: Mapped[str | None] = mapped_column(Text)  # argon2id, with its parameters
    subject: Mapped[str | None] = mapped_column(String(400), unique=True)  # issuer and sub of OIDC
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    signed_in_at: Mapped[datetime | None]


class SessionRow(Base):
    """One signed-in browser."""

    __tablename__ = "user_sessions"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of the token
    user: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    browser: Mapped[str] = mapped_column(Text, default="")  # what it calls itself
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class LinkRow(Base):
    """A secret that works once: to make the first admin, to choose a password, to come back.

    Kinds: first, password, oidc. The row goes when it is used.
    """

    __tablename__ = "user_links"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(12), index=True)
    user: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class TryRow(Base):
    """Wrong passwords in a row, by whom and from where; `next_at` is when one more may be tried."""

    __tablename__ = "user_tries"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)  # hash of a name or an address
    count: Mapped[int]
    next_at: Mapped[datetime]
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)


class AuditRow(Base):
    """Who did what, and when."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    user: Mapped[str] = mapped_column(String(80), index=True)
    action: Mapped[str] = mapped_column(String(80), index=True)  # release.promoted, users.added
    what: Mapped[dict[str, Any]]
    address: Mapped[str] = mapped_column(String(64), default="")
    chain: Mapped[str] = mapped_column(String(64))  # hash of this line and the one before
