"""A search as people read it: the YAML to take over, and a page with its trials and its noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tutelage.core.html import (
    Html,
    Tone,
    code,
    intervals,
    lines,
    page,
    paragraph,
    quote,
    section,
    stats,
    table,
    verdict,
)

_RATE = "learning_rate"
_SHOWN = 6  # curves in the chart: as many as there are colours


def fragment(overrides: Mapping[str, Any]) -> str:
    """Return the part of tutelage.yaml that sets `overrides`, or an empty string without any."""
    if not overrides:
        return ""
    return "train:\n" + "".join(f"  {name}: {number(value)}\n" for name, value in overrides.items())


def number(value: Any) -> str:
    """Return a number as YAML reads it back: 0.0017, and 3.0e-05 rather than 3e-05."""
    if isinstance(value, float):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    return str(value)


def trial_rows(data: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return the header and the rows of the table of trials, the lowest loss first."""
    names = list(data["planned"])
    ordered = sorted(data["trials"], key=_by_loss)
    rows: list[list[object]] = []
    for trial in ordered:
        loss = "–" if trial["loss"] is None else f"{trial['loss']:.4f}"
        ending = {"complete": trial["note"], "pruned": "stopped early"}.get(
            trial["state"], f"failed: {trial['note']}"
        )
        if trial["settings"] == data["planned"]:
            ending = f"the plan; {ending}"
        values = [f"{trial['settings'][name]:g}" for name in names]
        rows.append([trial["number"] + 1, loss, *values, f"{trial['seconds']:.1f}", ending])
    return ["trial", "validation loss", *names, "seconds", "ending"], rows


def report_page(name: str, data: Mapping[str, Any]) -> str:
    """Return the report of a search; `data` is its result.json."""
    header, rows = trial_rows(data)
    sections = [_verdict(data), _figures(data)]
    if _RATE in data["planned"] and len(_sweep(data)) > 1:
        sections.append(
            section(
                "The learning rate",
                lines(
                    {"sweep": [(math.log10(rate), loss) for rate, loss in _sweep(data)]},
                    x_label="log10 of the learning rate",
                    y_label="validation loss",
                ),
                lead="All else as planned. A flat valley means the plan's rate is good enough.",
            )
        )
    sections.append(
        section(
            "How the trials learned",
            lines(
                {
                    f"trial {t['number'] + 1}": [(10 * x, y) for x, y in t["curve"]]
                    for t in sorted(data["trials"], key=_by_loss)[:_SHOWN]
                },
                x_label="percent of the run",
                y_label="validation loss",
            ),
            lead="The six with the lowest loss. Others may have been stopped early.",
        )
    )
    sections.append(section("All trials", table(header, rows)))
    if data["pairs"]:
        sections.append(_noise(data))
    return page(f"Search: {name}", sections, subtitle="on the validation split alone")


def _verdict(data: Mapping[str, Any]) -> Html:
    tone: Tone = "good" if data["take"] else "note"
    headline = "Better settings than the plan's" if data["take"] else "Keep the plan"
    return verdict(tone, headline, data["reason"][:1].upper() + data["reason"][1:] + ".")


def _figures(data: Mapping[str, Any]) -> Html:
    states = [trial["state"] for trial in data["trials"]]
    seconds = sum(trial["seconds"] for trial in data["trials"])
    tiles = [
        ("trials", len(states), f"{states.count('pruned')} stopped early"),
        ("the plan's loss", f"{data['planned_loss']:.4f}", "validation"),
        ("the lowest loss", f"{data['best_loss']:.4f}", f"trial {data['best_trial'] + 1}"),
        ("minutes", f"{seconds / 60:.1f}", "of the trials"),
    ]
    body: list[object] = [stats(tiles)]
    if data["overrides"]:
        label = "To take over:" if data["take"] else "What the lowest loss was reached with:"
        body += [paragraph(label), quote(fragment(data["overrides"]))]
    return section("In figures", *body)


def _noise(data: Mapping[str, Any]) -> Html:
    """Return the card that sets the gain against the noise from seed to seed."""
    rows = [
        [p["seed"], f"{p['planned']:.4f}", f"{p['best']:.4f}", f"{p['planned'] - p['best']:+.4f}"]
        for p in data["pairs"]
    ]
    body: list[object] = [table(["seed", "the plan", "the best", "lower by"], rows)]
    gain = data["gain"]
    if gain:
        high = 2 * gain["mean"] - gain["low"]
        row = ("lower by", gain["low"], gain["mean"], high)
        body += [
            intervals([row], reference=0.0),
            paragraph(
                Html(
                    "The bar is the mean gain with its one-sided 95 % bounds; the plan's own loss "
                    f"varies by {code(format(gain['noise'], '.4f'))} from seed to seed."
                )
            ),
        ]
    return section(
        "Gain or luck",
        *body,
        lead="Both settings trained again with the same new seeds. Zero must lie outside.",
    )


def _sweep(data: Mapping[str, Any]) -> list[tuple[float, float]]:
    others = {name: value for name, value in data["planned"].items() if name != _RATE}
    found = [
        (trial["settings"][_RATE], trial["loss"])
        for trial in data["trials"]
        if trial["loss"] is not None
        and all(trial["settings"][name] == value for name, value in others.items())
    ]
    return sorted(found)


def _by_loss(trial: Mapping[str, Any]) -> tuple[float, int]:
    return (math.inf if trial["loss"] is None else trial["loss"], trial["number"])
