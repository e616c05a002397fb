"""Rows about what is served: prompts, releases, aliases, deployments, rollouts, their journal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.store.base import Base

_PUBLISHED = text("state = 'published'")


class PromptRow(Base):
    """One version of the prompt, by content hash; `state` is where it stands now.

    States: draft, review, approved, rejected, published, retired. At most one is published.
    """

    __tablename__ = "prompts"
    __table_args__ = (
        Index(
            "ix_prompts_published", "state", unique=True,
            sqlite_where=_PUBLISHED, postgresql_where=_PUBLISHED,
        ),
    )  # fmt: skip

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    text: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(Text, default="")
    parent: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class PromptEventRow(Base):
    """One thing that happened to a version of the prompt. Rows are added, never changed.

    Actions: drafted, tested, approved, rejected, published, restored. `evidence` is the test's
    result, or what was published before.
    """

    __tablename__ = "prompt_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    version: Mapped[str] = mapped_column(ForeignKey("prompts.hash"), index=True)
    action: Mapped[str] = mapped_column(String(16))
    author: Mapped[str] = mapped_column(String(80), default="")
    note: Mapped[str] = mapped_column(Text, default="")
    evidence: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class ReleaseRow(Base):
    """Base + adapter + prompt + decoding, immutable; `manifest` is what was hashed."""

    __tablename__ = "releases"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # hash of the manifest
    name: Mapped[str] = mapped_column(String(80), unique=True)  # icd-coder-v2
    kind: Mapped[str] = mapped_column(String(16))  # base, tuned, imported
    manifest: Mapped[dict[str, Any]]
    path: Mapped[str]
    registry_version: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DeploymentRow(Base):
    """A name that clients call and the release that answers. `salt` keys sticky routing."""

    __tablename__ = "deployments"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    stable: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    previous: Mapped[str | None] = mapped_column(String(64))
    salt: Mapped[str] = mapped_column(String(64))
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class RolloutRow(Base):
    """One movement of traffic. `fence` rises with each transition: a stale writer loses."""

    __tablename__ = "rollouts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.name"), index=True)
    baseline: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    candidate: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    strategy: Mapped[str] = mapped_column(String(32))
    plan: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), index=True)
    step: Mapped[int]
    fence: Mapped[int]
    step_started_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class TransitionRow(Base):
    """The journal of a rollout: what moved, why, on which evidence."""

    __tablename__ = "rollout_transitions"
    __table_args__ = (UniqueConstraint("rollout", "fence"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), index=True)
    fence: Mapped[int]
    from_state: Mapped[str] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    step: Mapped[int]
    weight: Mapped[float]  # percent of traffic on the candidate after the transition
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class KeyRow(Base):
    """An API key: only its SHA-256 is kept. What is unset is as the settings have it."""

    __tablename__ = "api_keys"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    role: Mapped[str] = mapped_column(String(16))  # client, operator, admin
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    previous: Mapped[str | None] = mapped_column(String(64))  # the hash before it was rotated
    previous_until: Mapped[datetime | None]  # until when that one works too
    deployments: Mapped[list[Any] | None]  # names it may call; None: all
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    budgets: Mapped[list[Any] | None]  # [{"unit", "per", "limit"}]
