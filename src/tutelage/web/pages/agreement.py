"""How far the experts agree, by label and by pair, in plain words, and how far everybody is."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from tutelage.data.annotation.reliability import Annotator, Share
from tutelage.data.quality.agreement import Agreement, Strength
from tutelage.web.parts import words
from tutelage.web.parts.chart import Interval, bars, intervals
from tutelage.web.parts.layout import Action, Kind, card, chip, empty, figure, grid, heading, notice
from tutelage.web.parts.table import plain_table
from tutelage.web.parts.text import text
from tutelage.web.teach.looks import looks, progress_bar
from tutelage.web.view import TEACH, Page, View
from tutelage.workflows.data.experts_figures import Figures, figures_of

_LABELS = 30  # labels shown
_ENOUGH = 10  # answers a label needs to be drawn
_PAIR_ITEMS = 5  # items two people share from which on their line is drawn
_KINDS: dict[Strength, Kind] = {
    "reliable": "good", "tentative": "warn", "unreliable": "bad", "unknown": "idle",
}  # fmt: skip
_HEADLINES: dict[Strength, str] = {
    "reliable": "Your experts agree: the labels can be relied on.",
    "tentative": "Your experts agree fairly well: enough for first conclusions.",
    "unreliable": "Your experts disagree too often to rely on the labels.",
    "unknown": "How far your experts agree can't be told yet.",
}
_NEXT: dict[Strength, str] = {
    "reliable": "One answer an item is enough from here on.",
    "tentative": "Decide what is disputed, and say in the guideline how those labels differ.",
    "unreliable": "Talk about the labels that are mixed up below, change the guideline, and have "
    "the disputed items answered again.",
    "unknown": "Give some items to two people or more.",
}
_ALL = "Everything"


class _Sheet:
    """The figures of everything or of one batch; drawn anew when something came in."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._shown: Figures | None = None
        self._pick = ui.select({"": _ALL}, value="", label="Items", on_change=self.draw)
        self._pick.classes("w-72")
        self._box = ui.column().classes("w-full gap-4 items-stretch").style("min-height: 30rem")
        with self._box, ui.row().classes("gap-2 items-center"):
            ui.spinner()
            text("p", "Counting…", "tt-muted")

    async def draw(self) -> None:
        """Draw the figures if they are not those that are shown."""
        desk = figures_of(self._view.context)
        found = await self._view.attempt(desk.figures, self._pick.value or None)
        if found is None or found is self._shown:
            return
        self._shown = found
        self._batches(found.progress["batches"])
        self._box.clear()
        with self._box:
            _verdict(found)
            if found.agreement is not None:
                _by_label(found.agreement)
                _by_pair(found.agreement)
                _mixed_up(found.agreement)
            _people(found.people)
            _progress(found.progress)

    def _batches(self, batches: list[dict[str, Any]]) -> None:
        options = {"": _ALL} | {
            one["batch"]: f"{one['at'][:16].replace('T', ' ')}, {', '.join(one['people'])}"
            for one in batches
        }
        if options != self._pick.options:
            self._pick.set_options(options)


def _verdict(found: Figures) -> None:
    told = found.agreement
    with card():
        if told is None:
            empty(
                f"{found.why}. {found.fix}.", "tutelage data label assign --to anna,ben --overlap 2"
            )
            return
        with ui.row().classes("gap-3 items-center"):
            chip(told.strength, _KINDS[told.strength])
            text("h2", _HEADLINES[told.strength])
        text("p", _NEXT[told.strength])
        with grid("9rem"):
            figure(words.number(told.rated), f"items with two answers, of {told.items:,}")
            figure(words.number(told.answers), "answers")
            figure(words.number(len(told.raters)), "people")
            commonest = f"of the answers are “{words.short(told.prevalent, 24)}”, the commonest"
            figure(words.percent(told.prevalence, 0), commonest)
            for plain in (one for one in told.coefficients if one.key == "percent"):
                figure(words.percent(plain.value, 0), "the same answer, chance included")
        _coefficients(told)
        for note in told.notes:
            notice(note[0].upper() + note[1:] + ".", "info")


def _coefficients(told: Agreement) -> None:
    text("h3", "Agreement beyond chance")
    why = f"{told.chosen.name} fits these answers: {told.chosen.why}."
    scale = "1 is full agreement, 0 what guessing would give; in brackets the 95 % interval."
    text("p", f"{why} {scale}", "tt-muted")
    known = [
        Interval(one.name, one.value, _or(one.low, one.value), _or(one.high, one.value))
        for one in told.coefficients
        if one.value is not None and one.key != "percent"
    ]
    if not known:
        return
    intervals(known, name="Coefficients of agreement", low=min([0.0, *(k.low for k in known)]),
              high=1.0, mark=0.8)  # fmt: skip
    text("p", "The line stands at 0.8, from which on labels count as reliable.", "tt-muted")


def _by_label(told: Agreement) -> None:
    ranked = [one for one in told.labels if one.answers and one.agreement is not None]
    ranked.sort(key=lambda one: one.agreement or 0.0)
    if not ranked:
        return
    known = [one for one in ranked if one.answers >= _ENOUGH]
    few = [words.short(one.label, 40) for one in ranked if one.answers < _ENOUGH]
    rows = [
        Interval(
            words.short(one.label, 40), _or(one.agreement, 0), _or(one.low, 0), _or(one.high, 1),
            f"· {words.count(one.answers, 'answer')}",
        )
        for one in known[:_LABELS]
    ]  # fmt: skip
    with card("By label, weakest first"):
        text("p", "Where one person gave the label, how often another one did too.", "tt-muted")
        if rows:
            intervals(rows, name="Agreement by label", low=0.0, high=1.0, percent=True)
        if len(known) > len(rows):
            more = words.count(len(known) - len(rows), "label")
            text("p", f"{more} with more agreement not shown.", "tt-muted")
        if few:
            listed = ", ".join(few[:_LABELS]) + (", …" if len(few) > _LABELS else "")
            text("p", f"Too few answers to tell (under {_ENOUGH}): {listed}.", "tt-muted")


def _by_pair(told: Agreement) -> None:
    pairs = [one for one in told.pairs if one.n >= _PAIR_ITEMS and one.kappa.value is not None]
    if len(told.pairs) < 2 or not pairs:
        return
    with card("Every two people"):
        text("p", "Cohen's kappa of each pair. One low line among high ones is a person who reads "
             "the guideline differently.", "tt-muted")  # fmt: skip
        rows = [
            Interval(
                f"{one.first} and {one.second}", _or(one.kappa.value, 0),
                _or(one.kappa.low, _or(one.kappa.value, 0)),
                _or(one.kappa.high, _or(one.kappa.value, 0)),
                f"· the same on {words.percent(one.percent, 0)} of {one.n:,}",
            )
            for one in pairs
        ]  # fmt: skip
        intervals(rows, name="Kappa of every two people", high=1.0,
                  low=min(0.0, *(row.low for row in rows)), mark=0.8)  # fmt: skip


def _mixed_up(told: Agreement) -> None:
    if not told.confusions:
        return
    with card("Labels that are mixed up", Action("Guideline", "/guidelines", "menu_book")):
        text("p", "How often both were given to one item. Say in the guideline how to tell them "
             "apart.", "tt-muted")  # fmt: skip
        bars(
            [(f"{words.short(a, 30)} / {words.short(b, 30)}", met) for a, b, met in
             told.confusions],
            name="Labels that were given to the same item", unit="×",
        )  # fmt: skip


def _people(people: tuple[Annotator, ...]) -> None:
    if not people:
        return
    with card("People"):
        text("p", "How often each says what most of the others say, and what was decided in the "
             "end, with 95 % intervals.", "tt-muted")  # fmt: skip
        with ui.element("div").classes("tt-table-scroll").props("tabindex=0"):
            plain_table(
                ("", "Answers", "Passed by", "Unsure", "Time an item", "As the others",
                 "As decided", "Drafts kept", "Says instead"),
                [
                    (
                        one.name, words.number(one.answers), words.number(one.skipped),
                        words.number(one.unsure), words.duration(one.seconds),
                        _share(one.with_others), _share(one.with_adjudicated),
                        f"{one.accepted} of {one.drafts}" if one.drafts else "–",
                        _instead(one),
                    )
                    for one in people
                ],
                name="Each person's answers",
            )  # fmt: skip


def _progress(done: dict[str, Any]) -> None:
    with card("Progress", Action("Decide what is disputed", "/review", "gavel")):
        states = done["states"]
        with grid("8rem"):
            for name, title in (
                ("open", "still open"), ("agreed", "agreed"), ("disputed", "disputed"),
                ("unsure", "unsure"), ("skipped", "passed by"), ("decided", "decided"),
            ):  # fmt: skip
                if states.get(name):
                    figure(words.number(states[name]), title)
        for one in done["people"]:
            if not one["given"]:
                continue
            over = one["done"] + one["skipped"]
            with ui.column().classes("w-full gap-1"):
                left = one["left_seconds"]
                about = f", about {words.duration(left)} to go" if left else ""
                text("div", f"{one['name']}: {over:,} of {one['given']:,}{about}")
                progress_bar(over, one["given"], f"Progress of {one['name']}")


def _instead(one: Annotator) -> str:
    return "; ".join(f"{said} for {true}" for true, said, _ in one.mixes_up[:2]) or "–"


def _share(found: Share) -> str:
    if found.rate is None:
        return "–"
    low, high = words.percent(found.low, 0), words.percent(found.high, 0)
    return f"{words.percent(found.rate, 0)} ({low} to {high}) of {found.n:,}"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


async def show(view: View) -> None:
    """Draw the page."""
    looks()
    heading(
        "Agreement",
        Action("Decide", "/review", "gavel"),
        note="Whether several people give the same answer to the same item.",
    )
    sheet = _Sheet(view)
    ui.timer(0.05, sheet.draw, once=True)
    view.every(15, sheet.draw)


PAGES = (Page("/agreement", "Agreement", show, roles=TEACH, group="Teach", icon="groups", key="m"),)
