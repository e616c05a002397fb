"""The page's charts of quality: scores, differences, classes, confusions. It reads the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, figure
from tutelage.core.html_strips import (
    Line,
    Scale,
    bar,
    chart,
    interval,
    limit,
    scale_over,
    shares,
    tick,
    whisker,
)
from tutelage.evaluation.candidates import BASE, CONSTRAINED, FEW_SHOT, TFIDF
from tutelage.evaluation.measures import lower_is_better
from tutelage.evaluation.report_plots import confusion_matrix, mix_ups, most_confused
from tutelage.evaluation.report_words import (
    MEANING,
    Report,
    amount,
    axis_text,
    between,
    by_name,
    change,
    is_share,
    limits,
    metric_name,
    metrics_of,
    short_title,
    subject,
    title_of,
    with_interval,
)

_LABELS = 24  # a confusion matrix of more labels shows the confused ones only
_CLASSES, _WEAKEST = 30, 20  # beyond so many classes only the weakest are drawn at once
_GREY, _ACCENT = 5, 0


def scores(report: Report) -> Html:
    """Return who scores what: the primary metric for all, the others for the free answers."""
    metrics = metrics_of(report)
    if not metrics:
        return Html("")
    primary, *rest = metrics
    free = [c for c in report["candidates"] if c.get("usage")] or list(report["candidates"])
    beside = [c for c in report["candidates"] if c not in free]
    body: list[object] = [_score_chart(report, primary, free)]
    if any(primary in c["metrics"] for c in beside):
        trained = any(c["name"] == TFIDF for c in beside)
        small = ", and a small classifier trained on the same rows" if trained else ""
        body += [
            Html("<h3>For comparison: no free writing</h3>"),
            html.paragraph(
                "The same models when they may only pick a label from the list, so that no answer "
                f"is lost to its format{small}."
            ),
            _score_chart(report, primary, beside),
        ]
    for metric in rest:
        note = MEANING.get(metric) or ("less is better" if lower_is_better(metric) else None)
        body.append(Html(f"<h3>{html.esc(metric_name(metric).capitalize())}</h3>"))
        if note:
            body.append(html.paragraph(f"{note.capitalize()}."))
        body.append(_score_chart(report, metric, free))
    body.append(html.details("All figures as a table", _metrics(report)))
    sure = f"{report['primary'].get('confidence', 0.95) * 100:g} %"
    return html.section(
        f"Who scores what: {metric_name(primary)}",
        *body,
        lead=f"{_explained(primary)}The bar is the score on the test rows. The line is where the "
        f"true score lies with {sure} confidence: the fewer rows, the longer the line.",
    )


def _explained(metric: str) -> str:
    return f"A row counts when {MEANING[metric]}. " if metric in ("accuracy", "exact_match") else ""


def _score_chart(
    report: Report,
    metric: str,
    candidates: Sequence[Mapping[str, Any]],
) -> Html:
    """Return a metric of the given candidates: bars with intervals, the one on trial in colour."""
    found = [(c, c["metrics"][metric]) for c in candidates if metric in c.get("metrics", {})]
    found = [(c, f) for c, f in found if f.get("estimate") is not None]
    share = is_share(report, metric)
    scale = _scale([v for _, f in found for v in _ends(f)], share)
    ours = subject(report)
    lines = []
    for candidate, figures in found:
        strong = candidate["name"] in (ours, f"{ours}{CONSTRAINED}")
        low, middle, high = _ends(figures)
        colour = _ACCENT if strong else _GREY
        marks = [*bar(scale, middle, colour), *whisker(scale, low, high)]
        cells = (
            candidate["title"],
            amount(middle, share),
            between(low, high, share),
            figure(figures.get("n", "–")),
        )
        lines.append(Line(cells, marks, strong))
    return chart(
        f"{metric_name(metric)} of every candidate with its interval",
        ["candidate", "score", "interval", "rows"],
        lines,
        scale,
    )


def _ends(figures: Mapping[str, Any]) -> tuple[float, float, float]:
    middle = float(figures["estimate"])
    low, high = figures.get("low"), figures.get("high")
    return (middle if low is None else low), middle, (middle if high is None else high)


def _scale(values: Sequence[float], share: bool, references: Sequence[float] = ()) -> Scale:
    return shares(references=references) if share else scale_over([0.0, *values])


def differences(report: Report) -> Html | None:
    """Return the candidate on trial minus every other, with intervals, against 0 and the limit."""
    found = [c for c in report.get("comparisons", ()) if c.get("estimate") is not None]
    if not found:
        return None
    body: list[object] = []
    primary = report["primary"]["metric"]
    for metric in dict.fromkeys(c.get("metric", primary) for c in found):
        if metric != primary:
            body.append(Html(f"<h3>{html.esc(metric_name(metric).capitalize())}</h3>"))
        mine = [c for c in found if c.get("metric", primary) == metric]
        body.append(_differences(report, metric, mine))
    body.append(html.details("Tests and power", _tests(report, found)))
    return html.section(
        "Is the difference real?",
        *body,
        lead=f"The {title_of(report, subject(report))} minus each other candidate, on the same "
        "rows. The dashed line is no difference: an interval that touches it may be luck, one "
        "wholly to its right is a gain, one wholly to its left a loss. A red dashed line is the "
        "loss that a criterion allows.",
    )


def _differences(report: Report, metric: str, found: Sequence[Mapping[str, Any]]) -> Html:
    share = is_share(report, metric)
    held = {other: at for (other, on), at in limits(report).items() if on == metric}
    ends = [v for c in found for v in _ends(c)]
    ends += [held[c["other"]] for c in found if c.get("other") in held]
    scale = scale_over(
        ends,
        references=[0.0],
        text=lambda v: axis_text(v, share),
    )
    lines = []
    for c in found:
        low, middle, high = _ends(c)
        good = "good" if low > 0 else "bad" if high < 0 else "warn"
        word = {"good": "better", "bad": "worse", "warn": "open"}[good]
        cells = (
            f"against {c.get('title') or title_of(report, c.get('other'))}",
            change(middle, share),
            f"{change(low, share)} to {change(high, share)}",
            f"{c.get('wins', '–')} / {c.get('losses', '–')}",
            word,
        )
        marks = interval(scale, low, middle, high, good)
        if c.get("other") in held:
            marks += limit(scale, held[c["other"]])
        lines.append(Line(cells, marks))
    unit = "points" if share else "difference"
    headers = ["difference", unit, "interval", "better / worse rows", "reading"]
    return chart(f"differences in {metric_name(metric)} with intervals", headers, lines, scale)


def _tests(report: Report, found: Sequence[Mapping[str, Any]]) -> Html:
    primary = report["primary"]["metric"]
    rows = []
    for c in found:
        share = is_share(report, c.get("metric", primary))
        detectable = c.get("detectable")
        rows.append(
            (
                c.get("title") or title_of(report, c.get("other")),
                metric_name(c.get("metric", primary)),
                c.get("n", "–"),
                c.get("clusters", "–"),
                _p(c.get("p")),
                _p(c.get("p_holm")),
                "–" if detectable is None else change(detectable, share, 1).lstrip("+"),
            )
        )
    headers = ["against", "metric", "rows", "clusters", "p", "p, Holm", "smallest detectable"]
    return html.table(headers, rows)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _metrics(report: Report) -> Html:
    """Return every figure: a line a metric, a column a candidate."""
    candidates = report["candidates"]
    rows = [
        (metric_name(m), *(with_interval(report, m, c["metrics"].get(m)) for c in candidates))
        for m in metrics_of(report)
    ]
    extra = dict.fromkeys(n for c in candidates for n in c.get("extra") or {})
    rows += [
        (metric_name(n), *(amount((c.get("extra") or {}).get(n), False) for c in candidates))
        for n in extra
    ]
    missing = [
        max((f.get("unscored") or 0 for f in c["metrics"].values()), default=0) for c in candidates
    ]
    rows.append(("rows without a score, at most", *map(str, missing)))
    return html.table(["metric", *(short_title(report, c["name"]) for c in candidates)], rows)


def classes(report: Report) -> Html | None:
    """Return F1 class by class, and what is taken for what."""
    candidates = by_name(report)
    ours = subject(report) or BASE
    shown = candidates.get(ours) or next(iter(candidates.values()), None)
    if not shown or not shown.get("per_class"):
        return None
    bars = html.section(
        "Class by class",
        *_class_charts(report, shown),
        lead="F1, the balance of finding a class and not crying wolf. With few rows in a class its "
        "bar is rough.",
    )
    matrix = shown.get("confusion")
    return html.join([bars, _confusion(shown, matrix) if matrix else ""])


def _class_charts(report: Report, shown: Mapping[str, Any]) -> list[Html]:
    """Return one chart, best class first; of many classes the weakest, and all on a click."""
    entries = [e for e in shown["per_class"] if e.get("support")]
    entries.sort(key=lambda e: (-e["f1"], e["label"]))
    if len(entries) <= _CLASSES:
        return [_class_chart(report, shown, entries)]
    weakest = _class_chart(report, shown, entries[: -_WEAKEST - 1 : -1])
    return [
        Html(f"<h3>The {_WEAKEST} weakest of {len(entries)}, the weakest first</h3>"),
        weakest,
        html.details(f"All {len(entries)} classes", _class_chart(report, shown, entries)),
    ]


def _class_chart(
    report: Report, shown: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> Html:
    candidates = by_name(report)
    others = [
        candidates[name]
        for name in (BASE, FEW_SHOT)
        if name in candidates and name != shown["name"] and candidates[name].get("per_class")
    ]
    their = [{e["label"]: e["f1"] for e in c["per_class"]} for c in others]
    scale = Scale((0.0, 0.25, 0.5, 0.75, 1.0), lambda v: f"{v:g}")
    lines = []
    for entry in entries:
        marks = bar(scale, entry["f1"], _ACCENT)
        values = [given.get(entry["label"], 0.0) for given in their]
        for k, value in enumerate(values):
            marks += tick(scale, value, k + 1)
        cells = [entry["label"], f"{entry['f1']:.2f}", *(f"{v:.2f}" for v in values)]
        lines.append(Line([*cells, entry["support"]], marks))
    titles = [short_title(report, c["name"]) for c in (shown, *others)]
    headers = ["class", *titles, "rows"]
    return html.join([_key(titles), chart("F1 of every class", headers, lines, scale)])


def _key(titles: Sequence[str]) -> Html:
    """Return the key: the first series is a bar, the others upright ticks."""
    items = []
    for i, title in enumerate(titles):
        mark = f"<i class='b{i} {'key-tick' if i else ''}'></i>"
        items.append(f"<span>{mark}{html.esc(title)}</span>")
    return Html(f"<div class='legend'>{''.join(items)}</div>")


def _confusion(shown: Mapping[str, Any], matrix: Mapping[str, Any]) -> Html:
    labels, counts = matrix["labels"], matrix["counts"]
    pairs = mix_ups(labels, counts)
    left, note = list(range(len(labels))), ""
    if len(labels) > _LABELS:
        left = most_confused(labels, counts, _LABELS)
        note = (
            f" Of {len(labels)} labels the {len(left)} most often confused are drawn; "
            "“others” holds the rest."
        )
    drawn = confusion_matrix(labels, counts, left)
    rows = [(truth, given, n, f"of {total}") for truth, given, n, total in pairs[:15]]
    more = f", {len(pairs)} in all" if len(pairs) > len(rows) else ""
    table = html.table(["truth", "answered", "rows", "of the class"], rows) if rows else ""
    return html.section(
        "What is taken for what",
        drawn,
        Html(f"<h3>Most frequent mix-ups{more}</h3>") if rows else "",
        table or html.paragraph("Nothing is mixed up."),
        lead=f"The {shown['title']}: a line is the truth, a column its answer. Right answers lie "
        f"on the diagonal, in green; mistakes are red, the darker the more of the class.{note}",
    )
