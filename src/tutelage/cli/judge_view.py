"""What a person sees of judges: scores, win rates, agreement with experts, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from tutelage.cli.screens import indented, simple_table

_SHOWN = 5  # answers in doubt that are listed


def judged_lines(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield the parts of `judge run` and `judge show`."""
    who = " and ".join(found["judges"])
    yield Text(f"{who}, {found['mode']}, {found['rows']} rows of evaluation {found['evaluation']}")
    if found["mode"] == "pairwise":
        yield indented(simple_table(*_pairs(found)))
        yield from _wavering(found)
    else:
        yield indented(simple_table(*_marks(found)))
    for entry in found["rubric"]:
        style = "green" if entry["may_gate"] else "yellow"
        word = "may gate" if entry["may_gate"] else "may not gate"
        yield Text.assemble((word, style), f": {entry['trust']}")
    yield from _doubts(found["suspected"])
    yield _spent(found["spent"])


def _marks(found: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    panel = len(found["judges"]) > 1
    header = ["answers of", "criterion", "mean", "interval", "n", "unscored"]
    header += ["judges differ"] if panel else []
    people = any(m.get("people") for c in found["candidates"] for m in c["metrics"].values())
    header += ["as experts would mark", "interval", "experts' rows"] if people else []
    rows: list[list[object]] = []
    for candidate in found["candidates"]:
        for metric, mean in candidate["metrics"].items():
            row: list[object] = [candidate["name"], metric, _two(mean["estimate"]), _span(mean),
                                 mean["n"], mean["unscored"]]  # fmt: skip
            row += [_percent(mean.get("disagreement"))] if panel else []
            if people:
                given = mean.get("people")
                row += [_two(given["estimate"]), _span(given), given["n"]] if given else [""] * 3
            rows.append(row)
    return header, rows


def _pairs(found: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    header = [
        "tuned against", "wins", "ties", "losses", "unscored", "win rate", "interval",
        "length-controlled", "interval",
    ]  # fmt: skip
    rows: list[list[object]] = [
        [
            pair["other"], pair["wins"], pair["ties"], pair["losses"], pair["unscored"],
            _percent(pair["raw"]["estimate"]), _percents(pair["raw"]),
            _percent(pair["controlled"]["estimate"]), _percents(pair["controlled"]),
        ]
        for pair in found["pairs"]
    ]  # fmt: skip
    return header, rows


def _wavering(found: dict[str, Any]) -> Iterator[Text]:
    for pair in found["pairs"]:
        if pair["conflict_rate"] is not None:
            yield Text(
                f"against {pair['other']}: {_percent(pair['conflict_rate'])} of the pairs turned "
                f"with the order and count as ties; the first answer was preferred in "
                f"{_percent(pair['first_rate'])} of the questions; {pair['same']} pairs were the "
                "same text"
            )


def _doubts(suspected: list[dict[str, str]]) -> Iterator[Text]:
    if suspected:
        yield Text.assemble(
            ("injection suspected", "bold yellow"),
            f" in answers that seem to speak to the judge: {len(suspected)}; read them",
        )
        for entry in suspected[:_SHOWN]:
            yield Text(f"    {entry['item'][:12]} {entry['candidate']}: {entry['why']}")


def _spent(spent: dict[str, Any]) -> Text:
    money = f", {spent['money']:.2f} in money" if spent["money"] else ""
    text = (
        f"{spent['asked']:,} requests now, {spent['kept']:,} verdicts kept from before; "
        f"{spent['tokens']:,} tokens{money} in all"
    )
    for key, words in (("unread", "replies could not be read"), ("failed", "requests failed"),
                       ("left", "questions are open")):  # fmt: skip
        if spent[key]:
            text += f"; {spent[key]:,} {words}"
    if spent["stopped"]:
        text += f"\nstopped: {spent['stopped']}; a larger budget goes on from there"
    return Text(text)


def agreement_lines(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield the parts of `judge agreement`."""
    for entry in found["judges"]:
        for criterion in entry["criteria"]:
            style = "bold green" if criterion["may_gate"] else "bold yellow"
            word = "may gate" if criterion["may_gate"] else "may not gate"
            yield Text.assemble((word, style), f": {criterion['trust']}")
            yield Text(f"    {_others(criterion)}")
            labels = criterion["outcomes"]
            rows = [
                [f"experts {said}", *counts]
                for said, counts in zip(labels, criterion["confusion"], strict=True)
            ]
            yield indented(simple_table(["", *(f"judge {name}" for name in labels)], rows))
    if found["spent"]["stopped"]:
        yield Text(f"stopped: {found['spent']['stopped']}")


def _others(criterion: dict[str, Any]) -> str:
    parts = [f"{criterion['answers']} answers on {criterion['rows']} rows"]
    if "name" in criterion:
        parts.append(f"the figure is {criterion['name']}")
        parts += [f"{name} {_two(v[0])}" for name, v in criterion["others"].items()]
    for key, words in (("undecided", "without a verdict of the judge"),
                       ("split", "on which experts were split even")):  # fmt: skip
        if criterion[key]:
            parts.append(f"{criterion[key]} {words}")
    return "; ".join(parts)


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"


def _span(given: dict[str, Any]) -> str:
    return "–" if given["low"] is None else f"{given['low']:.2f}…{given['high']:.2f}"


def _percents(given: dict[str, Any]) -> str:
    low, high = given["low"], given["high"]
    return "–" if low is None else f"{low * 100:.0f}…{high * 100:.0f} %"
