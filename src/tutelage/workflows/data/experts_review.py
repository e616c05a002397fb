"""What the answers add up to: agreement, disputes, decisions, reliability, and their report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core import html
from tutelage.core.errors import Conflict, DataError
from tutelage.data.annotation.card import sections as draw
from tutelage.data.annotation.consensus import Consensus, dawid_skene, majority
from tutelage.data.annotation.reliability import findings as of_people
from tutelage.data.annotation.reliability import ratings_of, reliability
from tutelage.data.annotation.votes import Dispute, Voted, disputes
from tutelage.data.findings import Finding
from tutelage.data.quality.agreement import Agreement, agreement
from tutelage.data.quality.ratings import Level, Ratings
from tutelage.store.annotations import AdjudicationRow, ItemRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_answer import checked_answer
from tutelage.workflows.data.experts_people import known_name
from tutelage.workflows.data.experts_rows import find_item, item_of
from tutelage.workflows.data.experts_votes import decided_of, votes_of, waiting_of

_MANY = 0.02  # share of the items on which two labels met, from which on they are mixed up
_LEAST = 10  # items with two answers from which on agreement is a finding


def load_votes(ctx: Context, batch: str | None = None) -> list[Voted]:
    """Return every item that was given out or answered, with the newest answer of each person."""
    with ctx.store.session() as session:
        waiting = waiting_of(session, batch)
        votes = votes_of(session)
        decided = decided_of(session)
        named = set(waiting) if batch is not None else {*waiting, *votes, *decided}
        rows = session.scalars(select(ItemRow).order_by(ItemRow.added_at, ItemRow.id))
        return [
            Voted(
                item_of(row),
                tuple(votes.get(row.id, ())),
                waiting.get(row.id, 0),
                decided.get(row.id),
            )
            for row in rows
            if row.id in named
        ]


def ratings(ctx: Context, *, order: Sequence[str] = (), batch: str | None = None) -> Ratings:
    """Return the matrix of labels of the store; raise DataError if there are none."""
    voted = load_votes(ctx, batch)
    found = ratings_of(voted, order)
    if not found.items and any(one.answers for one in voted):
        raise DataError(
            "the answers are texts, and agreement is computed on labels",
            where=str(ctx.workspace.root),
            fix="`tutelage data label disputes` shows the texts that differ most",
        )
    if not found.items:
        raise DataError(
            "nobody has labelled anything yet",
            where=str(ctx.workspace.root),
            fix="Give items out with `tutelage data label assign`, or name a file",
        )
    return found


def agree(
    ctx: Context,
    *,
    level: Level = "nominal",
    order: Sequence[str] = (),
    batch: str | None = None,
    seed: int = 7,
) -> Agreement:
    """Return how far the project's experts agree. Raises DataError if nothing overlaps."""
    return agreement(ratings(ctx, order=order, batch=batch), level=level, seed=seed)


def disputed(ctx: Context, count: int | None = None) -> list[dict[str, Any]]:
    """Return the items that need a decision, the most disagreed first, with a suggestion each.

    An entry has item, text, state, votes, entropy, pair, suggestion {label, probability, by}.
    """
    voted = load_votes(ctx)
    queue = disputes(voted)
    suggested = suggestions(voted)
    shown = queue if count is None else queue[:count]
    return [_entry(one, suggested.get(one.voted.item.id)) for one in shown]


def suggestions(voted: Sequence[Voted]) -> dict[str, dict[str, Any]]:
    """Return what each labelled item's label likely is: {label, probability, majority, by}.

    Probabilities are Dawid and Skene's; they need two people. It decides nothing.
    """
    matrix = ratings_of(voted)
    if len(matrix.raters) < 2:
        return {}
    believed: Consensus = dawid_skene(matrix.codes, len(matrix.categories))
    most, _ = majority(matrix.codes, len(matrix.categories))
    found = {}
    for place, item in enumerate(matrix.items):
        best = int(believed.probabilities[place].argmax())
        found[item] = {
            "label": matrix.categories[best],
            "probability": float(believed.probabilities[place, best]),
            "majority": matrix.categories[most[place]] if most[place] >= 0 else None,
            "by": f"dawid-skene ({believed.model})",
        }
    return found


def adjudicate(
    ctx: Context,
    item: str,
    *,
    by: str,
    label: str | None = None,
    answer: str | None = None,
    why: str = "",
    seen: int | None = None,
) -> dict[str, Any]:
    """Keep the final decision on an item; a later one rules. Returns item, label, answer, by.

    `seen` is the number of the decision that was there when the person looked, 0 for none. Raises
    DataError if the item is unknown or the answer can't be one, Conflict if somebody else decided
    since.
    """
    author = known_name(by)
    with ctx.store.begin() as session:
        row = session.get_one(ItemRow, find_item(session, item).id, with_for_update=True)
        held, text = checked_answer(ctx, item_of(row), label, answer)
        if seen is not None:
            _check_unchanged(session, row.id, seen)
        session.add(
            AdjudicationRow(item=row.id, label=held, answer=text, author=author, why=why.strip())
        )
        return {"item": row.id, "label": held, "answer": text, "by": author, "why": why.strip()}


def _check_unchanged(session: Session, item: str, seen: int) -> None:
    newest = session.scalars(
        select(AdjudicationRow)
        .where(AdjudicationRow.item == item)
        .order_by(AdjudicationRow.number.desc())
        .limit(1)
    ).first()
    if newest is not None and newest.number != seen:
        raise Conflict(
            f"{newest.author} decided this item meanwhile",
            where=item,
            fix="Look at that decision before you change it",
        )


def people(ctx: Context) -> list[dict[str, Any]]:
    """Return every annotator's record: answers, pace, agreement with others, what they mix up."""
    return [one.as_dict() for one in reliability(load_votes(ctx))]


def findings(ctx: Context) -> list[Finding]:
    """Return what should be looked at in the experts' answers (D8-*)."""
    voted = load_votes(ctx)
    if not voted:
        return []
    found = of_people(reliability(voted))
    told = _agreement_or_none(voted)
    if told is not None and told.rated >= _LEAST and told.strength == "unreliable":
        found.append(Finding("D8-A01", told.sentence()))
    if told is not None:
        found += [
            Finding("D8-A05", f"{one!r} and {two!r} met on {met:.0f} of {told.rated:,} items")
            for one, two, met in told.confusions
            if met >= max(2, _MANY * told.rated)
        ]
    waiting = len(disputes(voted))
    if waiting:
        rows = "1 item" if waiting == 1 else f"{waiting:,} items"
        found.append(Finding("D8-Q01", rows))
    return found


def sections(ctx: Context) -> list[html.Html]:
    """Return the report's parts about experts: agreement, people, disputes; none if no answers."""
    voted = load_votes(ctx)
    if not any(one.answers for one in voted):
        return []
    return draw(_agreement_or_none(voted), reliability(voted), disputes(voted))


def _agreement_or_none(voted: Sequence[Voted]) -> Agreement | None:
    matrix = ratings_of(voted)
    if not matrix.items or not bool((matrix.counts().sum(axis=1) >= 2).any()):
        return None
    return agreement(matrix)


def _entry(dispute: Dispute, suggestion: dict[str, Any] | None) -> dict[str, Any]:
    one = dispute.voted
    return {
        "item": one.item.id,
        "text": one.item.text,
        "state": one.state,
        "waiting": one.waiting,
        "entropy": dispute.entropy,
        "distance": one.distance,
        "pair": list(dispute.pair) if dispute.pair else None,
        "met": dispute.met,
        "votes": [
            {
                "annotator": vote.annotator,
                "label": vote.label,
                "answer": vote.answer,
                "flags": list(vote.flags),
                "comment": vote.comment,
            }
            for vote in one.votes
        ],
        "suggestion": suggestion,
    }
