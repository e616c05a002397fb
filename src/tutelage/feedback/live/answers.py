"""The answers that are to be scored, read back from the request log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import select

from tutelage.core.example import Example, Message, Origin
from tutelage.store.base import Store
from tutelage.store.live import LiveRow
from tutelage.store.records import RecordRow
from tutelage.store.releases import ReleaseRow

NO_TEXTS = "its texts were not logged"
NO_RECORD = "the record is not there any more"
NO_RELEASE = "nothing is known of its release"


class Logged(Example):
    """A logged request; its id is the record's, so that what is said of it is found by it."""

    @cached_property
    def id(self) -> str:
        """The record's id."""
        return self.origin.source


@dataclass(frozen=True)
class Answered:
    """One answer to be scored. `noted` is what the gateway's guards said at the time."""

    row: Logged  # without a reference answer
    text: str
    finish_reason: str
    noted: Mapping[str, Any]
    release: ReleaseRow
    drawn: LiveRow

    @property
    def prompt(self) -> str:
        """The instructions that it was written under."""
        return str(self.release.manifest.get("prompt", ""))


def read_answers(store: Store, drawn: Sequence[LiveRow]) -> tuple[list[Answered], dict[str, str]]:
    """Return the answers of drawn records, and why each of the others can't be scored."""
    with store.session() as session:
        wanted = select(RecordRow).where(RecordRow.id.in_([row.record for row in drawn]))
        records = {row.id: row for row in session.scalars(wanted)}
        ids = {row.release for row in drawn}
        named = select(ReleaseRow).where(ReleaseRow.id.in_(ids))
        releases = {row.id: row for row in session.scalars(named)}
    found, problems = [], {}
    for row in drawn:
        record, release = records.get(row.record), releases.get(row.release)
        if record is None or release is None:
            problems[row.record] = NO_RECORD if record is None else NO_RELEASE
        elif not record.messages:
            problems[row.record] = NO_TEXTS
        else:
            found.append(_answered(row, record, release))
    return found, problems


def _answered(drawn: LiveRow, record: RecordRow, release: ReleaseRow) -> Answered:
    request = Logged(
        messages=tuple(_turns(record.messages)), origin=Origin(kind="production", source=record.id)
    )
    return Answered(
        request, record.response, record.finish_reason, record.checks or {}, release, drawn
    )


def _turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
    for turn in messages:
        yield Message(role=turn["role"], content=turn["content"] or "")
