"""The value of training rows as a part of a report: the rows to look at, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core import html
from tutelage.data.valuation import Valuation, Valued

SHOWN = 15
_TEXT = 240  # characters of a row
_LEAD = {
    "knn": "A row's value is how many validation rows its neighbours' vote wins or loses through "
    "it (KNN-Shapley, on the meaning of the texts). A harmful row is often a wrong label: look at "
    "it before you drop it.",
    "gradient": "A row's value is how far a training step on it lowers the loss of the validation "
    "rows (cosine of the adapter's gradients). A harmful row is often a wrong answer: look at it "
    "before you drop it.",
}


def section(valuation: Valuation, shown: int = SHOWN) -> list[html.Html]:
    """Return the cards that show a valuation."""
    helpful, harmful = valuation.helpful, valuation.harmful
    return [
        html.section(
            "What training rows are worth",
            html.stats(
                [
                    ("help", f"{len(helpful):,}", "rows of a value above 0"),
                    ("hurt", f"{len(harmful):,}", "rows of a value below 0"),
                    ("validation rows", f"{valuation.validation:,}", "that they were held against"),
                ]
            ),
            html.histogram([row.value for row in valuation.rows], x_label=valuation.unit),
            html.Html("<h3>Most harmful</h3>"),
            _table(harmful[:shown]),
            html.details(f"The {min(shown, len(helpful))} most helpful", _table(helpful[:shown])),
            lead=_LEAD[valuation.method],
        )
    ]


def _table(rows: Sequence[Valued]) -> html.Html:
    if not rows:
        return html.paragraph("None.")
    return html.table(
        ("row", "answer", "value", "why", "where"),
        [
            (row.text[:_TEXT], row.answer[:80], round(row.value, 3), row.reason, row.source)
            for row in rows
        ],
    )
