"""Blind comparison of answers: the studies, judging by keys, and a verdict when all is judged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from tutelage.web.parts import words
from tutelage.web.parts.layout import Action, button, card, empty, heading, notice
from tutelage.web.parts.table import Chip, Column, Query, Rows, table
from tutelage.web.parts.text import text
from tutelage.web.teach.judging import Judging
from tutelage.web.teach.looks import looks, progress_bar
from tutelage.web.teach.new_study import ask
from tutelage.web.teach.study_verdict import Pairs, verdict
from tutelage.web.view import TEACH, Page, View
from tutelage.workflows.evaluation.human_answer import undo
from tutelage.workflows.evaluation.human_blind import (
    Standing,
    reveal,
    standing,
    standings,
    study_count,
)

_MAY = ("expert", "engineer", "admin")


async def show(view: View) -> None:
    """Draw the list of studies."""

    async def new() -> None:
        await ask(view)

    heading(
        "Compare blind", Action("New study", new, "add", "main", "n"),
        note="People choose the better answer without knowing whose it is.",
    )  # fmt: skip
    view.keys({"n": ("Start a study", new)})

    async def rows(query: Query) -> Rows:
        person, ctx = view.user.name, view.context
        work = partial(standings, ctx, person, start=query.offset, count=query.limit)
        found = await view.call(work)
        return Rows([vars(one) | {"it": one} for one in found], await view.call(study_count, ctx))

    await table(
        (
            Column("study", "Study", show=lambda row: _named(row["it"])),
            Column("kind", "How", show=lambda row: ", ".join(row["criteria"]) or "side by side"),
            Column("at", "Started", show=lambda row: words.ago(row["at"])),
            Column("judged", "Judged", show=lambda row: _judged(row["it"])),
            Column("mine", "Yours", show=lambda row: _yours(row["it"])),
            Column("state", "State", show=lambda row: Chip("verdict", "good") if row["it"].finished
                   else Chip("being judged", "info")),
        ),
        rows, key="study", on_open="/compare-blind/{study}",
        nothing="No study yet. Start one over the answers of an evaluation with the button above.",
    )  # fmt: skip


async def show_one(view: View, study: str) -> None:
    """Draw one study: what is left to judge, or the verdict."""
    looks()
    rater = view.user.name if view.site.accounts else view.request.query_params.get("as")
    found = await view.call(standing, view.context, study, rater or view.user.name)
    if found.mine is None and rater is None and len(found.people) == 1 and not view.site.accounts:
        rater = next(iter(found.people))
        found = await view.call(standing, view.context, study, rater)
    how = ", ".join(found.criteria) or "the better of two"
    heading(
        f"Blind: {_named(found)}",
        Action("All studies", "/compare-blind", "arrow_back"),
        note=f"{how} · {found.rows:,} of {found.of:,} rows · started {words.ago(found.at)}",
    )
    if not view.site.accounts and len(found.people) > 1 and not found.finished:
        _who(found, rater or view.user.name)
    page = _Study(view, found, rater or view.user.name)
    await page.draw()


class _Study:
    """One study before one person."""

    def __init__(self, view: View, found: Standing, rater: str) -> None:
        self._view, self._study, self._rater = view, found.study, rater
        self._box = ui.column().classes("w-full gap-4 items-stretch")

    async def draw(self) -> None:
        """Draw what there is to judge, or who is still to judge, or the verdict."""
        found = await self._view.call(standing, self._view.context, self._study, self._rater)
        self._box.clear()
        with self._box:
            if found.mine is not None and found.mine[1]:
                judging = Judging(self._view, self._study, self._rater, self.draw)
                await judging.next()
            elif not found.finished:
                self._wait(found)
            elif self._view.user.name in found.people or found.mine is not None:
                self._end(found)
            else:
                await self.reveal()

    async def reveal(self) -> None:
        """Draw who won. From here on nothing is taken back on this page."""
        found: Mapping[str, Any] | None = await self._view.attempt(
            reveal, self._view.context, self._study
        )
        if found is None:
            return
        self._view.bindings.pop("z", None)
        self._view.bindings.pop("v", None)
        self._view.keys({})
        self._view.audit("human.verdict", study=self._study)
        self._box.clear()
        with self._box:
            verdict(found)
            await Pairs(self._view, self._study).draw()

    def _wait(self, found: Standing) -> None:
        """Say who is still to judge; nothing says who leads."""
        with card("Not finished"):
            if found.mine is not None:
                notice("You have judged all of yours. The verdict shows when the others are done.",
                       "good")  # fmt: skip
                with ui.row():
                    self._undo()
            else:
                text("p", "The verdict shows when everything is judged.")
            if found.shared:
                text("p", f"{words.count(found.left, 'judgement')} still to come, from whoever is "
                     "free.")  # fmt: skip
            for name, (done, left) in found.people.items():
                if not done + left:
                    continue
                text("div", f"{name}: {done:,} of {done + left:,}")
                progress_bar(done, done + left, f"Progress of {name}")

    def _end(self, found: Standing) -> None:
        with card("Everything is judged"):
            many = words.count(found.judged, "judgement")
            text("p", f"{many} are in. The verdict says who wrote which answer; take your last one "
                 "back before you look, not after.")  # fmt: skip
            with ui.row().classes("gap-2"):
                button(Action("Show the verdict", self.reveal, "flag", "main", "v"))
                self._undo()
        self._view.keys({"v": ("Show the verdict", self.reveal)})

    def _undo(self) -> None:
        button(Action("Take the last one back", self.back, "undo", key="z"))
        self._view.keys({"z": ("Take the last one back", self.back)})

    async def back(self) -> None:
        """Take the person's newest judgement back and show it again."""
        self._view.require(*_MAY)
        taken = await self._view.attempt(undo, self._view.context, self._rater, self._study)
        if taken is not None:
            self._view.audit("human.undo", study=self._study)
            await self.draw()


def _who(found: Standing, rater: str) -> None:
    names = list(found.people)

    def chosen() -> None:
        ui.navigate.to(f"/compare-blind/{found.study}?as={quote(str(who.value), safe='')}")

    who = ui.select(names, value=rater if rater in names else None, label="You judge as",
                    on_change=chosen)  # fmt: skip
    who.classes("w-60")
    if rater not in names:
        empty("Say who you are to begin.")


def _named(one: Standing) -> str:
    """Return who is compared, and the start of the id, which tells studies of the same apart."""
    who = " against ".join(name.replace("_", "-") for name in one.candidates)
    return f"{who} ({one.study[:6]})"


def _judged(one: Standing) -> str:
    return f"{one.judged:,} of {one.judged + one.left:,}"


def _yours(one: Standing) -> str:
    if one.mine is None:
        return "–"
    done, left = one.mine
    return f"{left:,} to do" if left else f"{done:,} done"


PAGES = (
    Page("/compare-blind", "Compare blind", show, roles=TEACH, group="Teach", icon="balance",
         key="b"),
    Page("/compare-blind/{study}", "Blind study", show_one, roles=TEACH),
)  # fmt: skip
