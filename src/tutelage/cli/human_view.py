"""What a person sees of human evaluation: lines and tables made from plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from tutelage.cli.screens import duration, indented, simple_table


def study_lines(made: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was made and what comes next."""
    sample, names = made["sample"], " and ".join(made["candidates"])
    by = f"by {', '.join(made['criteria'])}" if made["criteria"] else "side by side"
    yield f"study {made['study']}: {names}, {by}, over evaluation {made['evaluation']}"
    yield (
        f"{sample['rows']} of {sample['of']} rows ({sample['how']}), "
        f"{made['judgements']} judgements, {made['overlap']} a row"
    )
    same = made["tasks"] - made["asked"]
    if same:
        yield f"{same} pairs are the same text twice: ties that nobody is asked"
    if made["shared"]:
        yield f"whoever is free takes the next: {', '.join(made['people'])}"
    else:
        yield ", ".join(f"{name} {count}" for name, count in made["people"].items())
    yield "next: tutelage human export sheet.csv"


def import_lines(read: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what each sheet gave, and a sentence for each row that can't be used."""
    for one in read:
        counts = [
            f"{one[name]} {name}"
            for name in ("kept", "corrected", "unchanged", "skipped", "empty")
            if one[name]
        ]
        yield f"{one['file']}: {', '.join(counts) or 'nothing in it'}"
        for problem in one["problems"]:
            yield f"  {one['file']}:{problem['line']}: {problem['why']}"
        if one["quarantine"]:
            yield f"  {len(one['problems'])} rows were left out: {one['quarantine']}"


def status_parts(studies: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Yield a heading and a table for each study."""
    if not studies:
        yield Text("no study yet: tutelage human new --to anna,ben")
    for study in studies:
        by = ", ".join(study["criteria"]) or "side by side"
        yield Text(
            f"{study['study']}  {' and '.join(study['candidates'])}, {by}: "
            f"{study['done']} of {study['judgements']} judged"
        )
        cells = [
            (r["rater"], r["done"], r["skipped"], r["left"],
             duration(r["seconds"]) if r["seconds"] is not None else "–")
            for r in study["raters"]
        ]  # fmt: skip
        yield indented(simple_table(("rater", "done", "skipped", "left", "a row"), cells))


def results_parts(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the results: the answer first, then what it rests on."""
    who = "" if found["kind"] == "rubric" else ", side by side"
    yield Text(
        f"study {found['study']}{who}: {found['judgements']} judgements of "
        f"{found['rows']} rows"
    )  # fmt: skip
    if found["kind"] == "rubric":
        yield from _rubric(found)
    else:
        yield from _pairs(found)
    for note in found["notes"]:
        yield Text(f"note: {note}")


def _pairs(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    for rate in found["win_rates"]:
        yield Text(_win_line(rate, found["confidence"]), style="bold")
        yield indented(Text("\n".join(_win_details(rate))))
    if found["scale"]:
        yield Text(f"one scale ({found['scale']['model']})")
        cells = [
            (s["candidate"], f"{s['strength']:+.2f}", _span(s, "{:+.2f}"), _percent(s["chance"]))
            for s in found["scale"]["strengths"]
        ]
        names = ("candidate", "strength", "interval", "wins against the others")
        yield indented(simple_table(names, cells))
    agreed = found["agreement"]
    yield Text(f"agreement: {agreed['sentence']}" if agreed else
               "agreement: no row has two raters, so nothing can be said")  # fmt: skip
    side = found["position"]
    if side:
        left = side["left"]
        yield Text(
            f"the left answer won {_percent(left['estimate'])} of decided judgements "
            f"({_span(left, '{:.0%}')}; p = {side['p']:.2f} for no leaning)"
        )
    raters = [
        (
            r["rater"], r["judgements"], r["ties"],
            _percent(r["left_share"]) + (" leans" if r["leans"] else ""),
            _percent(r["with_others"]), _seconds(r["seconds"]),
            f"{_seconds(r['early'])} → {_seconds(r['late'])}",
        )
        for r in found["raters"]
    ]  # fmt: skip
    columns = ("rater", "judged", "ties", "left won", "as others", "a row", "early → late")
    yield indented(simple_table(columns, raters))


def _win_line(rate: Mapping[str, Any], confidence: float) -> str:
    first, second = rate["first"], rate["second"]
    meaning = {
        "first": f"{first} is preferred",
        "second": f"{second} is preferred",
        "open": "could go either way",
    }[rate["decision"]]
    return (
        f"{first} over {second}: {_percent(rate['rate'])} "
        f"({_span(rate, '{:.0%}')}, {confidence:.0%} interval): {meaning}"
    )


def _win_details(rate: Mapping[str, Any]) -> Iterator[str]:
    same = f", {rate['same']} rows the same text" if rate["same"] else ""
    yield (
        f"{rate['wins']} won, {rate['ties']} tied, {rate['losses']} lost{same}; p = {rate['p']:.3f}"
    )
    if rate["wide_low"] is not None:
        yield (
            f"with other raters too: {rate['wide_low']:.0%} to {rate['wide_high']:.0%} "
            f"({rate['raters']} raters)"
        )
    if rate["overall"] is not None:
        yield (
            f"over all rows, those with equal answers tied: {_percent(rate['overall'])} "
            f"({rate['overall_low']:.0%} to {rate['overall_high']:.0%})"
        )
    if rate["more"] is None:
        yield "too even to name a number of rows that would decide"
    elif rate["more"]:
        yield f"about {rate['more']} more rows would decide, were the estimate true"


def _rubric(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    cells = [
        (m["criterion"], m["candidate"], f"{m['estimate']:.2f}", _span(m, "{:.2f}"), m["n"])
        for m in found["means"]
    ]
    yield indented(simple_table(("criterion", "candidate", "mean", "interval", "rows"), cells))
    for d in found["differences"]:
        yield Text(
            f"{d['criterion']}: {d['first']} minus {d['second']} {d['estimate']:+.2f} "
            f"({_span(d, '{:+.2f}')}), p = {d['p']:.3f}"
        )
    for name, agreed in found["agreement"].items():
        if agreed:
            yield Text(f"agreement on {name}: {agreed['sentence']}")
    raters = [(r["rater"], r["judgements"], f"{r['mean']:.2f}") for r in found["raters"]]
    yield indented(simple_table(("rater", "judged", "mean"), raters))


def _span(of: Mapping[str, Any], form: str) -> str:
    if of["low"] is None or of["high"] is None:
        return "–"
    return f"{form.format(of['low'])} to {form.format(of['high'])}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else duration(value)
