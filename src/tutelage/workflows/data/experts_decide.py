"""What needs a decision, for several people who decide at once.

The order is kept between looks and made anew when answers or decisions have come in, so that one
step costs one item however many there are. Who has which item before them is remembered for a
while here, in the page's process; the store itself refuses a decision that came second.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import select

from tutelage.data.annotation.votes import Dispute, Vote, disputes
from tutelage.store.annotations import AdjudicationRow, DraftRow, ItemRow
from tutelage.store.base import Store
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_answer import is_labelled, known_labels
from tutelage.workflows.data.experts_people import current_version
from tutelage.workflows.data.experts_rows import find_item, item_of
from tutelage.workflows.data.experts_votes import (
    bare_votes,
    chunks,
    doubtful_items,
    state_of,
    votes_of,
)

CLAIM_S = 15 * 60.0  # an item that somebody opened is passed by for the others so long
FRESH_S = 5.0  # a look that is younger is not made anew
_SAID = 60  # characters of an answer in the list


@dataclass(frozen=True)
class Waiting:
    """One item that needs a decision. `said` is what people answered and how many did."""

    item: str
    state: str  # disputed, unsure, skipped
    said: tuple[tuple[str, int], ...]
    people: frozenset[str]
    pair: tuple[str, str] | None
    met: int  # how often the two labels met on other items too
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """One person's answer; `mark` stands for the person while nobody's name is shown."""

    mark: str
    annotator: str
    label: str | None
    answer: str | None
    flags: tuple[str, ...]
    comment: str

    @property
    def value(self) -> str:
        """The label or the text; empty for a skip."""
        return self.label if self.label is not None else self.answer or ""


@dataclass(frozen=True)
class Case:
    """One item before a person who decides. `seen` names the decision it has, 0 for none."""

    item: str
    messages: tuple[dict[str, Any], ...]
    state: str
    labelled: bool
    labels: tuple[str, ...]
    answers: tuple[Answer, ...]
    draft: str | None
    guideline: int | None
    seen: int
    decision: dict[str, Any] | None  # {label, answer, by, why}


class DecisionQueue:
    """The items of one project that need a decision, the most disagreed first."""

    def __init__(self, ctx: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._ctx, self._clock = ctx, clock
        self._lock = threading.Lock()
        self._order: list[Waiting] = []
        self._key: tuple[Any, ...] | None = None
        self._looked = float("-inf")
        self._claims: dict[str, tuple[str, float]] = {}  # item: who has it, until when

    def waiting(self, by: str, *, own: bool = False) -> list[Waiting]:
        """Return what `by` may decide, in order; with `own` also what they answered themselves."""
        self._look()
        at = self._clock()
        with self._lock:
            return [
                one
                for one in self._order
                if (own or by not in one.people) and self._free(one.item, by, at)
            ]

    def counts(self, by: str) -> tuple[int, int]:
        """Return how many items wait at all, and how many of them `by` answered themselves."""
        self._look()
        with self._lock:
            return len(self._order), sum(by in one.people for one in self._order)

    def page(self, by: str, *, own: bool = False, start: int = 0, count: int = 20) -> list[Waiting]:
        """Return some of what waits, each with the beginning of its text."""
        rows = self.waiting(by, own=own)[start : start + count]
        with self._ctx.store.session() as session:
            texts = {
                row.id: " ".join(item_of(row).text.split())[:160]
                for part in chunks(one.item for one in rows)
                for row in session.scalars(select(ItemRow).where(ItemRow.id.in_(part)))
            }
        return [replace(one, text=texts.get(one.item, "")) for one in rows]

    def take(self, by: str, *, own: bool = False, after: str | None = None) -> str | None:
        """Return the next item for `by` and hold it for them; the one behind `after`, if named."""
        rows = self.waiting(by, own=own)
        place = next((i for i, one in enumerate(rows) if one.item == after), -1)
        rest = rows[place + 1 :] or [one for one in rows[: max(place, 0)] if one.item != after]
        if not rest:
            return None
        self.claim(rest[0].item, by)
        return rest[0].item

    def claim(self, item: str, by: str) -> bool:
        """Hold an item for `by`, and nothing else; False if somebody else has it before them."""
        at = self._clock()
        with self._lock:
            if not self._free(item, by, at):
                return False
            self._claims = {k: held for k, held in self._claims.items() if held[0] != by}
            self._claims[item] = (by, at + CLAIM_S)
            return True

    def done(self, item: str) -> None:
        """Take a decided item off the list without waiting for the next look."""
        with self._lock:
            self._order = [one for one in self._order if one.item != item]
            self._claims.pop(item, None)

    def _free(self, item: str, by: str, at: float) -> bool:
        who, until = self._claims.get(item, (by, at))
        return who == by or until < at

    def _look(self) -> None:
        """Make the order anew if something came in since; one thread does it, others wait."""
        with self._lock:
            if self._clock() - self._looked < FRESH_S:
                return
            with self._ctx.store.session() as session:
                key = state_of(session)
                if key != self._key:
                    voted = bare_votes(session, doubtful_items(session))
                    self._order = [_waiting(one) for one in disputes(voted)]
                    self._key = key
            self._looked = self._clock()


def case_of(ctx: Context, item: str) -> Case:
    """Return one item as a person sees it who decides; DataError if there is none.

    The answers stand in an order that is the item's own, so that no letter means one person.
    """
    with ctx.store.session() as session:
        row = find_item(session, item)
        found = item_of(row)
        votes = votes_of(session, [row.id]).get(row.id, [])
        ruling = session.scalars(
            select(AdjudicationRow)
            .where(AdjudicationRow.item == row.id)
            .order_by(AdjudicationRow.number.desc())
            .limit(1)
        ).first()
        draft = session.scalars(
            select(DraftRow.text)
            .where(DraftRow.item == row.id, DraftRow.problem.is_(None))
            .order_by(DraftRow.id.desc())
        ).first()
        return Case(
            item=row.id,
            messages=tuple(m.model_dump(exclude_none=True) for m in found.example.messages),
            state=bare_votes(session, [row.id])[0].state,
            labelled=is_labelled(ctx.config),
            labels=tuple(known_labels(ctx)),
            answers=_marked(row.id, votes),
            draft=draft,
            guideline=current_version(session),
            seen=ruling.number if ruling is not None else 0,
            decision=_plain(ruling) if ruling is not None else None,
        )


def decisions_of(ctx: Context, by: str, count: int = 10) -> list[dict[str, Any]]:
    """Return the newest decisions of a person: item, label, answer, why, at."""
    with ctx.store.session() as session:
        rows = session.scalars(
            select(AdjudicationRow)
            .where(AdjudicationRow.author == by)
            .order_by(AdjudicationRow.number.desc())
            .limit(count)
        )
        return [{"item": row.item, "at": row.at, **_plain(row)} for row in rows]


def _marked(item: str, votes: list[Vote]) -> tuple[Answer, ...]:
    def order(vote: Vote) -> bytes:
        return hashlib.sha256(f"{item} {vote.annotator}".encode()).digest()

    return tuple(
        Answer(_mark(place), v.annotator, v.label, v.answer, v.flags, v.comment)
        for place, v in enumerate(sorted(votes, key=order))
    )


def _mark(place: int) -> str:
    """Return A, B, …, Z, A2, …"""
    round_, letter = divmod(place, 26)
    return chr(ord("A") + letter) + (str(round_ + 1) if round_ else "")


def _waiting(dispute: Dispute) -> Waiting:
    one = dispute.voted
    said = Counter(" ".join((v.label or v.answer or "").split())[:_SAID] for v in one.answers)
    return Waiting(
        one.item.id,
        one.state,
        tuple(said.most_common()),
        frozenset(vote.annotator for vote in one.votes),
        dispute.pair,
        max(dispute.met - 1, 0),
    )


def _plain(row: AdjudicationRow) -> dict[str, Any]:
    return {"label": row.label, "answer": row.answer, "by": row.author, "why": row.why}


_QUEUES: WeakKeyDictionary[Store, DecisionQueue] = WeakKeyDictionary()
_MAKING = threading.Lock()


def queue_of(ctx: Context) -> DecisionQueue:
    """Return the one queue of a project in this process."""
    with _MAKING:
        return _QUEUES.setdefault(ctx.store, DecisionQueue(ctx))
