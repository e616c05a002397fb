"""What a study found, as one plain document: win rates, one scale, marks, agreement, leanings.

Figures only: words for a person are made where they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tutelage.core.artifact import finite
from tutelage.data.quality.agreement import Agreement
from tutelage.evaluation.human import bradley_terry, rubric
from tutelage.evaluation.human.raters import (
    mark_agreement,
    position,
    rater_reports,
    vote_agreement,
)
from tutelage.evaluation.human.rubric import Criterion
from tutelage.evaluation.human.votes import NOBODY, Mark, Vote, pairs_of
from tutelage.evaluation.human.win_rate import WinRate, win_rate

FEW = 20  # judged rows below which no figure should be leant on


@dataclass(frozen=True)
class Asked:
    """What a study asked, for its results. `sample` has how, rows, of, differ."""

    candidates: tuple[str, ...]
    sample: Mapping[str, Any]
    criteria: tuple[Criterion, ...] = ()
    confidence: float = 0.95
    seed: int = 0


def of_votes(asked: Asked, votes: Sequence[Vote]) -> dict[str, Any]:
    """Return the results of a pairwise study."""
    how = {"confidence": asked.confidence, "seed": asked.seed}
    rates = [
        rate
        for first, second in pairs_of(asked.candidates)
        if (rate := win_rate(votes, first, second, **how)) is not None  # type: ignore[arg-type]
    ]
    scale = None
    if len(asked.candidates) > 2:
        scale = bradley_terry.scale(votes, asked.candidates, **how)  # type: ignore[arg-type]
    raters = rater_reports(votes)
    agreed = vote_agreement(votes)
    judged = len({vote.item for vote in votes if vote.rater != NOBODY})
    document = {
        "kind": "pairwise",
        "judgements": sum(vote.rater != NOBODY for vote in votes),
        "rows": judged,
        "win_rates": [{**asdict(rate), **_overall(asked, rate)} for rate in rates],
        "scale": asdict(scale) if scale else None,
        "agreement": _agreement(agreed),
        "raters": [asdict(report) for report in raters],
        "position": asdict(position(votes, asked.confidence)) if judged else None,
        "notes": _notes(asked, judged, rates, [r.rater for r in raters if r.leans], scale),
        "confidence": asked.confidence,
    }
    return dict(finite(document))


def of_marks(asked: Asked, marks: Sequence[Mark]) -> dict[str, Any]:
    """Return the results of a rubric study."""
    how = {"confidence": asked.confidence, "seed": asked.seed}
    names = [criterion.name for criterion in asked.criteria]
    judged = len({mark.item for mark in marks})
    found = rubric.means(marks, names, asked.candidates, **how)  # type: ignore[arg-type]
    differ = rubric.mark_differences(marks, names, asked.candidates, **how)  # type: ignore[arg-type]
    document = {
        "kind": "rubric",
        "judgements": len(marks),
        "rows": judged,
        "means": [
            {"criterion": m.criterion, "candidate": m.candidate, **asdict(m.mean)}
            for m in found
            if m.mean.n
        ],
        "differences": [
            {"criterion": d.criterion, "first": d.first, "second": d.second,
             **asdict(d.difference)}
            for d in differ
            if d.difference.n
        ],
        "agreement": {
            criterion.name: _agreement(
                mark_agreement(marks, criterion.name, levels=len(criterion.levels))
            )
            for criterion in asked.criteria
        },
        "raters": _markers(marks),
        "notes": _few(judged),
        "confidence": asked.confidence,
    }  # fmt: skip
    return dict(finite(document))


def _overall(asked: Asked, rate: WinRate) -> dict[str, float | None]:
    """Return the win rate over all rows where only those that differ were judged.

    Rows with equal texts tie; how many there are is counted, not drawn. For two candidates only:
    with more, rows are drawn where any two of them differ.
    """
    whole = asked.sample["of"]
    if asked.sample["how"] != "differ" or len(asked.candidates) > 2 or not whole:
        return {"overall": None, "overall_low": None, "overall_high": None}
    share = asked.sample["differ"] / whole
    return {
        name: 0.5 + (value - 0.5) * share
        for name, value in (
            ("overall", rate.rate), ("overall_low", rate.low), ("overall_high", rate.high),
        )
    }  # fmt: skip


def _agreement(found: Agreement | None) -> dict[str, Any] | None:
    """Return the coefficients that fit and stand beside it, and what they mean."""
    if found is None:
        return None
    return {
        "sentence": found.sentence(),
        "strength": found.strength,
        "rows": found.rated,
        "coefficients": [asdict(coefficient) for coefficient in found.coefficients],
    }


def _markers(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    names = sorted({mark.rater for mark in marks})
    found = []
    for name in names:
        own = [mark for mark in marks if mark.rater == name]
        values = [value for mark in own for value in mark.values.values()]
        found.append(
            {
                "rater": name,
                "judgements": len(own),
                "mean": sum(values) / len(values) if values else None,
            }
        )
    return found


def _notes(
    asked: Asked,
    judged: int,
    rates: Sequence[WinRate],
    leaning: Sequence[str],
    scale: bradley_terry.Scale | None,
) -> list[str]:
    notes = _few(judged)
    if asked.sample["how"] == "differ":
        notes.append(
            f"Judged are only rows whose answers differ: {asked.sample['differ']} of "
            f"{asked.sample['of']} do."
        )
    notes += [
        f"{name} chooses one side more often than chance allows: look at their answers."
        for name in leaning
    ]
    notes += [
        f"{rate.first} and {rate.second}: who judged matters as much as what was judged; with "
        "raters drawn anew too the question is open."
        for rate in rates
        if rate.decision != "open"
        and rate.wide_low is not None
        and rate.wide_high is not None
        and rate.wide_low <= 0.5 <= rate.wide_high
    ]
    if scale is not None:
        notes += [
            f"{one.candidate} {'never lost' if one.wins else 'never won'}: its strength has no "
            "limit but the faint pull of the fit to 0."
            for one in scale.strengths
            if not one.bounded
        ]
    return notes


def _few(judged: int) -> list[str]:
    if judged >= FEW:
        return []
    return [f"Only {judged} rows are judged: too few to lean on any figure here."]
