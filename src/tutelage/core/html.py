"""One self-contained HTML page: its frame, cards, tables and small charts, all as text.

Everything that is not marked `Html` is escaped. No outside asset, light and dark, and no script
but the one a page names, held by its hash. It knows nothing of what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from tutelage.core.html_policy import content_security_policy
from tutelage.core.html_text import Html as Html
from tutelage.core.html_text import esc as esc
from tutelage.core.html_text import join as join

Tone = Literal["good", "warn", "bad", "note"]
Number = float | int
WIDE = 900  # width of a chart in a card of its own, in SVG units
HALF = 430  # width of a chart in a card of a grid
_COLOURS = 6
_CHAR = 6.7  # width of an average character at the charts' text size, in SVG units


@cache
def _css() -> str:
    return files("tutelage.core").joinpath("page.css").read_text(encoding="utf-8")


def page(
    title: str,
    sections: Sequence[str],
    *,
    subtitle: str = "",
    footer: str = "",
    style: str = "",
    script: str = "",
) -> str:
    """Return a whole page. `sections` are markup, made by the functions below.

    `style` and `script` are the page's own and go into it as they are: never text from rows.
    """
    css = f"{_css()}{style}"
    head = f"<p class='sub'>{esc(subtitle)}</p>" if subtitle else ""
    foot = f"<footer>{esc(footer)}</footer>" if footer else ""
    run = f"<script>{script}</script>" if script else ""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' "
        f'content="{content_security_policy(css, script)}">'
        f"<title>{esc(title)}</title><style>{css}</style></head><body><div class='page'>"
        f"<header><p class='brand'>Tutelage</p><h1>{esc(title)}</h1>{head}</header>\n<main>"
        + "\n".join(sections)
        + f"\n</main>{foot}</div>{run}</body></html>\n"
    )


def section(heading: str, *body: object, lead: str = "") -> Html:
    """Return a card with a heading, one sentence that says how to read it, and its body."""
    note = f"<p class='lead'>{esc(lead)}</p>" if lead else ""
    return Html(f"<section class='card'><h2>{esc(heading)}</h2>{note}{join(body)}</section>")


def grid(*cards: str) -> Html:
    """Return cards side by side where there is room."""
    return Html(f"<div class='grid'>{join(cards)}</div>")


def verdict(tone: Tone, headline: str, *details: str) -> Html:
    """Return the card that answers the reader's first question."""
    body = "".join(f"<p>{esc(detail)}</p>" for detail in details)
    return Html(f"<section class='card verdict {tone}'><h2>{esc(headline)}</h2>{body}</section>")


def stats(tiles: Iterable[tuple[str, object, str]]) -> Html:
    """Return a strip of figures: (value, label, hint) shown as value, label, hint."""
    cells = (
        f"<div class='stat'><b>{esc(value)}</b><span>{esc(label)}</span>"
        f"<span>{esc(hint)}</span></div>"
        for label, value, hint in tiles
    )
    return Html(f"<div class='stats'>{''.join(cells)}</div>")


def badge(tone: Tone, text: str) -> Html:
    """Return a small coloured word."""
    return Html(f"<span class='badge {tone}'>{esc(text)}</span>")


def paragraph(text: object) -> Html:
    """Return a paragraph."""
    return Html(f"<p>{esc(text)}</p>")


def code(text: object) -> Html:
    """Return text in the fixed-width face."""
    return Html(f"<code>{esc(text)}</code>")


def quote(text: object) -> Html:
    """Return a block of the user's own text, line breaks kept."""
    return Html(f"<div class='quote'>{esc(text)}</div>")


def details(summary: str, *body: object) -> Html:
    """Return a part that opens on a click."""
    return Html(f"<details><summary>{esc(summary)}</summary>{join(body)}</details>")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """Return a table; columns whose every cell is a number stand to the right."""
    body = [list(row) for row in rows]
    right = [
        bool(body) and all(isinstance(row[i], (int, float)) for row in body)
        for i in range(len(headers))
    ]
    head = "".join(_head(h, n) for h, n in zip(headers, right, strict=True))
    lines = []
    for row in body:
        cells = "".join(
            f"<td{' class=n' if n else ''}>{esc(figure(c) if n else c)}</td>"
            for c, n in zip(row, right, strict=True)
        )
        lines.append(f"<tr>{cells}</tr>")
    return scroll(
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>", "table"
    )


def scroll(markup: str, what: str) -> Html:
    """Return wide content in a box that scrolls sideways, with the keyboard too."""
    return Html(
        f"<div class='scroll' tabindex='0' role='group' aria-label='{esc(what)}'>{markup}</div>"
    )


def _head(text: str, number: bool) -> str:
    """Return a column's heading; a column without one gets an empty cell that is no heading."""
    if not text:
        return "<td></td>"
    return f"<th scope='col'{' class=n' if number else ''}>{esc(text)}</th>"


def figure(value: object) -> str:
    """Return a number as people read it: 12,345 or 0.124."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and value == int(value)):
        return f"{int(value):,}"
    return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"


def legend(names: Sequence[str]) -> Html:
    """Return the key to a chart's colours, in series order."""
    items = (
        f"<span><i class='b{i % _COLOURS}'></i>{esc(name)}</span>" for i, name in enumerate(names)
    )
    return Html(f"<div class='legend'>{''.join(items)}</div>")


def bars(rows: Sequence[tuple[str, Number]], *, unit: str = "", width: int = WIDE) -> Html:
    """Return horizontal bars, one a row, each with its label and value."""
    return stacked([(label, [value]) for label, value in rows], unit=unit, width=width)


def stacked(
    rows: Sequence[tuple[str, Sequence[Number]]],
    names: Sequence[str] = (),
    *,
    unit: str = "",
    width: int = WIDE,
) -> Html:
    """Return horizontal bars cut into parts; `names` are the parts, shown as a key above."""
    left = _label_width([label for label, _ in rows], width)
    sums = [figure(sum(parts)) + unit for _, parts in rows]
    right = max([len(s) for s in sums], default=1) * _CHAR + 12
    span = width - left - right
    top = max([sum(parts) for _, parts in rows], default=0) or 1
    marks = []
    for i, (label, parts) in enumerate(rows):
        y = i * 24
        marks.append(_label(label, left - 12, y + 16))
        x = left
        for k, part in enumerate(parts):
            length = span * part / top
            if part > 0:
                tip = f"{label}: {names[k] + ' ' if names else ''}{figure(part)}{unit}"
                marks.append(
                    f"<rect class='f{k % _COLOURS}' x='{x:.1f}' y='{y + 5}' rx='2' height='14' "
                    f"width='{max(length - (1 if names else 0), 1):.1f}'>"
                    f"<title>{esc(tip)}</title></rect>"
                )
            x += length
        marks.append(f"<text class='soft' x='{x + 8:.1f}' y='{y + 16}'>{esc(sums[i])}</text>")
    key = legend(names) if names else Html("")
    return Html(key + _svg(width, len(rows) * 24 + 2, marks, "bar chart"))


def histogram(
    values: Sequence[Number], *, bins: int = 24, x_label: str = "", width: int = WIDE
) -> Html:
    """Return the distribution of `values`; the last bin holds the longest percent."""
    if not values:
        return Html("<p class='soft'>nothing to show</p>")
    ordered = sorted(values)
    low, top = float(ordered[0]), float(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))])
    step = (top - low) / bins or 1.0
    if all(isinstance(v, int) for v in values):
        step = float(math.ceil(step)) or 1.0
    bins = max(1, min(bins, math.ceil((top - low) / step) or 1))
    counts = [0] * bins
    for value in ordered:
        counts[min(bins - 1, int((value - low) / step))] += 1
    height, base, slot = 150, 130, width / bins
    peak = max(counts)
    marks = [f"<line class='axis' x1='0' x2='{width}' y1='{base}' y2='{base}'/>"]
    for i, count in enumerate(counts):
        tall = (base - 16) * count / peak
        span = f"{figure(low + i * step)} to {figure(low + (i + 1) * step)}"
        marks.append(
            f"<rect class='f0' x='{i * slot + 1:.1f}' y='{base - tall:.1f}' rx='2' "
            f"width='{max(slot - 2, 1):.1f}' height='{tall:.1f}'>"
            f"<title>{esc(span)}: {figure(count)}</title></rect>"
        )
    middle = float(ordered[len(ordered) // 2])
    end = figure(float(ordered[-1]))
    marks += [
        f"<text class='soft' x='0' y='{height}'>{figure(low)}</text>",
        f"<text class='soft' x='{width / 2:.0f}' y='{height}' text-anchor='middle'>"
        f"{esc(x_label)} (median {figure(middle)})</text>",
        f"<text class='soft' x='{width}' y='{height}' text-anchor='end'>{end}</text>",
    ]
    return _svg(width, height + 4, marks, f"histogram of {x_label}")


def intervals(
    rows: Sequence[tuple[str, Number, Number, Number]],
    *,
    reference: float | None = None,
    percent: bool = False,
    width: int = WIDE,
) -> Html:
    """Return a dot with its interval a row: (label, low, mid, high); `reference` is a line."""
    left = _label_width([row[0] for row in rows], width)
    shown = [
        f"{_amount(mid, percent)}  ({_amount(low, percent)} to {_amount(high, percent)})"
        for _, low, mid, high in rows
    ]
    right = max([len(s) for s in shown], default=1) * _CHAR + 16
    ends = [v for row in rows for v in row[1:]] + ([reference] if reference is not None else [])
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    pad = (high - low) * 0.06 or 0.5
    low, high = low - pad, high + pad
    span = width - left - right

    def place(value: float) -> float:
        return left + span * (value - low) / (high - low)

    bottom = len(rows) * 34
    marks = []
    if reference is not None:
        x = place(reference)
        marks.append(f"<line class='ref' x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{bottom}'/>")
        marks.append(
            f"<text class='soft' x='{x:.1f}' y='{bottom + 14}' text-anchor='middle'>"
            f"{_amount(reference, percent)}</text>"
        )
    for i, (label, start, mid, end) in enumerate(rows):
        y = i * 34 + 17
        colour = i % _COLOURS
        marks += [
            _label(label, left - 12, y + 4),
            f"<line class='l{colour}' x1='{place(start):.1f}' x2='{place(end):.1f}' "
            f"y1='{y}' y2='{y}'/>",
            f"<circle class='f{colour}' cx='{place(mid):.1f}' cy='{y}' r='5.5'/>",
            f"<text class='soft' x='{width - right + 16:.1f}' y='{y + 4}'>{esc(shown[i])}</text>",
        ]
    return _svg(width, bottom + (20 if reference is not None else 2), marks, "interval chart")


def lines(
    series: Mapping[str, Sequence[tuple[Number, Number]]],
    *,
    x_label: str = "",
    y_label: str = "",
    width: int = WIDE,
    height: int = 240,
) -> Html:
    """Return one line a series of (x, y) points, with a key above."""
    points = [p for line in series.values() for p in line if math.isfinite(p[1])]
    if not points:
        return Html("<p class='soft'>nothing to show</p>")
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    ticks = _ticks(y0, y1)
    y0, y1 = ticks[0], ticks[-1]
    left, base, top = 56, height - 36, 12

    def place(p: tuple[Number, Number]) -> str:
        x = left + (width - left - 12) * ((p[0] - x0) / ((x1 - x0) or 1))
        return f"{x:.1f},{base - (base - top) * (p[1] - y0) / (y1 - y0):.1f}"

    marks = []
    for value in ticks:
        y = base - (base - top) * (value - y0) / (y1 - y0)
        marks.append(f"<line class='axis' x1='{left}' x2='{width}' y1='{y:.1f}' y2='{y:.1f}'/>")
        marks.append(
            f"<text class='soft' x='{left - 8}' y='{y + 4:.1f}' text-anchor='end'>"
            f"{figure(value)}</text>"
        )
    for i, (name, line) in enumerate(series.items()):
        path = " ".join(place(p) for p in line if math.isfinite(p[1]))
        marks.append(
            f"<polyline class='l{i % _COLOURS}' points='{path}'><title>{esc(name)}</title>"
            "</polyline>"
        )
        if len(line) == 1:
            cx, cy = path.split(",")
            marks.append(f"<circle class='f{i % _COLOURS}' cx='{cx}' cy='{cy}' r='4'/>")
    marks += [
        f"<text class='soft' x='{left}' y='{height - 14}'>{figure(x0)}</text>",
        f"<text class='soft' x='{(left + width) / 2:.0f}' y='{height - 14}' "
        f"text-anchor='middle'>{esc(x_label)}</text>",
        f"<text class='soft' x='{width}' y='{height - 14}' text-anchor='end'>{figure(x1)}</text>",
    ]
    key = legend(list(series)) if len(series) > 1 else Html("")
    note = Html(f"<div class='legend'>{esc(y_label)}</div>" if y_label else "")
    return Html(note + key + _svg(width, height, marks, f"line chart of {y_label}"))


def _ticks(low: float, high: float) -> list[float]:
    """Return four to six round numbers that span low to high."""
    rough = ((high - low) or abs(high) or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _amount(value: float, percent: bool) -> str:
    return f"{value * 100:.1f} %" if percent else figure(value)


def _label_width(labels: Sequence[str], width: int) -> float:
    longest = max([len(label) for label in labels], default=0)
    return min(longest * _CHAR + 16, width * 0.42)


def _label(text: str, x: float, y: float) -> str:
    room = int(x / _CHAR)
    short = text if len(text) <= room else text[: max(room - 1, 1)] + "…"
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='end'>{esc(short)}"
        f"<title>{esc(text)}</title></text>"
    )


def _svg(width: int, height: int, marks: Sequence[str], title: str) -> Html:
    return Html(
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{esc(title)}' "
        f"style='max-width:{width * 1.15:.0f}px'>{''.join(marks)}</svg>"
    )
