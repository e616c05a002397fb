"""The evaluation as one page for a manager: the verdict first, then what carries it.

It reads the report document alone, so a page can be drawn again from evaluation.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.html import Html, Tone
from tutelage.evaluation.candidates import BASE, FEW_SHOT, TUNED
from tutelage.evaluation.gate import percent, points
from tutelage.evaluation.report_plots import confusion_matrix, grouped_bars, ladder, scores

Report = Mapping[str, Any]
_TONE: dict[str, Tone] = {"pass": "good", "fail": "bad", "not_enough_evidence": "warn"}
_WORD = {"pass": "Pass", "fail": "Fail", "not_enough_evidence": "Not enough evidence"}


def as_html(report: Report) -> str:
    """Return the whole page, self-contained."""
    parts = [
        _verdict(report), _tiles(report), _criteria(report), _scores(report), _forgetting(report),
        _changed(report), _classes(report), _cost(report), _method(report),
    ]  # fmt: skip
    count = f"{report['rows']} test rows the model never saw"
    return html.page(
        f"{report['name']}: is the tuned model better?",
        [part for part in parts if part],
        subtitle=f"Evaluation on {count}, {report['task']}",
        footer="Every figure was computed in this run. Made by Tutelage.",
    )


def _by_name(report: Report) -> dict[str, Mapping[str, Any]]:
    return {candidate["name"]: candidate for candidate in report["candidates"]}


def _verdict(report: Report) -> Html:
    verdict, primary = report["verdict"], report["primary"]
    details = []
    if primary["difference"] is not None:
        other = {BASE: "the base model", FEW_SHOT: "the base model with examples in its prompt"}
        details.append(
            f"{primary['metric'].capitalize().replace('_', ' ')}: {percent(primary['tuned'])}, "
            f"against {percent(primary[primary['against']])} for {other[primary['against']]}. "
            f"That is {points(primary['difference'])} points, and between "
            f"{points(primary['difference_low'])} and {points(primary['difference_high'])} with "
            f"{percent(primary['confidence'])} confidence."
        )
    details += report["notes"]
    tone = _TONE[verdict["outcome"]]
    return html.verdict(tone, f"{_WORD[verdict['outcome']]}. {verdict['sentence']}", *details)


def _tiles(report: Report) -> Html:
    primary, found = report["primary"], report["forgetting"]
    metric = primary["metric"].replace("_", " ")
    tiles: list[tuple[str, object, str]] = []
    for key, label in ((BASE, "base model"), (FEW_SHOT, "base + examples"), (TUNED, "tuned model")):
        if primary[key] is not None:
            tiles.append((label, percent(primary[key]), metric))
    if found:
        n = found["accuracy_drop"]["n"]
        after = round(found["tuned_accuracy"]["estimate"] * n)
        before = round(found["base_accuracy"]["estimate"] * n)
        tiles.append(("general questions right", f"{before} → {after}", f"of {n}, base → tuned"))
    cost = _by_name(report).get(TUNED, {}).get("usage")
    if cost:
        tiles.append(("an answer takes", f"{cost['p50_ms']:,.0f} ms", "median, in this evaluation"))
    return html.stats(tiles)


def _criteria(report: Report) -> Html:
    rows = [
        (html.badge(_TONE[c["outcome"]], _WORD[c["outcome"]]), c["name"], c["sentence"])
        for c in report["verdict"]["criteria"]
    ]
    if not rows:
        return Html("")
    return html.section(
        "What decided",
        html.table(["", "criterion", "evidence"], rows),
        lead="All must pass. A criterion passes when its whole interval is on the right side of "
        "its limit; if the interval straddles the limit, the answer is “not enough evidence”. Time "
        "fails only what is surely slower: live traffic measures it again.",
    )


def _scores(report: Report) -> Html:
    metric = report["primary"]["metric"]
    rows = []
    for candidate in report["candidates"]:
        score = candidate["metrics"][metric]
        if score["estimate"] is not None:
            rows.append((candidate["title"], score["low"], score["estimate"], score["high"]))
    free = [r for r, c in zip(rows, report["candidates"], strict=False) if c["usage"]]
    beside = [r for r in rows if r not in free]
    body: list[object] = [scores(free, strong="tuned model")]
    if beside:
        body += [
            Html("<h3>For comparison: no free writing</h3>"),
            html.paragraph(
                "The same models when they may only pick a label from the list, so no answer is "
                "lost to its format, and a small classifier trained on the same rows."
            ),
            scores(beside, strong="tuned model, label list"),
        ]
    body.append(html.details("Differences and tests", _tests(report), _metrics(report)))
    return html.section(
        f"Who scores what: {metric.replace('_', ' ')}",
        *body,
        lead="The bar is the score on the test rows; the line is where the true score lies with "
        f"{percent(report['primary']['confidence'])} confidence.",
    )


def _tests(report: Report) -> Html:
    rows = [
        (
            f"tuned − {c['title']}",
            points(c["estimate"], 1),
            f"{points(c['low'], 1)} … {points(c['high'], 1)}",
            f"{c['wins']} / {c['losses']}",
            _p(c["p"]),
            _p(c["p_holm"]),
            "–" if c["detectable"] is None else f"{c['detectable'] * 100:.0f}",
        )
        for c in report["comparisons"]
    ]
    headers = ["difference", "points", "interval", "better / worse rows", "p", "p, Holm",
               "detectable, points"]  # fmt: skip
    return html.table(headers, rows)


def _metrics(report: Report) -> Html:
    names = list(report["candidates"][0]["metrics"])
    extra = list(report["candidates"][0]["extra"])
    rows = []
    for candidate in report["candidates"]:
        cells = [_share(candidate["metrics"][n]["estimate"]) for n in names]
        cells += [f"{candidate['extra'].get(n, 0):.2f}" for n in extra]
        rows.append((candidate["title"], *cells, candidate["metrics"][names[0]]["unscored"]))
    headers = ["candidate", *(n.replace("_", " ") for n in [*names, *extra]), "unscored"]
    return html.table(headers, rows)


def _forgetting(report: Report) -> Html | None:
    found = report["forgetting"]
    if not found:
        return None
    chance, ratio = found["chance_drop"], found["perplexity_ratio"]
    n = found["accuracy_drop"]["n"]
    lead = (
        f"{n} plain questions and {ratio['n']} texts that have nothing to do with the task, "
        "before and after. An adapter can be switched off, so nothing here is lost for good."
    )
    body: list[object] = [
        scores(
            [
                _interval("questions right, base", found["base_accuracy"]),
                _interval("questions right, tuned", found["tuned_accuracy"]),
            ],
            strong="questions right, tuned",
        ),
        Html("<h3>Chances and language</h3>"),
        html.paragraph(
            f"Chance given to the right answer: {percent(found['base_chance'], 1)} before, "
            f"{percent(found['tuned_chance'], 1)} after "
            f"({points(-chance['estimate'], 1)} points, {points(-chance['high'], 1)} to "
            f"{points(-chance['low'], 1)}). Perplexity of general English: "
            f"{found['base_perplexity']:.1f} before, {found['tuned_perplexity']:.1f} after "
            f"(× {ratio['estimate']:.3f}, {ratio['low']:.3f} to {ratio['high']:.3f})."
        ),
        _questions("Right before, wrong now", found["lost"], "now says"),
    ]
    if found["gained"]:
        body.append(
            html.details(
                f"Wrong before, right now ({len(found['gained'])})",
                _questions("", found["gained"], "said before"),
            )
        )
    return html.section("What it forgot", *body, lead=lead)


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


def _interval(label: str, found: Mapping[str, Any]) -> tuple[str, float, float, float]:
    return (label, found["low"], found["estimate"], found["high"])


def _classes(report: Report) -> Html | None:
    candidates = _by_name(report)
    shown = candidates.get(TUNED) or candidates[BASE]
    if not shown["per_class"]:
        return None
    others = [candidates[n] for n in (BASE, FEW_SHOT) if n in candidates and TUNED in candidates]
    series = [shown, *others]
    rows = []
    for i, entry in enumerate(shown["per_class"]):
        if entry["support"]:
            values = [c["per_class"][i]["f1"] for c in series]
            plural = "" if entry["support"] == 1 else "s"
            rows.append((entry["label"], f"{entry['support']} row{plural}", values))
    rows.sort(key=lambda row: -row[2][0])
    bars = html.section(
        "Class by class",
        grouped_bars(rows, [c["title"] for c in series]),
        lead="F1, the balance of finding a class and not crying wolf. With few rows a class these "
        "bars are rough.",
    )
    matrix = html.section(
        "What is taken for what",
        confusion_matrix(shown["confusion"]),
        lead=f"The {shown['title']}: a line is the truth, a column its answer, green is right.",
    )
    return html.join([bars, matrix])


def _cost(report: Report) -> Html | None:
    written = [c for c in report["candidates"] if c["usage"]]
    if not written:
        return None
    times = [
        (c["title"], c["usage"]["p50_ms"], c["usage"]["p95_ms"], c["usage"]["p99_ms"])
        for c in written
    ]
    rows = [
        (
            c["title"],
            _ms(c["usage"]["first_token_p50_ms"]),
            _ms(c["usage"]["per_token_ms"]),
            f"{c['usage']['prompt_tokens']:.0f}",
            f"{c['usage']['completion_tokens']:.1f}",
            f"{min(c['lengths'])}–{max(c['lengths'])}",
            c["usage"]["cut"],
        )
        for c in written
    ]
    headers = ["candidate", "first token, median", "a token", "tokens in", "tokens out",
               "shortest–longest", "cut at the limit"]  # fmt: skip
    method = report["method"]
    return html.section(
        "Time and length of an answer",
        ladder(times),
        html.table(headers, rows),
        Html("<h3>Tokens an answer: median, 95th percentile, longest</h3>"),
        ladder([_lengths(c) for c in written], unit="tokens"),
        lead="Half, 95 % and 99 % of answers came within these times, "
        f"{method['batch_size']} at a time on this machine. The canary measures them again in "
        "production.",
    )


def _lengths(candidate: Mapping[str, Any]) -> tuple[str, float, float, float]:
    found = sorted(candidate["lengths"])
    last = len(found) - 1
    return candidate["title"], found[last // 2], found[round(last * 0.95)], found[last]


def _changed(report: Report) -> Html | None:
    changed = report["changed"]
    if not changed["against"]:
        return None
    counts = changed["counts"]
    against = _by_name(report)[changed["against"]]["title"]
    body: list[object] = []
    for key, heading in (
        ("broken", "Broken: right before, wrong now"),
        ("both_wrong", "Wrong before and after"),
        ("fixed", "Fixed: wrong before, right now"),
    ):
        more = f", {len(changed[key])} shown" if counts[key] > len(changed[key]) else ""
        summary = f"{heading} ({counts[key]}{more})"
        rows = _side_by_side(changed[key], changed["against"])
        opened = html.details(summary, rows)
        if key == "broken" and counts[key]:
            opened = Html(opened.replace("<details>", "<details open>", 1))
        body.append(opened)
    return html.section(
        "Row by row",
        html.stats(
            [
                ("rows fixed", counts["fixed"], f"against the {against}"),
                ("rows broken", counts["broken"], f"against the {against}"),
                ("wrong before and after", counts["both_wrong"], ""),
            ]
        ),
        *body,
        lead="Read these: a number says how many, the rows say which.",
    )


def _side_by_side(rows: Sequence[Mapping[str, Any]], against: str) -> Html:
    if not rows:
        return html.paragraph("None.")
    lines = [
        (
            row["input"],
            html.code(row["expected"]),
            html.code(row["answers"].get(against, "–") or "(empty)"),
            html.code(row["answers"].get(TUNED, "–") or "(empty)"),
            html.code(row["id"][:8]),
        )
        for row in rows
    ]
    names = {BASE: "base", FEW_SHOT: "base + examples"}
    return html.table(["input", "right answer", names[against], "tuned", "id"], lines)


def _method(report: Report) -> Html:
    method = report["method"]
    grouped = report["clusters"] < report["rows"]
    resampled = (
        f"{report['clusters']} clusters of near-duplicates and groups, drawn whole"
        if grouped
        else "every row by itself, since no two belong together"
    )
    versions = ", ".join(f"{name} {version}" for name, version in method["versions"].items())
    facts = [
        ("Rows", f"{report['rows']} frozen test rows; examples in prompts come from the "
         f"{method['train_rows']} train rows only ({len(method['few_shot'])} of them)."),
        ("Answers", f"Greedy, at most {method['max_new_tokens']} tokens, batches of "
         f"{method['batch_size']} at fixed places, the same for every candidate."),
        ("Intervals", "Scores of 0 and 1: Wilson. Differences: paired bootstrap with 10,000 "
         f"draws over {resampled}; for 0 and 1 widened to hold Tango's score interval."),
        ("Tests", "Mid-p McNemar where rows are independent, else sign flips over clusters; "
         "Holm's correction over all comparisons. The verdict needs both base comparisons, "
         "which needs no correction."),
        ("Forgetting", "Likelihood of four endings of a sentence, so nothing depends on how the "
         "model formats an answer. The gate reads the mean chance of the right ending, which "
         "needs far fewer questions than a count of right answers; a certain drop of the count "
         "fails the gate too."),
        ("Power", "“Detectable” is the smallest true difference that a set like this one finds "
         "in 80 % of tries."),
        ("Seed and versions", f"{method['seed']}; {versions}."),
    ]  # fmt: skip
    name_cell = "<b style='white-space:nowrap'>{}</b>"
    rows = [(Html(name_cell.format(html.esc(name))), text) for name, text in facts]
    return html.section("How this was measured", html.table(["", ""], rows))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)
