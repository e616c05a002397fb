"""A chart of values over time as an SVG: gaps stay gaps, few observations look faint, changes are
marked. It knows nothing of what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from tutelage.core.html import WIDE, Html, esc, figure, legend
from tutelage.core.html_strips import scale_over

_COLOURS = 6
_LEFT, _RIGHT, _TOP, _BELOW = 62, 16, 30, 26
_STEPS_S = (
    3600, 7200, 10_800, 21_600, 43_200, 86_400, 2 * 86_400, 7 * 86_400, 14 * 86_400, 28 * 86_400,
    91 * 86_400, 364 * 86_400,
)  # fmt: skip
_ROOM = 78  # SVG units that a label of the axis takes
_NEAR = 17  # SVG units below which two marks' numbers stand one above the other
_MONDAY = 4 * 86_400  # 1970-01-05: weeks are counted from Mondays


@dataclass(frozen=True)
class Moment:
    """A value at a time (seconds since 1970, UTC). None is a gap; a faint one rests on little."""

    at: float
    value: float | None
    faint: bool = False
    note: str = ""


@dataclass(frozen=True)
class Band:
    """An area from low to high over time: (at, low, high)."""

    points: tuple[tuple[float, float | None, float | None], ...]


@dataclass(frozen=True)
class Mark:
    """An upright line at a time, with its number; the words are its tooltip."""

    at: float
    number: int
    text: str


@dataclass(frozen=True)
class Axis:
    """The two times that the chart spans (unset: the data's), how values are written, and a value
    that the upright axis holds.
    """

    ends: tuple[float, float] | None = None
    text: Callable[[float], str] = figure
    floor: float | None = None


@dataclass(frozen=True)
class _Frame:
    """Where times and values stand on the drawing."""

    start: float
    end: float
    low: float
    high: float
    width: int
    height: int

    def x(self, at: float) -> float:
        share = (at - self.start) / ((self.end - self.start) or 1.0)
        return _LEFT + (self.width - _LEFT - _RIGHT) * min(1.0, max(0.0, share))

    def y(self, value: float) -> float:
        base = self.height - _BELOW
        return base - (base - _TOP) * (value - self.low) / ((self.high - self.low) or 1.0)

    def at(self, at: float, value: float) -> str:
        return f"{self.x(at):.1f},{self.y(value):.1f}"


def time_chart(
    series: Mapping[str, Sequence[Moment]],
    *,
    label: str,
    marks: Sequence[Mark] = (),
    band: Band | None = None,
    reference: float | None = None,
    axis: Axis | None = None,
) -> Html:
    """Return one line a series, with a key above if there are several.

    `reference` is a dashed line across. `label` is what a screen reader says.
    """
    axis = axis or Axis()
    values = [*_values(series, band), *_known(reference, axis.floor)]
    times = [m.at for line in series.values() for m in line]
    if not times or not values:
        return Html("<p class='soft'>nothing to show</p>")
    start, end = axis.ends or (min(times), max(times))
    ticks = scale_over(values, steps=4).ticks
    frame = _Frame(start, end, ticks[0], ticks[-1], WIDE, 230)
    drawn = [*_axes(frame, ticks, axis.text), *_marks(frame, marks)]
    if band is not None:
        drawn += _band(frame, band)
    if reference is not None:
        y = frame.y(reference)
        drawn.append(f"<line class='ref' x1='{_LEFT}' x2='{WIDE}' y1='{y:.1f}' y2='{y:.1f}'/>")
    for index, (name, line) in enumerate(series.items()):
        drawn += _line(frame, name, line, index % _COLOURS, axis.text)
    key = legend(list(series)) if len(series) > 1 else Html("")
    return Html(
        f"{key}<svg viewBox='0 0 {WIDE} {frame.height}' role='img' aria-label='{esc(label)}' "
        f"style='max-width:{WIDE * 1.15:.0f}px'>{''.join(drawn)}</svg>"
    )


def _values(series: Mapping[str, Sequence[Moment]], band: Band | None) -> list[float]:
    found = _known(*(m.value for line in series.values() for m in line))
    if band is not None:
        found += _known(*(v for _, low, high in band.points for v in (low, high)))
    return found


def _known(*values: float | None) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def _axes(frame: _Frame, ticks: Iterable[float], text: Callable[[float], str]) -> list[str]:
    drawn = []
    for value in ticks:
        y = frame.y(value)
        drawn.append(
            f"<line class='axis' x1='{_LEFT}' x2='{frame.width}' y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text class='soft' x='{_LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>"
            f"{esc(text(value))}</text>"
        )
    step = _step(frame)
    at = math.ceil((frame.start - _MONDAY) / step) * step + _MONDAY
    while at <= frame.end:
        x = frame.x(at)
        anchor = "end" if x > frame.width - 40 else "start" if x < _LEFT + 10 else "middle"
        drawn.append(
            f"<text class='soft' x='{x:.1f}' y='{frame.height - 6}' text-anchor='{anchor}'>"
            f"{_moment(at, step)}</text>"
        )
        at += step
    return drawn


def _step(frame: _Frame) -> float:
    """Return the seconds between two labels of the time axis."""
    fit = (frame.width - _LEFT - _RIGHT) / _ROOM
    span = frame.end - frame.start
    return next((s for s in _STEPS_S if span / s <= fit), _STEPS_S[-1])


def _moment(at: float, step: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    if step >= 28 * 86_400:
        return f"{moment:%b %Y}"
    midnight = moment.hour == 0 and moment.minute == 0
    return f"{moment:%b} {moment.day}" if midnight or step >= 86_400 else f"{moment:%H:%M}"


def _marks(frame: _Frame, marks: Sequence[Mark]) -> list[str]:
    drawn, before, level = [], -math.inf, 0
    for mark in sorted(marks, key=lambda m: m.at):
        if not frame.start <= mark.at <= frame.end:
            continue
        x = frame.x(mark.at)
        level = (level + 1) % 2 if x - before < _NEAR else 0
        before = x
        drawn.append(
            f"<g><line class='ref' x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP - 4}' "
            f"y2='{frame.height - _BELOW}'/><text class='soft' x='{x:.1f}' "
            f"y='{_TOP - 8 - 13 * level}' text-anchor='middle'>{mark.number}</text>"
            f"<title>{esc(mark.text)}</title></g>"
        )
    return drawn


def _band(frame: _Frame, band: Band) -> list[str]:
    known = [(at, low, high) for at, low, high in band.points
             if low is not None and high is not None]  # fmt: skip
    if len(known) < 2:
        return []
    around = [frame.at(at, high) for at, _, high in known]
    around += [frame.at(at, low) for at, low, _ in reversed(known)]
    return [f"<polygon class='f0' opacity='0.16' points='{' '.join(around)}'/>"]


def _line(
    frame: _Frame, name: str, line: Sequence[Moment], colour: int, text: Callable[[float], str]
) -> list[str]:
    drawn = []
    for run, faint in _runs(line):
        path = " ".join(frame.at(m.at, m.value or 0.0) for m in run)
        look = " stroke-opacity='.45' stroke-dasharray='3 4'" if faint else ""
        drawn.append(f"<polyline class='l{colour}'{look} points='{path}'/>")
    for m in line:
        if m.value is None:
            continue
        told = f"{name}, {datetime.fromtimestamp(m.at, UTC):%Y-%m-%d %H:%M}: {text(m.value)}"
        look = "fill-opacity='.4'" if m.faint else ""
        drawn.append(
            f"<circle class='f{colour}' {look} cx='{frame.x(m.at):.1f}' "
            f"cy='{frame.y(m.value):.1f}' r='3'><title>{esc(told + m.note)}</title></circle>"
        )
    return drawn


def _runs(line: Sequence[Moment]) -> list[tuple[list[Moment], bool]]:
    """Return the stretches to draw, whether each is faint; a gap ends one, and so does a change."""
    found: list[tuple[list[Moment], bool]] = []
    for one, two in pairwise(line):
        if one.value is None or two.value is None:
            continue
        faint = one.faint or two.faint
        if found and found[-1][1] == faint and found[-1][0][-1] is one:
            found[-1][0].append(two)
        else:
            found.append(([one, two], faint))
    return found
