"""A chart of one curve with its interval and the points it was fitted to, as an SVG.

The x axis is logarithmic: learning curves are read in doublings. It knows nothing of what the
numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.core.html import WIDE, Html, Number, esc, figure

_LEFT, _RIGHT, _TOP, _BELOW = 56, 18, 12, 44


@dataclass(frozen=True)
class Dot:
    """A point with its interval; a faint one was not used for the curve."""

    x: Number
    low: Number
    y: Number
    high: Number
    faint: bool = False


@dataclass(frozen=True)
class _Frame:
    """Where values stand on the drawing."""

    x0: float
    x1: float
    y0: float
    y1: float
    width: int
    height: int

    def x(self, value: float) -> float:
        share = math.log(value / self.x0) / (math.log(self.x1 / self.x0) or 1.0)
        return _LEFT + (self.width - _LEFT - _RIGHT) * share

    def y(self, value: float) -> float:
        base = self.height - _BELOW
        return base - (base - _TOP) * (value - self.y0) / ((self.y1 - self.y0) or 1.0)


def band_chart(
    curve: Sequence[tuple[Number, Number, Number, Number]],
    dots: Sequence[Dot],
    *,
    mark: tuple[Number, str] | None = None,
    x_label: str = "",
    y_label: str = "",
    width: int = WIDE,
) -> Html:
    """Return the chart of (x, low, mid, high) with `dots`, all y from 0 to 1, shown in percent.

    `mark` draws an upright line at an x, with its words.
    """
    xs = [float(p[0]) for p in curve] + [float(d.x) for d in dots]
    if not xs or min(xs) <= 0:
        return Html("<p class='soft'>nothing to show</p>")
    ys = [float(v) for p in curve for v in p[1:]] + [v for d in dots for v in (d.low, d.high)]
    low, high = max(0.0, min(ys)), min(1.0, max(ys))
    ticks = _percents(low, high)
    frame = _Frame(min(xs), max(xs), ticks[0], ticks[-1], width, 320)
    marks = [*_axes(frame, ticks, x_label), *_band(frame, curve)]
    if mark is not None:
        x = frame.x(float(mark[0]))
        base = frame.height - _BELOW
        marks.append(
            f"<line class='ref' x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP}' y2='{base}'/>"
            f"<text class='soft' x='{x - 8:.1f}' y='{base - 10}' text-anchor='end'>"
            f"{esc(mark[1])}</text>"
        )
    marks += [_dot(frame, dot) for dot in dots]
    note = f"<div class='legend'>{esc(y_label)}</div>" if y_label else ""
    return Html(
        f"{note}<svg viewBox='0 0 {width} {frame.height}' role='img' "
        f"aria-label='{esc(y_label or 'curve')}' style='max-width:{width * 1.15:.0f}px'>"
        f"{''.join(marks)}</svg>"
    )


def _percents(low: float, high: float) -> list[float]:
    """Return round shares that span low to high, four to eight of them."""
    span = max(high - low, 0.02)
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if span / s <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 6) for k in range(first, max(last, first + 1) + 1)]


def _axes(frame: _Frame, ticks: Sequence[float], x_label: str) -> list[str]:
    base = frame.height - _BELOW
    marks = []
    for value in ticks:
        y = frame.y(value)
        marks.append(
            f"<line class='axis' x1='{_LEFT}' x2='{frame.width}' y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text class='soft' x='{_LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>"
            f"{value * 100:.3g} %</text>"
        )
    value = frame.x1
    while value >= frame.x0 * 0.999:  # a doubling between two marks
        marks.append(
            f"<text class='soft' x='{frame.x(value):.1f}' y='{base + 18}' text-anchor='middle'>"
            f"{esc(figure(round(value)))}</text>"
        )
        value /= 2
    middle = (_LEFT + frame.width - _RIGHT) / 2
    marks.append(
        f"<text class='soft' x='{middle:.0f}' y='{frame.height - 6}' text-anchor='middle'>"
        f"{esc(x_label)}</text>"
    )
    return marks


def _band(frame: _Frame, curve: Sequence[tuple[Number, Number, Number, Number]]) -> list[str]:
    if not curve:
        return []
    upper = [f"{frame.x(x):.1f},{frame.y(min(high, 1)):.1f}" for x, _, _, high in curve]
    lower = [f"{frame.x(x):.1f},{frame.y(max(low, 0)):.1f}" for x, low, _, _ in curve]
    middle = " ".join(f"{frame.x(x):.1f},{frame.y(mid):.1f}" for x, _, mid, _ in curve)
    area = " ".join([*upper, *reversed(lower)])
    return [
        f"<polygon class='f0' opacity='0.16' points='{area}'/>",
        f"<polyline class='l0' points='{middle}'/>",
    ]


def _dot(frame: _Frame, dot: Dot) -> str:
    x, colour = frame.x(float(dot.x)), "f5" if dot.faint else "f0"
    line = "l5" if dot.faint else "l0"
    tip = f"{figure(dot.x)}: {dot.y:.1%} ({dot.low:.1%} to {dot.high:.1%})"
    return (
        f"<line class='{line}' x1='{x:.1f}' x2='{x:.1f}' y1='{frame.y(float(dot.low)):.1f}' "
        f"y2='{frame.y(float(dot.high)):.1f}'/><circle class='{colour}' cx='{x:.1f}' "
        f"cy='{frame.y(float(dot.y)):.1f}' r='4.5'><title>{esc(tip)}</title></circle>"
    )
