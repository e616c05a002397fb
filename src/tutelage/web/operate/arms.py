"""The parts of a live rollout: its traffic, both arms side by side, verdict, scores, journal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from nicegui import ui

from tutelage.web.operate.sheet import sheet
from tutelage.web.operate.states import ROLLOUT, TESTS, VERDICT, at, words
from tutelage.web.parts.layout import chip, empty, notice
from tutelage.web.parts.text import text
from tutelage.web.parts.words import capital, count, milliseconds, number, percent, when
from tutelage.workflows.release.rollout_watch import shown_e

Data = Mapping[str, Any]
ARMS = {"canary": "candidate"}  # how an arm is called on a page; others as they are


def traffic(data: Data) -> None:
    """Draw who answers how much, the steps with the one it is at, and how far this step is."""
    found = data["rollout"]
    weight = found["mirrored"] or found["weight"]
    verb = "sees a copy of" if found["mirrored"] else "answers"
    with ui.row().classes("items-center gap-2"):
        chip(words(found["state"]), ROLLOUT.get(found["state"], "idle"))
        begun = when(at(found["started_at"]))
        text("span", f"{found['strategy'].replace('_', '-')}, begun {begun}", "tt-muted")
    text("p", f"{found['candidate']} {verb} {weight:g} % of the requests")
    _split(weight)
    with ui.element("ol").classes("flex flex-wrap gap-2 list-none p-0 m-0"):
        for place, step in enumerate(found["steps"]):
            with ui.element("li").classes("flex") as item:
                here = place == found["step"] and found["state"] not in ("promoted", "completed")
                if here:
                    item.props("aria-current=step")
                done = place < found["step"] or (not here and found["state"] == "promoted")
                chip(f"{step:g} %", "info" if here else "good" if done else "idle")
    asked = found["requests"]
    text(
        "p",
        f"{count(asked['step'], 'candidate request')} in this step, {asked['min_step']:,} needed; "
        f"{asked['total']:,} in all, {asked['min_total']:,} needed",
        "tt-muted",
    )
    bar = ui.linear_progress(value=found["progress"], show_value=False).classes("w-full")
    bar.props["aria-label"] = "how far the rollout is"


def _split(weight: float) -> None:
    """Draw the share of the candidate as a bar."""
    with ui.element("div").classes("flex w-full rounded overflow-hidden").style("height: 0.75rem"):
        for name, share, colour in (
            ("candidate", weight, "#c8641b"),
            ("stable", 100 - weight, "#3b82d6"),
        ):
            part = ui.element("div").style(f"width: {share:g}%; background: {colour}")
            part.props["role"] = "img"
            part.props["aria-label"] = f"{name} {share:g} %"


def sides(data: Data) -> None:
    """Draw the figures of both arms side by side, with their ratio and its limit."""
    figures, found = data["figures"], data["rollout"]
    text("p", f"{found['baseline']} is stable, {found['candidate']} the candidate", "tt-muted")
    base, ours = figures["arms"]["baseline"], figures["arms"]["canary"]
    rows: list[list[Any]] = [
        ["requests", number(base["requests"]), number(ours["requests"]), ""],
    ]
    for name in ("p50", "p95", "p99"):
        ratio = figures["ratios"][name]
        rows.append([f"{name} latency", milliseconds(base[name]), milliseconds(ours[name]),
                     _ratio(ratio, figures["limit"])])  # fmt: skip
    rate = ours["error_rate"]
    over = rate is not None and rate > figures["error_limit"]
    rows.append(["error rate", percent(base["error_rate"]), percent(rate),
                 partial(chip, f"limit {percent(figures['error_limit'])}",
                         "bad" if over else "idle")])  # fmt: skip
    rows.append(["failed", number(base["failed"]), number(ours["failed"]), ""])
    rows.append(["flagged by checks", number(base["flagged"]), number(ours["flagged"]), ""])
    headers = ("measure", "stable", "candidate", "ratio, limit")
    sheet(headers, rows, name="both releases in this rollout")


def _ratio(value: float | None, limit: float) -> Any:
    if value is None:
        return "–"
    return partial(chip, f"{value:.2f} ×", "bad" if value > limit else "good")


def verdict(data: Data) -> None:
    """Draw what the tests say now, why, what holds all traffic back and what can't be seen yet."""
    figures = data["figures"]
    word = figures["verdict"]
    ended = data["rollout"]["state"] not in ("pending", "running", "paused", "frozen")
    with ui.row().classes("items-center gap-2"):
        chip(words(word), VERDICT.get(word, "idle"))
        if ended:
            text("span", "the evidence as it was in the end", "tt-muted")
    for reason in figures["reasons"]:
        text("p", capital(reason))
    if figures["withheld"]:
        notice(f"All traffic waits: {figures['withheld']}", "warn")
    hidden = figures["unseen"] or told_unseen(data["rollout"])
    if hidden:
        text("h3", "What these requests would not have shown")
        with ui.element("ul").classes("tt-muted"):
            for one in hidden:
                text("li", capital(one))


def told_unseen(found: Data) -> list[str]:
    """Return what the last step that was taken could not see, as the journal has it."""
    for move in reversed(found["journal"]):
        if move["evidence"].get("unseen"):
            return list(move["evidence"]["unseen"])
    return []


def tests(data: Data) -> None:
    """Draw each test with what it saw and how near its evidence is to the bound."""
    lines = data["figures"]["bounds"]
    if not lines:
        empty("The tests begin with the candidate's first requests.")
        return
    rows = [
        [
            TESTS.get(line["name"], line["name"]),
            number(line["requests"]),
            number(line["observed"]),
            number(line["expected"]),
            shown_e(line["now"]),
            partial(
                chip,
                f"{shown_e(line['peak'])} of {shown_e(line['bound'])}",
                "bad" if line["peak"] >= line["bound"] else "good",
            ),
        ]
        for line in lines
    ]
    headers = ("test", "candidate requests", "bad", "expected", "evidence now", "highest, bound")
    sheet(headers, rows, name="the tests of this rollout")


def scores(data: Data) -> None:
    """Draw the live scores of both arms."""
    rows = data["figures"]["scores"]
    if not rows:
        empty(
            "No answer of this rollout was scored yet. Ratings of users count, and what the "
            "section live_evaluation of tutelage.yaml asks for."
        )
        return
    cells = [
        [row["metric"], number(row["scored"]), number(row["baseline"]), number(row["canary"]),
         row["withheld"]
         or ("a drop is excluded" if row["excluded_drop"] else "no drop can be excluded yet")]
        for row in rows
    ]  # fmt: skip
    headers = ("score", "scored", "stable", "candidate", "shows")
    sheet(headers, cells, name="live scores of both releases")


def journal(data: Data) -> None:
    """Draw what happened in this rollout, the newest first."""
    rows = [
        [
            when(at(move["at"])),
            partial(chip, words(move["to_state"]), ROLLOUT.get(move["to_state"], "idle")),
            f"{move['weight']:g} %",
            move["reason"],
        ]
        for move in reversed(data["rollout"]["journal"])
    ]
    if not rows:
        empty("Nothing has moved yet.")
        return
    sheet(("when", "state", "traffic", "why"), rows, name="journal of this rollout")


def course_words(data: Data) -> str:
    """Return the latencies of both arms in a sentence."""
    figures = data["figures"]
    if not figures["course"]:
        return "No request of this rollout was answered yet."
    base, ours = figures["arms"]["baseline"], figures["arms"]["canary"]
    ratio = figures["ratios"]["p95"]
    told = f"; p95 is {ratio:.2f} times the stable release's" if ratio is not None else ""
    return (
        f"p95 of the candidate is {milliseconds(ours['p95'])}, "
        f"of the stable release {milliseconds(base['p95'])}{told}."
    )


def bound_words(data: Data) -> str:
    """Return the tests' evidence in a sentence."""
    lines = data["figures"]["bounds"]
    if not lines:
        return "There is no evidence yet."
    over = [line for line in lines if line["peak"] >= line["bound"]]
    if over:
        names = ", ".join(TESTS.get(line["name"], line["name"]) for line in over)
        return f"Over the bound: {names}. The candidate is rolled back."
    most = max(lines, key=lambda line: line["peak"] / line["bound"])
    name = TESTS.get(most["name"], most["name"])
    seen = count(data["figures"]["arms"]["canary"]["requests"], "candidate request")
    return (
        f"After {seen} no test has reached its bound; nearest is {name}, "
        f"{shown_e(most['peak'])} of {shown_e(most['bound'])}."
    )
