"""Make and remove deployments, the names that clients call. deployments.py moves what answers."""

from __future__ import annotations

import re
import secrets

from sqlalchemy import delete, select

from tutelage.core.errors import Conflict, DataError, NotFound
from tutelage.release.routes import active_in, require_deployment
from tutelage.store.base import Store
from tutelage.store.releases import DeploymentRow, ReleaseRow, RolloutRow, TransitionRow

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # as a project's


def create_deployment(store: Store, name: str, release: str) -> DeploymentRow:
    """Return a new deployment with `release` (a full id) as stable.

    Raises DataError for a name that can't be one, Conflict if it is taken.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name[:80]!r} can't be a deployment's name",
            fix="Use 1 to 63 small letters, digits, - and _, beginning with a letter or digit",
        )
    with store.begin() as session:
        row = session.get(DeploymentRow, name)
        if row is not None:
            raise Conflict(
                f"there is a deployment {name!r} already",
                where=name,
                fix="`tutelage rollout start` moves it to another release",
            )
        if session.get(ReleaseRow, release) is None:
            raise NotFound(
                f"there is no release {release[:12]!r}", fix="`tutelage release list` shows them"
            )
        made = DeploymentRow(name=name, stable=release, previous=None, salt=secrets.token_hex(32))
        session.add(made)
        session.flush()
        return made


def remove_deployment(store: Store, name: str) -> int:
    """Remove a deployment and the journals of its rollouts; return how many rollouts those were.

    The records of its requests stay. Raises Conflict while a rollout is under way.
    """
    with store.begin() as session:
        row = require_deployment(session, name, lock=True)
        active = active_in(session, name)
        if active is not None:
            raise Conflict(
                f"a rollout is under way ({active.state}, step {active.step + 1})",
                where=name,
                fix="Wait for it, or end it with `tutelage rollout abort`",
            )
        gone = list(session.scalars(select(RolloutRow.id).where(RolloutRow.deployment == name)))
        session.execute(delete(TransitionRow).where(TransitionRow.rollout.in_(gone)))
        session.execute(delete(RolloutRow).where(RolloutRow.deployment == name))
        session.delete(row)
        return len(gone)
