"""The terminal sessions: labelling item after item, and deciding disputes. Keys, not menus.

With few labels a single key answers; with many or none, or without a terminal, a line does. All is
drawn on stderr. What a key means is in data/annotation/keys.py, what is kept in workflows.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.columns import Columns
from rich.console import Console
from rich.text import Text

from tutelage.core.errors import DataError
from tutelage.data.annotation.keys import ONE_KEY, Press, read_press

if TYPE_CHECKING:
    from tutelage.workflows.context import Context
    from tutelage.workflows.data.experts import Shown

_KEYS = "enter draft · e write · s skip · u unsure · c comment · b back · ? guideline · q quit"


class _Screen:
    """Draws on stderr and reads what a person presses or types."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.labels = tuple(labels)
        self.by_key = sys.stdin.isatty() and 1 <= len(labels) <= ONE_KEY

    def ask(self, *, has_draft: bool) -> Press:
        """Return the next press; the end of the input quits."""
        self.console.print("> ", end="")
        if self.by_key:
            key = typer.getchar()
            shown = key if key.isprintable() else ""
            self.console.print(shown, markup=False)
            return read_press("" if key in "\r\n" else key, self.labels, has_draft=has_draft)
        line = sys.stdin.readline()
        if not line:
            return Press("quit")
        return read_press(line, self.labels, has_draft=has_draft)

    def line(self, question: str) -> str:
        """Return one typed line."""
        self.console.print(f"{question}: ", end="", markup=False)
        return sys.stdin.readline().strip()

    def write(self, start: str) -> str:
        """Return a text from the editor, or one typed line where there is none."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
        if not editor or not sys.stdin.isatty():
            return self.line("answer")
        with tempfile.NamedTemporaryFile("w+", suffix=".txt", encoding="utf-8") as file:
            file.write(start)
            file.flush()
            subprocess.run([*shlex.split(editor), file.name], check=False)
            return Path(file.name).read_text(encoding="utf-8").strip()

    def turns(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Draw the conversation; roles only where there is more than one turn."""
        for turn in messages:
            if len(messages) > 1:
                self.console.print(turn["role"], style="dim")
            self.console.print(Text(plain(str(turn["content"])), style="bold"))

    def choices(self) -> None:
        """Draw the labels with their numbers."""
        if self.labels:
            cells = [f"[cyan]{i}[/] {_escaped(name)}" for i, name in enumerate(self.labels, 1)]
            self.console.print(Columns(cells, padding=(0, 3)))

    def say(self, text: str, style: str = "dim") -> None:
        """Draw a sentence."""
        self.console.print(text, style=style, markup=False)


class LabelSession:
    """One person's session. `run` returns how much was answered; every answer is kept at once."""

    def __init__(self, ctx: Context, name: str) -> None:
        from tutelage.workflows.data import experts
        from tutelage.workflows.data.experts_answer import known_labels

        self._ctx, self._name, self._work = ctx, name, experts
        self._screen = _Screen(known_labels(ctx))
        self._past: list[str] = []
        self._said: dict[str, bool] = {}  # item: whether it was answered, not skipped

    def run(self) -> dict[str, Any]:
        """Go on until the person quits or nothing is left."""
        item = self._work.next_item(self._ctx, self._name)
        if item is None:
            self._screen.say(f"{self._name} has nothing left to answer.")
        while item is not None:
            going = self._one(item)
            if going == "quit":
                break
            if going == "back":
                item = self._work.show_item(self._ctx, self._past.pop(), self._name)
                continue
            item = self._work.next_item(self._ctx, self._name)
            if item is None:
                self._screen.say("That was the last one. Thank you.", "green")
        left = len(self._work.todo(self._ctx, self._name))
        return {
            "annotator": self._name,
            "answers": sum(self._said.values()),
            "skipped": len(self._said) - sum(self._said.values()),
            "left": left,
        }

    def _one(self, item: Shown) -> str:
        """Show one item until it is answered; return next, back or quit."""
        started = time.monotonic()
        flags: set[str] = set()
        comment = ""
        self._show(item)
        while True:
            press = self._screen.ask(has_draft=item.draft is not None)
            if press.kind == "quit":
                return "quit"
            if press.kind == "back":
                if self._past:
                    return "back"
                self._screen.say("nothing was answered before this")
            elif press.kind == "guideline":
                self._guideline()
            elif press.kind == "unsure":
                flags ^= {"unsure"}
                self._screen.say("unsure" if flags else "sure again")
            elif press.kind == "comment":
                comment = self._screen.line("comment")
            elif press.kind == "odd":
                self._screen.say(press.why, "yellow")
            elif self._keep(item, press, flags, comment, time.monotonic() - started):
                return "next"

    def _keep(
        self, item: Shown, press: Press, flags: set[str], comment: str, seconds: float
    ) -> bool:
        """Keep what a press says; False, with the reason shown, if it can't be an answer."""
        text = press.text or None
        if press.kind == "skip":
            flags = flags | {"skip"}
        elif press.kind == "accept" and item.draft is not None:
            text = item.draft["label"] or item.draft["text"]
        elif press.kind == "edit":
            text = self._screen.write(item.draft["text"] if item.draft else "") or None
        given = self._work.Given(
            item=item.item,
            annotator=self._name,
            label=text,
            seconds=round(seconds, 2),
            comment=comment,
            flags=tuple(sorted(flags)),
            draft=item.draft["id"] if item.draft and press.kind != "skip" else None,
        )
        try:
            self._work.submit(self._ctx, given)
        except DataError as problem:
            self._screen.say(problem.sentence(), "yellow")
            return False
        self._past.append(item.item)
        self._said[item.item] = press.kind != "skip"
        return True

    def _show(self, item: Shown) -> None:
        screen = self._screen
        screen.console.print()
        screen.console.rule(f"[cyan]{item.done + 1} of {item.total}[/]", align="left", style="dim")
        screen.turns(item.messages)
        screen.console.print()
        if item.draft is not None:
            screen.console.print("[dim]draft[/] ", end="")
            screen.console.print(plain(item.draft["text"]), markup=False, style="green")
        screen.choices()
        screen.say(_KEYS)

    def _guideline(self) -> None:
        from tutelage.workflows.data.experts_people import guideline

        found = guideline(self._ctx)
        self._screen.say(found["text"] if found else "there is no guideline yet", "")


class AdjudicationSession:
    """Goes through the disputes, the most disagreed first; enter takes the suggestion."""

    def __init__(self, ctx: Context, by: str) -> None:
        from tutelage.workflows.data import experts_review
        from tutelage.workflows.data.experts_answer import known_labels

        self._ctx, self._by, self._work = ctx, by, experts_review
        self._screen = _Screen(known_labels(ctx))

    def run(self) -> dict[str, Any]:
        """Decide until the person quits or nothing is left."""
        decided = 0
        for one in self._work.disputed(self._ctx):
            done = self._one(one)
            if done is None:
                break
            decided += done
        return {"by": self._by, "decided": decided, "left": len(self._work.disputed(self._ctx))}

    def _one(self, one: Mapping[str, Any]) -> int | None:
        """Return 1 if the item was decided, 0 if it was passed by, None to stop."""
        suggestion = one["suggestion"]
        self._show(one)
        why = ""
        while True:
            press = self._screen.ask(has_draft=suggestion is not None)
            if press.kind == "quit":
                return None
            if press.kind == "skip":
                return 0
            if press.kind == "comment":
                why = self._screen.line("why")
                continue
            if press.kind not in ("label", "write", "accept", "edit"):
                self._screen.say(press.why or "use a label, enter, s, c or q", "yellow")
                continue
            text = suggestion["label"] if press.kind == "accept" and suggestion else press.text
            if press.kind == "edit":
                text = self._screen.write(_first_answer(one))
            try:
                self._work.adjudicate(self._ctx, one["item"], by=self._by, label=text, why=why)
            except DataError as problem:
                self._screen.say(problem.sentence(), "yellow")
                continue
            return 1

    def _show(self, one: Mapping[str, Any]) -> None:
        screen = self._screen
        screen.console.print()
        screen.console.rule(f"[cyan]{one['item'][:10]}[/]", align="left", style="dim")
        screen.console.print(Text(plain(one["text"]), style="bold"))
        for vote in one["votes"]:
            said = vote["label"] or vote["answer"] or "skipped"
            notes = ", ".join([*vote["flags"], *([vote["comment"]] if vote["comment"] else [])])
            screen.say(f"{vote['annotator']}: {plain(said)}" + (f"  ({notes})" if notes else ""))
        if one["suggestion"]:
            likely = one["suggestion"]
            screen.say(f"likely {likely['label']} ({likely['probability']:.0%})", "green")
        screen.choices()
        screen.say("enter suggestion · s later · c why · e write · q quit")


def plain(text: str) -> str:
    """Return text that can't steer a terminal: control characters become �."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def _first_answer(one: Mapping[str, Any]) -> str:
    return next((v["answer"] for v in one["votes"] if v["answer"]), "")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(plain(text))
