"""The versions of the project's prompt, like commits: by hash, with a parent, a state, a journal.

    draft ── test attached ──> review ── approved | rejected
      └────────────┴──────────────┴──> published ── another is published ──> retired ── restored

At most one version is published, held by the database. What happened is only ever added to the
journal (release/prompt_history.py); a version's text never changes.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError
from tutelage.release.prompt_history import note_event, notes, plain_event, published_row, tests
from tutelage.store.base import Store
from tutelage.store.releases import PromptEventRow, PromptRow

_WORDS = re.compile(r"\s+|[^\s]+")
FROM_CONFIG = "from tutelage.yaml"


@dataclass(frozen=True)
class InForce:
    """The prompt that commands use: its text, its version if it has one, and what to say about it.

    `told` is empty where the text is tutelage.yaml's and nothing else is published.
    """

    text: str
    number: int | None = None
    hash: str = ""
    told: str = ""


def prompt_hash(text: str) -> str:
    """Return the SHA-256 of a prompt's text, white space at both ends left out; 64 hex digits."""
    return hashlib.sha256(text.strip().encode()).hexdigest()


def in_force(store: Store, configured: str) -> InForce:
    """Return the prompt to use, given what tutelage.yaml says.

    A text in tutelage.yaml that is no version yet was written by hand just now: it is used. One
    that is a version is where the history began: the published version is used.
    """
    with store.session() as session:
        public = published_row(session)
        known = session.get(PromptRow, prompt_hash(configured))
    if public is None or (known is not None and known.hash == public.hash):
        return InForce(configured, known.number if known else None, known.hash if known else "")
    if known is None and configured.strip():
        told = (
            f"the prompt in tutelage.yaml is new and is used; version {public.number} stays "
            "published until a release is made"
        )
        return InForce(configured, None, prompt_hash(configured), told)
    has = f"tutelage.yaml holds version {known.number}" if known else "tutelage.yaml has none"
    verb = "restore" if known and known.state == "retired" else "publish"
    back = f" (`tutelage prompt {verb} {known.number}` puts it in force)" if known else ""
    told = f"version {public.number} of the prompt is used, the published one; {has}{back}"
    return InForce(public.text, public.number, public.hash, told)


def record(store: Store, text: str, *, author: str = "", note: str = "") -> PromptRow:
    """Return the draft with this text, made if it is new. An existing version stays as it is.

    Its parent is the published version. Raises DataError for an empty text.
    """
    if not text.strip():
        raise DataError("the prompt is empty", fix="Write what the model is to be told")
    with store.begin() as session:
        return add_version(session, text, author=author, note=note)


def published(store: Store) -> PromptRow | None:
    """Return the published version, or None."""
    with store.session() as session:
        return published_row(session)


def find(store: Store, version: str) -> PromptRow:
    """Return a version by its number or the start of its hash (4 digits or more)."""
    with store.session() as session:
        return find_version(session, version)


def newest_draft(store: Store) -> PromptRow | None:
    """Return the newest version that was never published, or None."""
    with store.session() as session:
        query = select(PromptRow).where(PromptRow.state.not_in(("published", "retired")))
        return session.scalars(query.order_by(PromptRow.number.desc()).limit(1)).first()


def listing(store: Store) -> list[dict[str, Any]]:
    """Return every version as plain data, newest first."""
    with store.session() as session:
        rows = session.scalars(select(PromptRow).order_by(PromptRow.number.desc())).all()
        said, tested = notes(session), tests(session)
    return [_plain(row, said.get(row.hash), tested.get(row.hash)) for row in rows]


def show(store: Store, version: str) -> dict[str, Any]:
    """Return one version as plain data, with its text and all that happened to it."""
    row = find(store, version)
    with store.session() as session:
        query = select(PromptEventRow).where(PromptEventRow.version == row.hash)
        events = session.scalars(query.order_by(PromptEventRow.id)).all()
        data = _plain(row, notes(session).get(row.hash), tests(session).get(row.hash))
    return data | {"events": [plain_event(event, row.number) for event in events]}


def diff(store: Store, old: str, new: str) -> str:
    """Return what changed between two versions, word by word: [-taken out-] {+put in+}."""
    return word_diff(find(store, old).text, find(store, new).text)


def changes(old: str, new: str) -> list[tuple[str, str]]:
    """Return the pieces of both texts in order, each as (same | out | in, text)."""
    a, b = _WORDS.findall(old), _WORDS.findall(new)
    parts: list[tuple[str, str]] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            parts.append(("same", "".join(a[i1:i2])))
            continue
        if i2 > i1:
            parts.append(("out", "".join(a[i1:i2])))
        if j2 > j1:
            parts.append(("in", "".join(b[j1:j2])))
    return parts


def marked(kind: str, text: str) -> str:
    """Return a piece of a difference with the marks of `git --word-diff`."""
    return {"out": f"[-{text}-]", "in": f"{{+{text}+}}"}.get(kind, text)


def word_diff(old: str, new: str) -> str:
    """Return `new` with the words that were taken out or put in marked as `git --word-diff` does.

    White space that stays between two changed words goes with them.
    """
    return "".join(marked(kind, text) for kind, text in changes(old, new))


def add_version(session: Session, text: str, *, author: str, note: str) -> PromptRow:
    """Return the version with this text, added as a draft if it is new."""
    digest = prompt_hash(text)
    row = session.get(PromptRow, digest)
    if row is not None:
        return row
    before = published_row(session)
    number = (session.scalar(select(func.max(PromptRow.number))) or 0) + 1
    row = PromptRow(
        hash=digest,
        number=number,
        text=text.strip(),
        state="draft",
        note=note,
        parent=before.hash if before else None,
    )
    session.add(row)
    session.flush()
    note_event(session, row, "drafted", author, note)
    return row


def find_version(session: Session, version: str) -> PromptRow:
    """Return a version by its number or the start of its hash; DataError if there is none."""
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


def _plain(row: PromptRow, note: str | None, test: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "number": row.number,
        "hash": row.hash,
        "state": row.state,
        "note": note or row.note,
        "parent": row.parent,
        "text": row.text,
        "test": test,
        "created_at": row.created_at.isoformat(timespec="seconds"),
    }
