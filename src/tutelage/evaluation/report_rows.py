"""The page's rows side by side: what tuning broke, left wrong, fixed, and does best and worst.

A row is marked up here and nothing is chosen; without JavaScript all rows are there, in parts that
open on a click, and report.js adds the search.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, Tone, esc
from tutelage.evaluation.report_words import Report, figure, short_title, subject, title_of

_CLIP = 1200  # characters of an answer shown; the whole stands in rows.jsonl
_INPUT = 700  # characters of an input shown
_WORDS = 400  # words beyond which two answers are not compared
_ALIKE = 0.25  # share of common words below which marks would only colour everything
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_PARTS: tuple[tuple[str, str, str, Tone], ...] = (  # (group, right or wrong, graded, tone)
    ("broken", "Broken: right before, wrong now", "Lower than before", "bad"),
    ("both_wrong", "Still wrong", "Low before and after, unchanged", "warn"),
    ("worst", "Lowest scores of all", "Lowest scores of all", "warn"),
    ("fixed", "Fixed: wrong before, right now", "Higher than before", "good"),
    ("both_right", "Still right", "Unchanged", "note"),
    ("best", "Highest scores of all", "Highest scores of all", "good"),
)


def rows(report: Report) -> Html | None:
    """Return the section, or None where there is nobody to compare with."""
    changed = report.get("changed") or {}
    if not changed.get("against") or subject(report) is None:
        return None
    graded, counts = bool(changed.get("graded")), changed.get("counts", {})
    shown = [part for part in _PARTS if changed.get(part[0])]
    against = title_of(report, changed["against"])
    names = {"fixed": "higher", "broken": "lower"} if graded else {}
    tiles = [
        (f"rows {names.get(key, key)}", counts[key], f"against the {against}")
        for key in ("fixed", "broken")
        if key in counts
    ]
    if "both_wrong" in counts and not graded:
        tiles.append(("wrong before and after", counts["both_wrong"], ""))
    parts = [_part(report, part, graded) for part in shown]
    return html.section(
        "Row by row",
        html.stats(tiles),
        tools([(key, _short(right, grades, graded)) for key, right, grades, _ in shown]),
        *parts,
        lead="Read these: a number says how many, the rows say which. Struck through are words "
        "that only the answer before has, underlined those that only the answer now has.",
    )


def _short(right: str, grades: str, graded: bool) -> str:
    return (grades if graded else right).split(":")[0]


def tools(options: Sequence[tuple[str, str]]) -> Html:
    """Return the search; hidden until the script that serves it runs."""
    choices = "".join(f"<option value='{esc(key)}'>{esc(name)}</option>" for key, name in options)
    return Html(
        "<div class='tools' id='row-tools' role='search' hidden>"
        "<label>Find in rows <input type='search' id='row-find' autocomplete='off'></label>"
        f"<label>Show <select id='row-kind'><option value=''>all rows</option>{choices}</select>"
        "</label><output id='row-count' for='row-find row-kind'></output></div>"
    )


def _part(report: Report, part: tuple[str, str, str, Tone], graded: bool) -> Html:
    key, right, grades, tone = part
    changed = report["changed"]
    found, count = changed[key], changed.get("counts", {}).get(key)
    told = f"{len(found)} shown" if count is None else f"{count}"
    if count is not None and count > len(found):
        told = f"{count}, {len(found)} shown"
    word = _short(right, grades, graded)
    cards = "".join(_row(report, row, key, html.badge(tone, word)) for row in found)
    opened = " open" if key == "broken" else ""
    return Html(
        f"<details class='rows'{opened}><summary>{esc(grades if graded else right)} ({told})"
        f"</summary>{cards}</details>"
    )


def _row(report: Report, row: Mapping[str, Any], kind: str, badge: Html) -> Html:
    ours, against = subject(report) or "", report["changed"]["against"]
    answers, scores = row.get("answers", {}), row.get("scores", {})
    before, after = marked(answers.get(against), answers.get(ours))
    label = f"<span class='soft'>{esc(row['label'])}</span>" if row.get("label") else ""
    why = f"<p class='soft'>{esc(clip(row['why']))}</p>" if row.get("why") else ""
    head = Html(f"{badge} <code>{esc(str(row.get('id', ''))[:12])}</code> {label}")
    cells = [
        answer("right answer", None, text_of(row.get("expected"))),
        answer(f"before: {short_title(report, against)}", scores.get(against), before),
        answer(f"now: {short_title(report, ours)}", scores.get(ours), after),
    ]
    rest = [name for name in answers if name not in (ours, against)]
    others = "".join(
        answer(short_title(report, name), scores.get(name), text_of(answers[name])) for name in rest
    )
    more = (
        f"<details><summary>Other candidates</summary><dl>{others}</dl></details>" if others else ""
    )
    return card(kind, head, row.get("input"), cells, f"{why}{more}")


def card(kind: str, head: Html, asked: object, answers: Sequence[str], rest: str = "") -> Html:
    """Return one row: its head, what was asked, the answers side by side, and `rest` as it is."""
    return Html(
        f"<div class='row' data-kind='{esc(kind)}'><p class='row-head'>{head}</p>"
        f"<div class='quote' dir='auto'>{esc(clip(asked, _INPUT))}</div>"
        f"<dl>{''.join(answers)}</dl>{rest}</div>"
    )


def answer(name: str, score: float | None, text: Html) -> Html:
    """Return an answer under the name of who gave it, with its score."""
    mark = ""
    if score is not None:
        word = {0.0: "✗ wrong", 1.0: "✓ right"}.get(float(score), f"score {figure(score)}")
        mark = f" <span class='score'>{esc(word)}</span>"
    return Html(f"<div><dt>{esc(name)}{mark}</dt><dd dir='auto'>{text}</dd></div>")


def text_of(text: str | None) -> Html:
    """Return an answer's text for the page, and what stands for none."""
    if text is None:
        return Html("<span class='soft'>–</span>")
    return esc(clip(text)) if text else Html("<span class='soft'>(empty)</span>")


def clip(text: object, limit: int = _CLIP) -> str:
    """Return a text cut where it is too long for the page, and say by how much."""
    whole = "" if text is None else str(text)
    if len(whole) <= limit:
        return whole
    return f"{whole[:limit]}… ({len(whole) - limit:,} more characters)"


def marked(old: str | None, new: str | None) -> tuple[Html, Html]:
    """Return both answers with the words marked that only one of them has."""
    if not old or not new or old == new:
        return text_of(old), text_of(new)
    one, two = _TOKEN.findall(clip(old)), _TOKEN.findall(clip(new))
    if max(len(one), len(two)) > _WORDS:
        return text_of(old), text_of(new)
    pieces = _differences(one, two)
    same = sum(len(a) for kind, a, _ in pieces if kind == "equal" and not a.isspace())
    if same < _ALIKE * max(len("".join(one)), len("".join(two))):
        return text_of(old), text_of(new)
    left: list[object] = []
    right: list[object] = []
    for kind, gone, come in pieces:
        left.append(gone if kind == "equal" else _tag("del", gone))
        right.append(come if kind == "equal" else _tag("ins", come))
    return html.join(left), html.join(right)


def _differences(one: Sequence[str], two: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (kind, text of one, text of two) piece by piece; kind is equal, or what changed."""
    from rapidfuzz.distance import LCSseq

    return [
        (op.tag, "".join(one[op.src_start : op.src_end]), "".join(two[op.dest_start : op.dest_end]))
        for op in LCSseq.opcodes(one, two)
    ]


def _tag(name: str, text: str) -> Html:
    return Html(f"<{name}>{esc(text)}</{name}>") if text.strip() else esc(text)
