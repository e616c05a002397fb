"""Keep what a person is typing until it is handed in, so that nothing typed is lost.

It says nothing about what the text is for: `item` names that, such as "label:1f3a…".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tutelage.core.artifact import utc_now
from tutelage.store.base import insert_into
from tutelage.store.kept import KeptTextRow
from tutelage.workflows.context import Context


@dataclass(frozen=True)
class KeptText:
    """A text that is still being written, and when it was last kept."""

    text: str
    at: datetime


def keep_text(ctx: Context, person: str, item: str, text: str) -> None:
    """Keep the text of a person for an item in place of an earlier one."""
    values = {"text": text, "at": utc_now()}
    add = insert_into(ctx.store.engine, KeptTextRow).values(person=person, item=item, **values)
    with ctx.store.begin() as session:
        session.execute(add.on_conflict_do_update(index_elements=["person", "item"], set_=values))


def kept_text(ctx: Context, person: str, item: str) -> KeptText | None:
    """Return what a person has typed for an item, or None."""
    with ctx.store.session() as session:
        row = session.get(KeptTextRow, (person, item))
    return KeptText(row.text, row.at) if row is not None else None


def drop_text(ctx: Context, person: str, item: str) -> None:
    """Forget the text: it was handed in, or is not wanted any more."""
    with ctx.store.begin() as session:
        row = session.get(KeptTextRow, (person, item))
        if row is not None:
            session.delete(row)
