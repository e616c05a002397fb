"""The page's part on what tuning cost in general ability. It reads the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html
from tutelage.core.html_strips import Line, bar, chart, interval, limit, scale_over, shares
from tutelage.evaluation.criterion import percent, points
from tutelage.evaluation.report_words import Report, amount, axis_text, between

_TITLES = {
    "chance_drop": "chance of the right answer",
    "accuracy_drop": "right answers",
}


def forgetting(report: Report) -> Html | None:
    """Return the section, or None where nothing was measured."""
    found = report.get("forgetting")
    if not found:
        return None
    n, texts = found["accuracy_drop"]["n"], found["perplexity_ratio"]["n"]
    return html.section(
        "What it forgot",
        _answers(found),
        _changes(found, _limit(report)),
        _topics(found),
        _language(found),
        _more(found),
        _questions("Right before, wrong now", found.get("lost", ()), "now says"),
        _gained(found),
        lead=f"{n} plain questions and {texts} texts that have nothing to do with the task, before "
        "and after tuning. An adapter can be switched off, so nothing here is lost for good.",
    )


def _answers(found: Mapping[str, Any]) -> Html:
    scale = shares()
    lines = []
    for name, key, colour in (("base model", "base", 5), ("tuned model", "tuned", 0)):
        right = found[f"{key}_accuracy"]
        marks = [
            *bar(scale, right["estimate"], colour),
            *interval(scale, right["low"], right["estimate"], right["high"], colour)[:2],
        ]
        cells = (
            f"questions right, {name}",
            percent(right["estimate"]),
            between(right["low"], right["high"]),
            percent(found[f"{key}_chance"], 1),
        )
        lines.append(Line(cells, marks, key == "tuned"))
    headers = ["model", "right", "interval", "chance of the right answer"]
    return chart("general questions answered right", headers, lines, scale)


def _limit(report: Report) -> float | None:
    """Return the loss of the chance of the right answer that the gate allows."""
    for criterion in report.get("verdict", {}).get("criteria", ()):
        if criterion["name"] == "keeps general knowledge":
            found = (criterion.get("figures") or {}).get("limit")
            return None if found is None else float(found)
    return None


def _changes(found: Mapping[str, Any], allowed: float | None) -> Html:
    """Return the losses with their intervals, turned so that left is lost and right is gained.

    `allowed` is the loss of the chance that the gate allows; it is drawn in its row.
    """
    drops = [(key, found[key]) for key in ("chance_drop", "accuracy_drop") if found.get(key)]
    ends = [-v for _, d in drops for v in (d["low"], d["high"])]
    ends += [] if allowed is None else [-allowed]
    scale = scale_over(ends, references=[0.0], text=axis_text)
    lines = []
    for key, d in drops:
        low, middle, high = -d["high"], -d["estimate"], -d["low"]
        marks = interval(scale, low, middle, high, _tone(low, high))
        if key == "chance_drop" and allowed is not None:
            marks += limit(scale, -allowed)
        seen = "–" if d.get("detectable") is None else f"{d['detectable'] * 100:.1f}"
        interval_told = f"{points(low, 1)} to {points(high, 1)}"
        lines.append(Line((_TITLES[key], points(middle, 1), interval_told, seen), marks))
    head = Html("<h3>Change, in points: left of the grey line is a loss; red: the limit</h3>")
    headers = ["measure", "points", "interval", "smallest detectable"]
    return html.join([head, chart("what tuning changed", headers, lines, scale)])


def _tone(low: float, high: float) -> str:
    return "good" if low > 0 else "bad" if high < 0 else "warn"


def _topics(found: Mapping[str, Any]) -> Html:
    """Return the change of the chance of the right answer a topic, the worst first."""
    rows = [r for r in found.get("topics") or () if r.get("low") is not None]
    if not rows:
        return Html("")
    ends = [-float(r[k]) for r in rows for k in ("low", "drop", "high")]
    scale = scale_over(ends, references=[0.0], text=axis_text)
    lines = []
    for r in rows:
        low, middle, high = -r["high"], -r["drop"], -r["low"]
        tone = _tone(low, high) if r.get("sure") else "warn"
        cells = (
            r["topic"],
            points(middle, 1),
            f"{points(low, 1)} to {points(high, 1)}",
            f"{r.get('lost', '–')} / {r.get('gained', '–')}",
            r.get("questions", "–"),
            "sure" if r.get("sure") else "open",
        )
        lines.append(Line(cells, interval(scale, low, middle, high, tone)))
    head = Html("<h3>By topic: change of the chance of the right answer, in points</h3>")
    headers = ["topic", "points", "interval", "lost / gained", "questions", "reading"]
    return html.join([head, chart("changes a topic", headers, lines, scale)])


def _language(found: Mapping[str, Any]) -> Html:
    ratio, moved = found["perplexity_ratio"], found.get("kl")
    before, after = found["base_perplexity"], found["tuned_perplexity"]
    parts: list[object] = [
        Html("<h3>General English</h3>"),
        html.paragraph(
            f"Perplexity, how surprised the model is by ordinary text, lower is better: "
            f"{before:.1f} before, {after:.1f} after (× {ratio['estimate']:.3f}, "
            f"{ratio['low']:.3f} to {ratio['high']:.3f})."
        ),
    ]
    if moved and moved.get("estimate") is not None:
        parts.append(
            html.paragraph(
                f"KL divergence, how far its guesses for the next token moved from the base "
                f"model's: {moved['estimate']:.4f} nats a token ({max(0.0, moved['low']):.4f} to "
                f"{moved['high']:.4f}). 0 is not at all."
            )
        )
    return html.join(parts)


def _more(found: Mapping[str, Any]) -> Html:
    """Return measures of further probes: whatever has an estimate and is not drawn above."""
    drawn = {
        "base_accuracy",
        "tuned_accuracy",
        "accuracy_drop",
        "chance_drop",
        "perplexity_ratio",
        "kl",
    }
    rows = []
    for key, value in found.items():
        for name, figures in _estimates(key, value):
            if key not in drawn:
                ends = between(figures.get("low"), figures.get("high"), False)
                estimate = amount(figures["estimate"], False)
                rows.append((_title(name), estimate, ends, figures.get("n", "–")))
    if not rows:
        return Html("")
    head = Html("<h3>Further measures</h3>")
    return html.join([head, html.table(["measure", "estimate", "interval", "n"], rows)])


def _estimates(name: str, value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return every (name, figures) with an estimate inside a value, one level deep or two."""
    if isinstance(value, Mapping):
        if isinstance(value.get("estimate"), (int, float)):
            return [(str(value.get("name") or name), value)]
        inner = [(f"{name} {key}", v) for key, v in value.items()]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        inner = [(str(v.get("name") or name), v) for v in value if isinstance(v, Mapping)]
    else:
        return []
    return [
        (label.strip(), v)
        for label, v in inner
        if isinstance(v, Mapping) and isinstance(v.get("estimate"), (int, float))
    ]


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


def _questions(heading: str, items: Sequence[Mapping[str, Any]], instead: str) -> Html:
    title = f"<h3>{html.esc(heading)}</h3>" if heading else ""
    if not items:
        return Html(f"{title}<p>None of the questions.</p>")
    rows = [
        (f"{i['stem']} …", i["right"], i["instead"], percent(i["before"]), percent(i["after"]))
        for i in items
    ]
    table = html.table(["question", "right", instead, "chance before", "after"], rows)
    return Html(title + table)


def _gained(found: Mapping[str, Any]) -> Html:
    gained = found.get("gained") or ()
    if not gained:
        return Html("")
    title = f"Wrong before, right now ({len(gained)})"
    return html.details(title, _questions("", gained, "said before"))
