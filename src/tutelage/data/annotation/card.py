"""What a report says of the experts' answers: how far they agree, who answered how, what is open.

Built for a domain expert: the verdict first, then where agreement is weak, then examples.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core import html
from tutelage.data.annotation.reliability import Annotator
from tutelage.data.annotation.votes import Dispute
from tutelage.data.quality.agreement import Agreement, Coefficient, Strength

_LABELS = 40  # labels shown
_DISPUTES = 12  # disputed items shown
_PAIR_ITEMS = 10  # items two people share from which on their line is drawn
_TONES: dict[Strength, html.Tone] = {
    "reliable": "good", "tentative": "warn", "unreliable": "bad", "unknown": "note",
}  # fmt: skip
_HEADLINES: dict[Strength, str] = {
    "reliable": "The experts agree: their labels can be relied on",
    "tentative": "The experts agree fairly well: good for tentative conclusions",
    "unreliable": "The experts disagree too often to rely on their labels",
    "unknown": "How far the experts agree can't be told",
}


def sections(
    told: Agreement | None, people: Sequence[Annotator], queue: Sequence[Dispute]
) -> list[html.Html]:
    """Return the parts of the page; agreement is left out where no item has two answers."""
    parts = agreement_sections(told) if told is not None else []
    return [*parts, *_people(people), *_disputes(queue)]


def agreement_sections(told: Agreement) -> list[html.Html]:
    """Return the verdict, the coefficients with their intervals, labels and pairs of raters."""
    head = html.verdict(
        _TONES[told.strength],
        _HEADLINES[told.strength],
        told.sentence() + ".",
        f"{told.chosen.name}, because: {told.chosen.why}.",
        *(note[0].upper() + note[1:] + "." for note in told.notes),
    )
    tiles = html.stats(
        [
            ("items", f"{told.rated:,}", f"of {told.items:,} have two answers or more"),
            ("people", f"{len(told.raters):,}", "who answered"),
            ("answers", f"{told.answers:,}", ""),
            ("commonest answer", f"{told.prevalence:.0%}", told.prevalent),
        ]
    )
    return [head, tiles, _coefficients(told), _labels(told), *_pairs(told), *_confusions(told)]


def _coefficients(told: Agreement) -> html.Html:
    whole = [c for c in told.coefficients if c.value is not None]
    bars = html.intervals([_bar(c.name, c) for c in whole]) if whole else html.Html("")
    rows = [(c.name, _shown(c.value), c.why) for c in told.coefficients]
    return html.section(
        "Agreement beyond chance",
        bars,
        html.details("What each one is for", html.table(("", "value", "why"), rows)),
        lead="1 is full agreement, 0 what chance would give. The line is the 95 % interval.",
    )


def _bar(name: str, one: Coefficient) -> tuple[str, float, float, float]:
    middle = one.value or 0.0
    low = one.low if one.low is not None else middle
    return name, low, middle, one.high if one.high is not None else middle


def _labels(told: Agreement) -> html.Html:
    ranked = sorted(
        (label for label in told.labels if label.answers),
        key=lambda label: label.agreement if label.agreement is not None else 2.0,
    )
    bars = [
        (one.label, one.low or 0.0, one.agreement, one.high or 1.0)
        for one in ranked[:_LABELS]
        if one.agreement is not None
    ]
    rows = [
        (one.label, one.answers, _shown(one.agreement), _shown(one.alpha))
        for one in ranked[:_LABELS]
    ]
    return html.section(
        "Agreement by label, weakest first",
        html.intervals(bars, percent=True) if bars else "",
        html.details(
            "As a table", html.table(("label", "answers", "agreement", "alpha against the rest"),
                                     rows)
        ),
        lead="Where one person gave the label, how often another one did too.",
    )  # fmt: skip


def _pairs(told: Agreement) -> list[html.Html]:
    if len(told.pairs) < 2:
        return []
    bars = [
        _bar(f"{pair.first} and {pair.second}", pair.kappa)
        for pair in told.pairs
        if pair.kappa.value is not None and pair.n >= _PAIR_ITEMS
    ]
    rows = [
        (pair.first, pair.second, pair.n, _shown(pair.percent), _shown(pair.kappa.value))
        for pair in told.pairs
    ]
    return [
        html.section(
            "Every two people",
            html.intervals(bars) if bars else "",
            html.details(
                "As a table", html.table(("", "", "items", "percent", "Cohen's kappa"), rows)
            ),
            lead="One low line among high ones is a person who reads the guideline differently.",
        )
    ]


def _confusions(told: Agreement) -> list[html.Html]:
    if not told.confusions:
        return []
    rows = [(f"{one} / {two}", round(met, 1)) for one, two, met in told.confusions]
    return [
        html.section(
            "Labels that are mixed up",
            html.bars(rows, unit=" ×"),
            lead="How often both were given to one item. Say in the guideline how to tell them "
            "apart.",
        )
    ]


def _people(people: Sequence[Annotator]) -> list[html.Html]:
    if not people:
        return []
    bars = [
        (one.name, one.with_others.low, one.with_others.rate, one.with_others.high)
        for one in people
        if one.with_others.rate is not None
    ]
    rows = [
        (
            one.name,
            one.answers,
            one.skipped,
            one.unsure,
            f"{one.seconds:.0f} s" if one.seconds is not None else "–",
            _rate(one.with_others.hits, one.with_others.n),
            _rate(one.with_adjudicated.hits, one.with_adjudicated.n),
            f"{one.accepted} of {one.drafts}" if one.drafts else "–",
        )
        for one in people
    ]
    mixed = [
        (one.name, true, said, round(count, 1))
        for one in people
        for true, said, count in one.mixes_up
    ]
    head = (
        "", "answers", "skipped", "unsure", "pace", "as the others", "as decided", "drafts kept",
    )  # fmt: skip
    return [
        html.section(
            "Annotators",
            html.intervals(bars, percent=True) if bars else "",
            html.table(head, rows),
            html.details(
                "What each one mixes up",
                html.table(("", "likely right", "was given", "times, estimated"), mixed),
            )
            if mixed
            else "",
            lead="How often each one says what most of the others say, with a 95 % interval.",
        )
    ]


def _disputes(queue: Sequence[Dispute]) -> list[html.Html]:
    if not queue:
        return []
    cards = [
        html.details(
            f"{_said(one)}: {one.voted.item.text[:90]}",
            html.quote(one.voted.item.text[:2000]),
            html.table(
                ("who", "answer", "", "comment"),
                [
                    (
                        vote.annotator,
                        vote.label or (vote.answer or "")[:300],
                        ", ".join(vote.flags),
                        vote.comment,
                    )
                    for vote in one.voted.votes
                ],
            ),
        )
        for one in queue[:_DISPUTES]
    ]
    count = "1 item waits" if len(queue) == 1 else f"{len(queue):,} items wait"
    return [
        html.section(
            "Most disputed",
            *cards,
            lead=f"{count} for a decision. These are where a clearer guideline helps most.",
        )
    ]


def _said(dispute: Dispute) -> str:
    labels = sorted({vote.label for vote in dispute.voted.answers if vote.label is not None})
    return " / ".join(labels) or dispute.voted.state


def _rate(hits: int, n: int) -> str:
    return f"{hits / n:.0%} of {n:,}" if n else "–"


def _shown(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "–"
