"""What may be done to a version of the prompt: attach a test, review, publish, restore.

Each move is one transaction that checks what it rests on. Of two publishers one gets Conflict:
the database holds one published version, and a publisher names the one he has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tutelage.core.errors import Conflict, DataError, ReleaseRefused
from tutelage.release.prompt_history import note_event, published_row, tests
from tutelage.release.prompts import FROM_CONFIG, add_version, find_version
from tutelage.store.base import Store
from tutelage.store.releases import PromptRow

REGRESSED, IMPROVED, SAME = "regressed", "improved", "no_difference"  # outcomes of a test
ANY = "any"  # whatever is published now


def attach_test(
    store: Store, version: str, evidence: Mapping[str, Any], *, author: str = ""
) -> PromptRow:
    """Keep a test's result with a version; a draft is then ready for review.

    `evidence` holds outcome, sentence, artifact, and `against`: the hash it was compared with.
    """
    with store.begin() as session:
        row = find_version(session, version)
        note_event(session, row, "tested", author, "", evidence)
        if row.state == "draft":
            row.state = "review"
        return row


def review(store: Store, version: str, *, approve: bool, author: str, note: str = "") -> PromptRow:
    """Approve or reject a version that is not published.

    Raises Conflict if it is published or was, ReleaseRefused to approve what was never tested.
    """
    with store.begin() as session:
        row = find_version(session, version)
        if row.state in ("published", "retired"):
            raise Conflict(
                f"version {row.number} of the prompt is {row.state}, there is nothing to review",
                fix="Review a draft; `tutelage prompt list` shows them",
            )
        if approve and row.hash not in tests(session):
            raise ReleaseRefused(
                f"version {row.number} of the prompt has not been tested",
                enough=False,
                fix=f"Run `tutelage prompt test {row.number}` first",
            )
        row.state = "approved" if approve else "rejected"
        note_event(session, row, row.state, author, note)
        return row


def publish(
    store: Store,
    version: str,
    *,
    author: str = "",
    note: str = "",
    force: bool = False,
    seen: str | None = ANY,
) -> PromptRow:
    """Make a version the published one; the one before is retired.

    `seen` is the hash of the version that was published when the caller decided. Raises Conflict
    if another is by now or the version is published already, ReleaseRefused if no test is
    attached, the test shows a regression or a reviewer said no; `force` overrides those.
    """
    with _one_winner(store) as session:
        row = find_version(session, version)
        before = _unmoved(session, row, seen)
        test = tests(session).get(row.hash)
        if not force:
            _require_test(row, test, before)
        evidence = {"test": test.get("artifact") if test else None, "forced": force}
        return _publish(session, row, before, ("published", author, note, evidence))


def restore(
    store: Store, version: str, *, author: str = "", note: str = "", seen: str | None = ANY
) -> PromptRow:
    """Publish again a version that was published before; no test is asked for.

    Raises Conflict as `publish` does, DataError if it never was published.
    """
    with _one_winner(store) as session:
        row = find_version(session, version)
        before = _unmoved(session, row, seen)
        if row.state != "retired":
            raise DataError(
                f"version {row.number} of the prompt was never published",
                fix=f"Run `tutelage prompt test {row.number}` and "
                f"`tutelage prompt publish {row.number}`",
            )
        return _publish(session, row, before, ("restored", author, note, {}))


def record_published(
    store: Store, text: str, *, author: str = "", note: str = FROM_CONFIG
) -> PromptRow:
    """Return the version with this text, added if new and published: what a release is made with.

    A text that is a version already but not the published one is left as it is.
    """
    with _one_winner(store) as session:
        before = published_row(session, lock=True)
        row = add_version(session, text, author=author, note=note)
        if row.state == "published" or (row.state == "retired" and before is not None):
            return row
        return _publish(session, row, before, ("published", author, note, {}))


@contextmanager
def _one_winner(store: Store) -> Iterator[Session]:
    try:
        with store.begin() as session:
            yield session
    except IntegrityError as error:
        raise Conflict(
            "somebody else published a version of the prompt at the same moment",
            fix="Look at it with `tutelage prompt log` and try again",
        ) from error


def _unmoved(session: Session, row: PromptRow, seen: str | None) -> PromptRow | None:
    before = published_row(session, lock=True)
    if row.state == "published":
        raise Conflict(f"version {row.number} of the prompt is published already")
    if seen != ANY and (before.hash if before else None) != seen:
        now = f"version {before.number}" if before else "none"
        raise Conflict(
            f"somebody else moved the published prompt meanwhile (now {now})",
            fix="Look at it with `tutelage prompt log` and try again",
        )
    return before


def _require_test(row: PromptRow, test: Mapping[str, Any] | None, before: PromptRow | None) -> None:
    again = f"Run `tutelage prompt test {row.number}`, or publish anyway with --force"
    if row.state == "rejected":
        raise ReleaseRefused(
            f"version {row.number} of the prompt was rejected in review",
            fix=f"See `tutelage prompt show {row.number}`, or publish anyway with --force",
        )
    if test is None:
        raise ReleaseRefused(
            f"version {row.number} of the prompt has not been tested", enough=False, fix=again
        )
    if before is not None and test.get("against") != before.hash:
        raise Conflict(
            f"version {row.number} was tested against another version than the published "
            f"{before.number}",
            fix=again,
        )
    if test.get("outcome") == REGRESSED:
        raise ReleaseRefused(
            f"version {row.number} of the prompt regressed: {test.get('sentence', '')}",
            fix="Change it and test again, or publish anyway with --force",
        )


def _publish(
    session: Session,
    row: PromptRow,
    before: PromptRow | None,
    told: tuple[str, str, str, dict[str, Any]],
) -> PromptRow:
    if before is not None:
        before.state = "retired"
        session.flush()  # one published version at every moment
    row.state = "published"
    session.flush()
    action, author, note, evidence = told
    note_event(
        session, row, action, author, note, evidence | {"before": before.hash if before else None}
    )
    return row
