"""Charts that are tables: a row a thing, its figures in words, and a strip that draws them.

A strip is an SVG as wide as its cell, so one chart serves a phone, a print and a screen reader,
which reads the cells and skips the drawing. It knows nothing of what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tutelage.core.html import Html, esc, figure

# strokes keep their width however the browser stretches the strip
_FIXED = "vector-effect='non-scaling-stroke'"
_UNITS = 1000  # width of a strip in its own coordinates; the browser stretches it
_COLOURS = 6
Colour = int | str  # a series, or a tone: good, warn, bad


@dataclass(frozen=True)
class Scale:
    """The axis that the strips of a chart share: `ticks[0]` to `ticks[-1]`, evenly spaced."""

    ticks: tuple[float, ...]
    text: Callable[[float], str] = figure
    references: tuple[float, ...] = ()  # values with a dashed line through all rows

    def x(self, value: float) -> float:
        """Return where a value stands, in strip units, never outside the strip."""
        low, high = self.ticks[0], self.ticks[-1]
        share = (value - low) / ((high - low) or 1.0)
        return _UNITS * min(1.0, max(0.0, share))


@dataclass(frozen=True)
class Line:
    """One row of a chart: its cells by column, and its marks (made by the functions below)."""

    cells: Sequence[object]  # as many as the chart's headers
    marks: Sequence[str]
    strong: bool = False


def scale_over(
    values: Sequence[float],
    *,
    text: Callable[[float], str] = figure,
    references: Sequence[float] = (),
    steps: int = 5,
    whole: bool = False,
) -> Scale:
    """Return the scale whose round ticks hold every finite value and reference.

    `whole` keeps the ticks on whole numbers, for counts.
    """
    finite = [v for v in [*values, *references] if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    rough = ((high - low) or abs(high) or 1.0) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    step = float(math.ceil(step)) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = tuple(round(k * step, 12) for k in range(first, last + 1))
    return Scale(ticks, text, tuple(references))


def shares(*, references: Sequence[float] = ()) -> Scale:
    """Return the scale of ratios, 0 to 100 %."""
    return Scale((0.0, 0.25, 0.5, 0.75, 1.0), lambda v: f"{v * 100:.0f} %", tuple(references))


def interval(scale: Scale, low: float, middle: float, high: float, colour: Colour = 0) -> list[str]:
    """Return a dot with its interval."""
    x0, x, x1 = scale.x(low), scale.x(middle), scale.x(high)
    return [
        f"<path {_FIXED} class='l{_name(colour)}' d='M{x0:.1f} 12H{x1:.1f}'/>",
        f"<path {_FIXED} class='l{_name(colour)} end' d='M{x0:.1f} 8v8M{x1:.1f} 8v8'/>",
        _dot(x, 11, colour),
    ]


def bar(scale: Scale, value: float, colour: Colour = 0, *, thick: int = 12) -> list[str]:
    """Return a bar from the scale's start, or from 0 where the scale crosses it."""
    start = scale.x(max(scale.ticks[0], min(0.0, scale.ticks[-1])))
    x = scale.x(value)
    left, wide = min(start, x), abs(x - start)
    return [
        f"<rect class='f{_name(colour)}' x='{left:.1f}' y='{12 - thick / 2:g}' "
        f"width='{max(wide, 1.5):.1f}' height='{thick}'/>"
    ]


def dot(scale: Scale, value: float, colour: Colour = 0, size: float = 9) -> list[str]:
    """Return a dot at a value."""
    return [_dot(scale.x(value), size, colour)]


def tick(scale: Scale, value: float, colour: Colour = 5) -> list[str]:
    """Return a short upright line at a value."""
    return [f"<path {_FIXED} class='l{_name(colour)} tick' d='M{scale.x(value):.1f} 3v18'/>"]


def span(scale: Scale, low: float, high: float, colour: Colour = 0) -> list[str]:
    """Return a line from one value to another."""
    x0, x1 = scale.x(low), scale.x(high)
    return [f"<path {_FIXED} class='l{_name(colour)}' d='M{x0:.1f} 12H{x1:.1f}'/>"]


def whisker(scale: Scale, low: float, high: float) -> list[str]:
    """Return an interval that lies over a bar, in the colour of text."""
    x0, x1 = scale.x(low), scale.x(high)
    path = f"M{x0:.1f} 7v10M{x0:.1f} 12H{x1:.1f}M{x1:.1f} 7v10"
    return [f"<path {_FIXED} class='whisker' d='{path}'/>"]


def zone(scale: Scale, low: float, high: float, colour: Colour = "good") -> list[str]:
    """Return a faint band from one value to another, to lie under the marks."""
    x0, x1 = sorted((scale.x(low), scale.x(high)))
    return [
        f"<rect class='f{_name(colour)}' fill-opacity='.13' x='{x0:.1f}' y='1' "
        f"width='{x1 - x0:.1f}' height='22'/>"
    ]


def limit(scale: Scale, value: float) -> list[str]:
    """Return the dashed line of a limit that holds for one row only."""
    return [f"<path {_FIXED} class='limit' d='M{scale.x(value):.1f} 0v24'/>"]


def columns(scale: Scale, counts: Sequence[int], colour: Colour = 0) -> list[str]:
    """Return a histogram whose equal bins fill the scale."""
    top, wide = max(counts, default=0) or 1, _UNITS / max(1, len(counts))
    marks = []
    for i, count in enumerate(counts):
        if count:
            tall = max(22.0 * count / top, 1.0)
            marks.append(
                f"<rect class='f{_name(colour)}' x='{i * wide:.1f}' y='{23 - tall:.1f}' "
                f"width='{wide * 0.9:.1f}' height='{tall:.1f}'/>"
            )
    return marks


def bins(scale: Scale, values: Sequence[float], count: int = 40) -> list[int]:
    """Return how many values fall into each of `count` equal bins of the scale."""
    found = [0] * count
    for value in values:
        found[min(count - 1, int(scale.x(value) / _UNITS * count))] += 1
    return found


def strip(marks: Sequence[str], scale: Scale | None = None) -> Html:
    """Return one drawing, with the scale's dashed lines under the marks."""
    places = [scale.x(value) for value in scale.references] if scale else []
    under = "".join(f"<path {_FIXED} class='ref' d='M{x:.1f} 0v24'/>" for x in places)
    return Html(
        f"<svg class='strip' viewBox='0 0 {_UNITS} 24' preserveAspectRatio='none' "
        f"aria-hidden='true'>{under}{''.join(marks)}</svg>"
    )


def chart(
    caption: str,
    headers: Sequence[str],
    lines: Sequence[Line],
    scale: Scale,
    *,
    tall: bool = False,
) -> Html:
    """Return the chart: the first column names the row, the strip comes second, figures after.

    `headers` name the cells of a line; `caption` is read out and not shown.
    """
    if not lines:
        return Html("<p class='soft'>nothing to show</p>")
    axis = "".join(f"<span>{esc(scale.text(v))}</span>" for v in scale.ticks)
    head = (
        f"<th scope='col'>{esc(headers[0])}</th><td class='axis' aria-hidden='true'>"
        f"<span class='ticks'>{axis}</span></td>"
        + "".join(f"<th scope='col' class='n'>{esc(h)}</th>" for h in headers[1:])
    )
    body = "".join(_row(line, headers, scale) for line in lines)
    return Html(
        f"<table class='chart{' tall' if tall else ''}'><caption>{esc(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(line: Line, headers: Sequence[str], scale: Scale) -> str:
    cells = "".join(
        f"<td class='n' data-name='{esc(name)}'>{esc(cell)}</td>"
        for name, cell in zip(headers[1:], line.cells[1:], strict=True)
    )
    kind = " class='strong'" if line.strong else ""
    return (
        f"<tr{kind}><th scope='row'>{esc(line.cells[0])}</th>"
        f"<td class='plot'>{strip(line.marks, scale)}</td>{cells}</tr>"
    )


def _name(colour: Colour) -> str:
    return str(colour % _COLOURS) if isinstance(colour, int) else colour


def _dot(x: float, size: float, colour: Colour) -> str:
    """Return a round dot: a line without length and with round ends, which no stretching bends."""
    look = f"class='d{_name(colour)}' style='stroke-width:{size:g}'"
    return f"<path {_FIXED} {look} d='M{x:.1f} 12h0'/>"
