"""The report's sections on quality: a map of the rows, what stands out, labels in doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core import html
from tutelage.core.html_plots import Point, heat_table, scatter
from tutelage.data.quality.assess import Assessment, label_rows, outlier_rows
from tutelage.data.quality.label_errors import LEAST_A_CLASS, LabelErrors

_POINTS = 700  # of the map, flagged rows not counted
_NAMED = 5  # labels with a colour of their own
_ROWS = 15
_TEXT = 160  # characters of a row
_LABELS = 12  # of the table of confusions


def sections(found: Assessment) -> list[html.Html]:
    """Return what a domain expert should look at: outliers with their map, then labels."""
    parts = []
    if found.outliers is not None and found.outliers.signals:
        parts.append(_outliers(found))
    if found.labels is not None:
        parts += _labels(found, found.labels)
    return parts


def _outliers(found: Assessment) -> html.Html:
    flagged = int(found.outliers.flagged.sum()) if found.outliers is not None else 0
    rows = [(_said(row), row["label"] or "", row["reason"]) for row in outlier_rows(found, _ROWS)]
    return html.section(
        "Rows unlike the others",
        html.paragraph(_count(flagged, "row stands", "rows stand") + " far out."),
        _map(found),
        html.table(("row", "label", "why"), rows),
        lead="Another topic, noise, or a row that matters because it is rare: only a person can "
        "tell. Nothing was left out. The map shows like rows near each other; point at one to "
        "read it.",
    )


def _map(found: Assessment) -> html.Html:
    assert found.outliers is not None  # the caller has looked
    flat = flatten(found.space.vectors)
    flagged = found.outliers.flagged
    rng = np.random.default_rng(7)
    plain = np.flatnonzero(~flagged)
    if len(plain) > _POINTS:
        plain = rng.choice(plain, _POINTS, replace=False)
    marked = found.outliers.order[flagged[found.outliers.order]][:_POINTS]
    counts = Counter(row.label for row in found.rows if row.label is not None)
    names = [label for label, _ in counts.most_common(_NAMED)]
    series = {label: index for index, label in enumerate(names)}
    others = len(names)
    points = [
        Point(
            float(flat[index, 0]),
            float(flat[index, 1]),
            series.get(found.rows[index].label or "", others),
            f"{found.rows[index].label or ''} {found.space.texts[index][:140]}".strip(),
            bool(flagged[index]),
        )
        for index in [*plain.tolist(), *marked.tolist()]
    ]
    shown = [*names, "other labels"] if len(counts) > len(names) else names
    return scatter(points, shown, marked="stands far out")


def flatten(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows on their two main directions of difference (PCA), shape (N, 2)."""
    if len(vectors) < 3 or vectors.shape[1] < 2:
        return np.zeros((len(vectors), 2), dtype=np.float32)
    centred = vectors - vectors.mean(axis=0)
    values, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    flat: NDArray[np.float32] = centred @ directions[:, np.argsort(-values)[:2]].astype(np.float32)
    return flat


def _labels(found: Assessment, labels: LabelErrors) -> list[html.Html]:
    rows = [
        (
            _said(row),
            row["label"],
            html.badge("warn" if row["flagged"] else "note", row["suggested"]),
            f"{row['agreeing']} of {row['voters']} nearest rows; held out "
            f"{row['suggested_probability']:.0%} against {row['given_probability']:.0%}",
        )
        for row in label_rows(found, _ROWS)
    ]
    share = labels.flagged / max(labels.judged, 1)
    body: list[Any] = [
        html.paragraph(
            f"{_count(labels.flagged, 'label is', 'labels are')} contradicted by the other rows: "
            f"{share:.1%} of the {labels.judged:,} that could be judged."
        ),
        html.table(("row", "label", "suggested", "evidence for the suggestion"), rows),
    ]
    if labels.too_few:
        names = ", ".join(list(labels.too_few)[:10])
        body.append(
            html.paragraph(
                f"Not judged, with fewer than {LEAST_A_CLASS} rows each: "
                f"{_count(len(labels.too_few), 'label', 'labels')} ({names})."
            )
        )
    parts = [
        html.section(
            "Labels in doubt",
            *body,
            lead="Each row was judged by a model that had not seen it and by its nearest rows. "
            "Some of these labels are wrong, some are hard but right: decide them with "
            "`tutelage data label-errors --fix ID=LABEL`, or let experts look.",
        )
    ]
    if labels.confusions:
        parts.append(_confusions(labels))
    return parts


def _confusions(labels: LabelErrors) -> html.Html:
    given = _most([(one, count) for one, _, count in labels.confusions])
    other = _most([(two, count) for one, two, count in labels.confusions if one in given])
    values = {
        (one, two): float(count)
        for one, two, count in labels.confusions
        if one in given and two in other
    }
    return html.section(
        "Labels that are taken for each other",
        heat_table(given, other, values, corner="given ↓  suggested →"),
        lead="Rows whose label is in doubt, by the label they have and the one the other rows "
        "suggest. A dark cell is a pair whose guideline may need a sentence.",
    )


def _said(row: Mapping[str, Any]) -> html.Html:
    """Return what a row says and, small, where it stands."""
    where = html.Html(f"<br><small class='soft'>{html.esc(row['where'])}</small>")
    return html.join([row["text"][:_TEXT], where])


def _most(pairs: list[tuple[str, int]]) -> list[str]:
    sums: Counter[str] = Counter()
    for name, count in pairs:
        sums[name] += count
    return [name for name, _ in sums.most_common(_LABELS)]


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
