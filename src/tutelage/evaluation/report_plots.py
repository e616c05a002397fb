"""The confusion matrix as a heat map, which only an evaluation needs. The page's other charts are
strips (core/html_strips.py)."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core.html import Html, esc, scroll

UNREADABLE = "no label"
_CELL = 26
_CHAR = 6.7  # width of a character at the charts' text size
_LONGEST = 34  # characters of a label before it is cut


def confusion_matrix(
    labels: Sequence[str], counts: Sequence[Sequence[int]], shown: Sequence[int]
) -> Html:
    """Return the heat map of the labels at the places `shown`: rows true, columns given.

    `counts` is (labels, labels + 1), the last column text without a label. A cell is shaded by its
    share of the row. What goes to labels that are not shown is gathered in a column of its own.
    """
    if not shown:
        return Html("<p class='soft'>nothing to show</p>")
    rest = [j for j in range(len(labels)) if j not in set(shown)]
    columns = [labels[j] for j in shown] + (["others"] if rest else []) + [UNREADABLE]
    names = [_short(label) for label in columns]
    left = max(len(_short(labels[i])) for i in shown) * _CHAR + 22
    top = max(len(name) for name in names) * _CHAR * 0.72 + 16
    width = left + len(columns) * _CELL + top * 0.8
    height = top + len(shown) * _CELL + 6
    marks = [_column(name, left + j * _CELL + _CELL * 0.6, top) for j, name in enumerate(names)]
    marks.append(
        f"<rect x='{left:.1f}' y='{top:.1f}' width='{len(columns) * _CELL}' "
        f"height='{len(shown) * _CELL}' fill='var(--wash)'/>"
    )
    for k, i in enumerate(shown):
        y = top + k * _CELL
        marks.append(
            f"<text x='{left - 8:.1f}' y='{y + 17:.1f}' text-anchor='end'>"
            f"{esc(_short(labels[i]))}</text>"
        )
        row = [counts[i][j] for j in shown]
        row += [sum(counts[i][j] for j in rest)] if rest else []
        row.append(counts[i][len(labels)] if len(counts[i]) > len(labels) else 0)
        total = sum(counts[i]) or 1
        for j, count in enumerate(row):
            if count:
                tip = f"{labels[i]} → {columns[j]}: {count} of {total}"
                marks += _cell((left + j * _CELL, y), count, count / total, j == k, tip)
    drawing = (
        f"<svg viewBox='0 0 {width:.0f} {height:.0f}' role='img' aria-label='confusion matrix of "
        f"{len(shown)} labels; the table below lists its mistakes' style='max-width:"
        f"{width * 1.35:.0f}px;min-width:{width * 0.8:.0f}px'>{''.join(marks)}</svg>"
    )
    return scroll(drawing, "confusion matrix")


def mix_ups(
    labels: Sequence[str], counts: Sequence[Sequence[int]]
) -> list[tuple[str, str, int, int]]:
    """Return (truth, answered, rows, rows of the truth) of every mistake, most frequent first."""
    names = [*labels, UNREADABLE]
    found = [
        (labels[i], names[j], n, sum(counts[i]))
        for i in range(len(labels))
        for j, n in enumerate(counts[i])
        if n and i != j
    ]
    return sorted(found, key=lambda f: (-f[2], f[0], f[1]))


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _column(name: str, x: float, top: float) -> str:
    return (
        f"<text class='soft' transform='translate({x:.1f},{top - 8:.1f}) rotate(-45)'>"
        f"{esc(name)}</text>"
    )


def _cell(
    at: tuple[float, float], count: int, share: float, hit: bool, tip: str
) -> tuple[str, str]:
    x, y = at
    shade = 0.18 + 0.82 * share
    ink = "var(--card)" if shade > 0.62 else "var(--ink)"
    return (
        f"<rect x='{x + 1:.1f}' y='{y + 1:.1f}' width='{_CELL - 2}' height='{_CELL - 2}' rx='3' "
        f"fill='var(--{'good' if hit else 'bad'})' fill-opacity='{shade:.2f}'>"
        f"<title>{esc(tip)}</title></rect>",
        f"<text x='{x + _CELL / 2:.1f}' y='{y + 17.5:.1f}' text-anchor='middle' "
        f"style='fill:{ink}'>{count}</text>",
    )


def most_confused(labels: Sequence[str], counts: Sequence[Sequence[int]], most: int) -> list[int]:
    """Return the `most` labels with most mistakes, as truth or as answer, in their own order."""
    size = len(labels)
    wrong = [0] * size
    for i in range(size):
        for j, n in enumerate(counts[i]):
            if n and i != j:
                wrong[i] += n
                if j < size:
                    wrong[j] += n
    ranked = sorted((i for i in range(size) if wrong[i]), key=lambda i: -wrong[i])
    return sorted(ranked[:most])
