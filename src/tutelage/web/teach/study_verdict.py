"""What a finished study found: the verdict first, then what it rests on, then every pair."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.parts import words
from tutelage.web.parts.chart import Interval, intervals
from tutelage.web.parts.layout import Kind, card, chip, notice
from tutelage.web.parts.table import plain_table
from tutelage.web.parts.text import passage, text
from tutelage.web.teach.conversation import conversation, side_by_side
from tutelage.web.view import View
from tutelage.workflows.evaluation.human_blind import judged_pairs

_PAIRS = 5  # pairs shown at once

Found = Mapping[str, Any]


def verdict(found: Found) -> None:
    """Draw the verdict of a study with its intervals."""
    if found["kind"] == "rubric":
        _marks(found)
    else:
        for rate in found["win_rates"]:
            _rate(rate, found["confidence"])
        _scale(found)
    with card("What it rests on"):
        rows = words.count(found["rows"], "row")
        text("p", f"{words.count(found['judgements'], 'judgement')} of {rows}.")
        agreed = found["agreement"]
        if found["kind"] == "pairwise":
            none = "No row has two raters, so nothing can be said about their agreement."
            text("p", f"Agreement of the raters: {agreed['sentence']}." if agreed else none)
            _position(found["position"])
        for note in found["notes"]:
            notice(str(note), "info")
        _raters(found)


def sentence(rate: Found) -> tuple[str, Kind]:
    """Return the verdict on two candidates in words, and its kind."""
    first, second = rate["first"], rate["second"]
    if rate["decision"] == "open":
        return f"It could go either way between {first} and {second}", "warn"
    won, lost = (first, second) if rate["decision"] == "first" else (second, first)
    return f"{won} is preferred over {lost}", "good"


def _rate(rate: Found, confidence: float) -> None:
    said, kind = sentence(rate)
    with card():
        with ui.row().classes("gap-3 items-center"):
            chip("open" if kind == "warn" else "decided", kind)
            text("h2", said)
        low, high = words.percent(rate["low"], 0), words.percent(rate["high"], 0)
        text("p", f"{rate['first']} is better in {words.percent(rate['rate'], 0)} of the rows, "
             f"ties counted half ({low} to {high}, {confidence:.0%} interval).")  # fmt: skip
        rows = [Interval(f"{rate['first']} over {rate['second']}", rate["rate"], rate["low"],
                         rate["high"])]  # fmt: skip
        if rate["wide_low"] is not None:
            rows.append(Interval("with other raters too", rate["rate"], rate["wide_low"],
                                 rate["wide_high"]))  # fmt: skip
        if rate["overall"] is not None and rate["overall"] != rate["rate"]:
            rows.append(Interval("over all rows, equal texts tied", rate["overall"],
                                 rate["overall_low"], rate["overall_high"]))  # fmt: skip
        intervals(rows, name=said, low=0.0, high=1.0, mark=0.5, percent=True)
        same = f", {words.count(rate['same'], 'row')} with the same text" if rate["same"] else ""
        text("p", f"{rate['wins']} won, {rate['ties']} tied, {rate['losses']} lost{same}; "
             f"p = {rate['p']:.3f}.", "tt-muted")  # fmt: skip
        if rate["more"]:
            text("p", f"About {words.number(rate['more'])} more rows would decide it, were this "
                 "the truth.", "tt-muted")  # fmt: skip
        elif rate["more"] is None and rate["decision"] == "open":
            text("p", "They are too even to name a number of rows that would decide.", "tt-muted")


def _scale(found: Found) -> None:
    if not found["scale"]:
        return
    with card("All on one scale"):
        rows = [
            Interval(one["candidate"], one["strength"], _or(one["low"], one["strength"]),
                     _or(one["high"], one["strength"]))
            for one in found["scale"]["strengths"]
        ]  # fmt: skip
        intervals(rows, name="Strength of each candidate", mark=0.0)


def _marks(found: Found) -> None:
    with card("Marks"):
        text("p", "The mean of each criterion: 0 is its worst level, 1 its best.", "tt-muted")
        rows = [
            Interval(f"{one['criterion']}: {one['candidate']}", one["estimate"],
                     _or(one["low"], one["estimate"]), _or(one["high"], one["estimate"]),
                     f"· {words.count(one['n'], 'row')}")
            for one in found["means"]
        ]  # fmt: skip
        intervals(rows, name="Mean marks", low=0.0, high=1.0)
    if not found["differences"]:
        return
    with card("Who is better"):
        for one in found["differences"]:
            low, high = one["low"], one["high"]
            known = low is not None and high is not None
            open_ = not known or low <= 0 <= high
            with ui.row().classes("gap-3 items-center"):
                chip("open" if open_ else "decided", "warn" if open_ else "good")
                span = f" ({low:+.2f} to {high:+.2f})" if known else ""
                text("span", f"{one['criterion']}: {one['first']} minus {one['second']} "
                     f"{one['estimate']:+.2f}{span}")  # fmt: skip


def _position(side: Found | None) -> None:
    if side is None:
        return
    left = side["left"]
    if left["estimate"] is not None:
        text("p", f"The left answer won {words.percent(left['estimate'], 0)} of the decided "
             f"judgements (p = {side['p']:.2f} for no leaning).")  # fmt: skip


def _raters(found: Found) -> None:
    if found["kind"] == "rubric":
        rows: list[tuple[object, ...]] = [
            (one["rater"], one["judgements"], words.number(one["mean"], 2))
            for one in found["raters"]
        ]
        plain_table(("Rater", "Judged", "Mean mark"), rows, name="Each rater")
        return
    rows = [
        (
            one["rater"], one["judgements"], one["ties"],
            words.percent(one["left_share"], 0) + (" leans" if one["leans"] else ""),
            words.percent(one["with_others"], 0), words.duration(one["seconds"]),
        )
        for one in found["raters"]
    ]  # fmt: skip
    with ui.element("div").classes("tt-table-scroll").props("tabindex=0"):
        plain_table(("Rater", "Judged", "Ties", "Left won", "As the others", "Time a row"), rows,
                    name="Each rater")  # fmt: skip


class Pairs:
    """Every judged pair with who wrote what and who chose what, some at a time."""

    def __init__(self, view: View, study: str) -> None:
        self._view, self._study, self._start = view, study, 0
        self._box = ui.column().classes("w-full gap-2 items-stretch")

    async def draw(self) -> None:
        """Draw the pairs of the page that is shown."""
        work = partial(judged_pairs, self._view.context, self._study, start=self._start,
                       count=_PAIRS)  # fmt: skip
        got = await self._view.attempt(work)
        if got is None:
            return
        total, rows = got
        self._box.clear()
        with self._box, card("What was judged"):
            for one in rows:
                self._pair(one)
            with ui.row().classes("tt-pager"):
                last = self._start + len(rows)
                text("span", f"{self._start + 1:,}–{last:,} of {total:,}", "tt-muted")
                self._turn("chevron_left", "Earlier pairs", -_PAIRS, self._start > 0)
                self._turn("chevron_right", "Later pairs", _PAIRS, last < total)

    def _pair(self, one: Found) -> None:
        name = words.short(str(one["messages"][-1]["content"]), 90)
        with ui.expansion(name).classes("w-full").props("dense"):
            conversation(one["messages"])
            with side_by_side():
                for who, answer in ((one["first"], one["first_text"]),
                                    (one["second"], one["second_text"])):  # fmt: skip
                    if who is not None:
                        with card(who):
                            passage(answer or "(nothing)")
            for said in one["said"]:
                chose = said["chose"]
                levels = ", ".join(f"{key} {value + 1}" for key, value in said["levels"].items())
                what = "a tie" if chose == "tie" else chose or levels
                comment = f": {said['comment']}" if said["comment"] else ""
                text("p", f"{said['rater']} chose {what}{comment}")

    def _turn(self, icon: str, name: str, by: int, possible: bool) -> None:
        async def go() -> None:
            self._start = max(0, self._start + by)
            await self.draw()

        made = ui.button(icon=icon, on_click=go).props("flat dense round")
        made.props["aria-label"] = name
        made.set_enabled(possible)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
