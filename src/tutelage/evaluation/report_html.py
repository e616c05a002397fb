"""The evaluation as one page for a manager: the verdict first, then what carries it.

It reads the report document alone, so a page can be drawn again from evaluation.json; keys that are
not there are left out of the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, esc
from tutelage.core.html_strips import interval, scale_over, strip, zone
from tutelage.evaluation.candidates import CONSTRAINED, TUNED
from tutelage.evaluation.report_figures import classes, differences, scores
from tutelage.evaluation.report_forgetting import forgetting
from tutelage.evaluation.report_rows import rows
from tutelage.evaluation.report_time import cost, lengths, times
from tutelage.evaluation.report_verdict import meaning, next_steps
from tutelage.evaluation.report_words import (
    MARK,
    TONE,
    UNKNOWN,
    WORD,
    Report,
    amount,
    by_name,
    is_share,
    metric_name,
    short_title,
    subject,
    title_of,
)

_TILES = 4  # candidates in the strip of figures
_COMMAND = re.compile(r"`([^`]+)`")


def as_html(report: Report) -> str:
    """Return the whole page, self-contained."""
    parts = [
        _verdict(report), _tiles(report), _criteria(report), scores(report), differences(report),
        forgetting(report), rows(report), classes(report), lengths(report), times(report),
        cost(report), _method(report),
    ]  # fmt: skip
    count = f"{report['rows']:,} test rows the model never saw"
    return html.page(
        f"{report['name']}: is the {title_of(report, subject(report) or TUNED)} better?",
        [part for part in parts if part],
        subtitle=f"Evaluation on {count}, {report['task']}",
        footer="Every figure was computed in this run. Made by Tutelage.",
        style=resource("report.css"),
        script=resource("report.js"),
    )


@cache
def resource(name: str) -> str:
    """Return a file of the page's own: report.css, report.js."""
    return files("tutelage.evaluation").joinpath(name).read_text(encoding="utf-8")


def _verdict(report: Report) -> Html:
    outcome = report["verdict"]["outcome"]
    body = [
        f"<p class='stamp'><i aria-hidden='true'>{MARK[outcome]}</i>{WORD[outcome]}</p>",
        f"<h2>{esc(report['verdict']['sentence'])}</h2>",
    ]
    meant = meaning(report)
    if meant:
        body.append("<h3>What it means</h3>")
        body += [html.paragraph(sentence) for sentence in meant]
    body.append(f"<h3>What to do next</h3><ol>{_items(next_steps(report))}</ol>")
    notes = list(report.get("notes") or ())
    if subject(report) and not report.get("forgetting"):
        notes.append(f"{UNKNOWN}.")
    if notes:
        body.append(f"<h3>Worth knowing</h3><ul>{_items(notes)}</ul>")
    return Html(f"<section class='card verdict {TONE[outcome]}'>{''.join(body)}</section>")


def _items(sentences: list[str]) -> str:
    """Return list items; what stands in back quotes is a command."""
    marked = (_COMMAND.sub(r"<code>\1</code>", esc(sentence)) for sentence in sentences)
    return "".join(f"<li>{item}</li>" for item in marked)


def _tiles(report: Report) -> Html:
    primary = report["primary"]
    metric, ours = primary["metric"], subject(report)
    share = is_share(report, metric)
    free = [c for c in report["candidates"] if c.get("usage") and c["name"] != ours]
    named = [c["name"] for c in free[: _TILES - 1]] + ([ours] if ours else [])
    tiles: list[tuple[str, object, str]] = []
    for name in named:
        value = by_name(report)[name]["metrics"].get(metric, {}).get("estimate")
        if value is not None:
            tiles.append((short_title(report, name), amount(value, share), metric_name(metric)))
    found = report.get("forgetting")
    if found:
        n = found["accuracy_drop"]["n"]
        after = round(found["tuned_accuracy"]["estimate"] * n)
        before = round(found["base_accuracy"]["estimate"] * n)
        tiles.append(("general questions right", f"{before} → {after}", f"of {n}, base → tuned"))
    usage = by_name(report).get(ours or "", {}).get("usage")
    if usage and usage.get("p50_ms") is not None:
        tiles.append(("an answer takes", f"{usage['p50_ms']:,.0f} ms", "median, in this test"))
    return html.stats(tiles) if tiles else Html("")


def _criteria(report: Report) -> Html:
    lines = [_criterion(c) for c in report["verdict"].get("criteria", ())]
    if not lines:
        return Html("")
    head = (
        "<thead><tr><th scope='col'>outcome</th><th scope='col'>criterion</th>"
        "<th scope='col'>interval and limit</th><th scope='col'>evidence</th></tr></thead>"
    )
    return html.section(
        "What decided",
        Html(f"<table class='criteria'>{head}<tbody>{''.join(lines)}</tbody></table>"),
        lead="All must pass. A criterion passes when its whole interval is on the right side of "
        "its limit, the dashed line; the green side is allowed. If the interval straddles the "
        "limit, the answer is “not enough evidence”. Time fails only what is surely slower: live "
        "traffic measures it again.",
    )


def _criterion(criterion: Mapping[str, Any]) -> str:
    outcome = criterion["outcome"]
    return (
        f"<tr><td>{html.badge(TONE[outcome], f'{MARK[outcome]} {WORD[outcome]}')}</td>"
        f"<th scope='row'>{esc(criterion['name'])}</th><td class='plot'>{_drawn(criterion)}</td>"
        f"<td>{esc(criterion['sentence'])}</td></tr>"
    )


def _drawn(criterion: Mapping[str, Any]) -> Html:
    """Return the criterion's interval against its limit, on a scale of its own."""
    figures = criterion.get("figures") or {}
    ends = [figures.get(k) for k in ("low", "estimate", "high")]
    if any(not isinstance(v, (int, float)) for v in ends):
        return Html("")
    low, middle, high = (float(v) for v in ends if v is not None)
    limit, above = _limit(criterion["name"], figures)
    room = 0.1 * ((max(high, limit) - min(low, limit)) or 1.0)
    scale = scale_over(
        [min(low, limit) - room, max(high, limit) + room], references=[limit], steps=20
    )
    end = scale.ticks[-1] if above else scale.ticks[0]
    marks = interval(scale, low, middle, high, TONE[criterion["outcome"]])
    return strip([*zone(scale, limit, end), *marks], scale)


def _limit(name: str, figures: Mapping[str, Any]) -> tuple[float, bool]:
    """Return a criterion's limit, and whether the good side is above it.

    Gains (better, not worse, at least) want to be above. Losses, times and ratios of two
    candidates want to be below; a ratio without a limit of its own is held against 1.
    """
    limit, ratio = figures.get("limit"), "metric" not in figures and "p" not in figures
    gain = name.startswith(("better", "not worse")) and not ratio
    above = gain or " at least " in name
    if isinstance(limit, (int, float)):
        return float(limit), above
    return (1.0 if ratio else 0.0), above


def _method(report: Report) -> Html:
    method = report.get("method", {})
    facts = [(name, text) for name, text in _facts(report, method) if text]
    items = "".join(f"<dt>{esc(name)}</dt><dd>{esc(text)}</dd>" for name, text in facts)
    return html.section("How this was measured", Html(f"<dl class='facts'>{items}</dl>"))


def _made_from(report: Report) -> dict[str, Any]:
    """Return what the result was made from: names and hashes."""
    who = report.get("candidate") or {}
    title = str(who.get("title") or "candidate")
    named = {title: str(who["hash"])[:12]} if who.get("hash") else {}
    return {**named, **(report.get("lineage") or {})}


def _facts(report: Report, method: Mapping[str, Any]) -> list[tuple[str, str]]:
    clusters = report.get("clusters", report["rows"])
    resampled = (
        f"{clusters:,} clusters of near-duplicates and groups, drawn whole"
        if clusters < report["rows"]
        else "every row by itself, since no two belong together"
    )
    versions = ", ".join(f"{k} {v}" for k, v in method.get("versions", {}).items())
    lineage = "; ".join(f"{k} {v}" for k, v in _made_from(report).items() if v)
    seconds = ", ".join(f"{k} {v:,.0f} s" for k, v in report.get("seconds", {}).items())
    shots = len(method.get("few_shot", ()))
    lists = any(c["name"].endswith(CONSTRAINED) for c in report["candidates"])
    return [
        ("Rows", f"{report['rows']:,} frozen test rows; examples in prompts come from the "
         f"{method.get('train_rows', 0):,} train rows only ({shots} of them)."),
        ("Answers", f"{str(method.get('decoding', 'greedy')).capitalize()}, at most "
         f"{method.get('max_new_tokens', '–')} tokens, batches of {method.get('batch_size', '–')} "
         "at fixed places, the same for every candidate."
         + (" “Label list” candidates pick the likeliest label instead." if lists else "")),
        ("Intervals", "Scores of 0 and 1: Wilson. Differences: paired bootstrap with 10,000 "
         f"draws over {resampled}; for 0 and 1 widened to hold Tango's score interval."),
        ("Tests", "Mid-p McNemar where rows are independent, else sign flips over clusters; "
         "Holm's correction over all comparisons. The verdict needs both base comparisons, "
         "which needs no correction."),
        ("Power", "“Smallest detectable” is the smallest true difference that a set like this "
         "one finds in 80 % of tries. It falls with the square root of the rows: four times the "
         "rows see half the difference."),
        ("Forgetting", "Likelihood of four endings of a sentence, so nothing depends on how the "
         "model formats an answer. The gate reads the mean chance of the right ending, which "
         "needs far fewer questions than a count of right answers; a certain drop of the count "
         "fails the gate too." if report.get("forgetting") else ""),
        ("Made from", lineage),
        ("Seed and versions", f"{method.get('seed', 0)}; {versions}."),
        ("Time taken", seconds),
    ]  # fmt: skip
