"""The versions of the project's prompt, like commits: by hash, with a parent, a state and a note.

States: draft, review, published, retired. At most one version is published.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.core.errors import Conflict, DataError
from tutelage.store.base import Store
from tutelage.store.releases import PromptRow

_WORDS = re.compile(r"\s+|[^\s]+")


def prompt_hash(text: str) -> str:
    """Return the SHA-256 of a prompt's text, white space at both ends left out; 64 hex digits."""
    return hashlib.sha256(text.strip().encode()).hexdigest()


def record(
    store: Store, text: str, *, note: str = "", state: str = "draft", parent: str | None = None
) -> PromptRow:
    """Return the version with this text, made if it is new. An existing version stays as it is.

    The parent is the published version unless another is named.
    """
    with store.begin() as session:
        return _record(session, text, note=note, state=state, parent=parent)


def publish(store: Store, version: str, *, note: str = "") -> PromptRow:
    """Make a version the published one; the one before is retired."""
    with store.begin() as session:
        return _publish(session, _find(session, version), note)


def record_published(store: Store, text: str, *, note: str = "") -> PromptRow:
    """Return the version with this text, recorded if new and published, in one transaction."""
    with store.begin() as session:
        row = _record(session, text, note=note, state="draft", parent=None)
        return row if row.state == "published" else _publish(session, row, note)


def restore(store: Store, version: str, *, note: str = "") -> PromptRow:
    """Publish an earlier version again. Raises Conflict if it is the published one already."""
    with store.begin() as session:
        row = _find(session, version)
        if row.state == "published":
            raise Conflict(f"version {row.number} of the prompt is published already")
        return _publish(session, row, note or f"restored version {row.number}")


def published(store: Store) -> PromptRow | None:
    """Return the published version, or None."""
    with store.session() as session:
        return _published(session)


def find(store: Store, version: str) -> PromptRow:
    """Return a version by its number or the start of its hash (4 digits or more)."""
    with store.session() as session:
        return _find(session, version)


def listing(store: Store) -> list[dict[str, Any]]:
    """Return every version as plain data, newest first."""
    with store.session() as session:
        rows = session.scalars(select(PromptRow).order_by(PromptRow.number.desc()))
        return [_plain(row) for row in rows]


def show(store: Store, version: str) -> dict[str, Any]:
    """Return one version as plain data, with its text."""
    return _plain(find(store, version))


def diff(store: Store, old: str, new: str) -> str:
    """Return what changed between two versions, word by word: [-taken out-] {+put in+}."""
    return word_diff(find(store, old).text, find(store, new).text)


def word_diff(old: str, new: str) -> str:
    """Return `new` with the words that were taken out or put in marked as `git --word-diff` does.

    White space that stays between two changed words goes with them.
    """
    a, b = _WORDS.findall(old), _WORDS.findall(new)
    parts: list[str] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            parts.append("".join(a[i1:i2]))
            continue
        if i2 > i1:
            parts.append(f"[-{''.join(a[i1:i2])}-]")
        if j2 > j1:
            parts.append(f"{{+{''.join(b[j1:j2])}+}}")
    return "".join(parts)


def _record(session: Session, text: str, *, note: str, state: str, parent: str | None) -> PromptRow:
    digest = prompt_hash(text)
    row = session.get(PromptRow, digest)
    if row is not None:
        return row
    before = _published(session)
    number = (session.scalar(select(func.max(PromptRow.number))) or 0) + 1
    row = PromptRow(
        hash=digest,
        number=number,
        text=text.strip(),
        state=state,
        note=note,
        parent=parent or (before.hash if before else None),
    )
    session.add(row)
    session.flush()
    return row


def _publish(session: Session, row: PromptRow, note: str) -> PromptRow:
    before = _published(session)
    if before is not None and before.hash != row.hash:
        before.state = "retired"
    row.state = "published"
    row.note = note or row.note
    return row


def _published(session: Session) -> PromptRow | None:
    return session.scalars(select(PromptRow).where(PromptRow.state == "published")).first()


def _find(session: Session, version: str) -> PromptRow:
    if version.isdigit() and len(version) < 7:
        row = session.scalars(select(PromptRow).where(PromptRow.number == int(version))).first()
        if row is not None:
            return row
    if re.fullmatch(r"[0-9a-f]{4,64}", version):
        query = select(PromptRow).where(PromptRow.hash.startswith(version)).limit(2)
        rows = list(session.scalars(query))
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise DataError(f"{version!r} fits several prompts", fix="Type more digits")
    raise DataError(
        f"there is no version {version!r} of the prompt", fix="`tutelage prompt list` shows them"
    )


def _plain(row: PromptRow) -> dict[str, Any]:
    return {
        "number": row.number,
        "hash": row.hash,
        "state": row.state,
        "note": row.note,
        "parent": row.parent,
        "text": row.text,
        "created_at": row.created_at.isoformat(timespec="seconds"),
    }
