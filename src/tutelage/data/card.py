"""The report of a dataset version: one page for a domain expert, one text for the terminal.

Built from the manifest and the rows alone; it decides nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.leak_page import certificates, lineage

_CLUSTERS = 6  # largest clusters shown
_MEMBERS = 5
_ROWS = 12  # left-out rows shown
_TONES: dict[str, html.Tone] = {"error": "bad", "warning": "warn", "note": "note"}

Sides = Mapping[SplitName, Sequence[Example]]


def text_report(manifest: Mapping[str, Any]) -> str:
    """Return the summary as lines for a terminal."""
    counts, leak = manifest["counts"], manifest["leak"]
    lines = [
        ", ".join(f"{counts[split]:,} {split}" for split in SPLITS) + " rows",
        f"leaks: {_leak_sentence(leak)}",
        f"near-duplicate clusters: {manifest['clusters']['count']:,}, "
        f"the largest of {manifest['clusters']['largest']:,} rows; each stays on one side",
    ]
    lines += [f"read {line}" for line in manifest["detected"]]
    lines += [
        f"{entry['severity']:<8}{entry['count']:>5}  {entry['what']} [{entry['id']}]"
        for entry in manifest["findings"]
    ]
    return "\n".join(lines) + "\n"


def html_report(
    manifest: Mapping[str, Any],
    sides: Sides,
    clusters: Mapping[str, str],
    parts: Sequence[html.Html] = (),
) -> str:
    """Return the page: verdict first, then balance, lengths, findings, what was left, sources.

    `parts` are what the single inspections show (duplicates, labels, identifiers, experts).
    """
    counts, leak = manifest["counts"], manifest["leak"]
    total = sum(counts.values())
    clean = leak["exact"] == 0 and leak["near"] == 0
    sections = [
        html.verdict(
            "good" if clean else "bad",
            "Nothing leaks from train to test" if clean else "Test rows have twins in train",
            _leak_sentence(leak),
        ),
        html.stats(
            [
                ("rows", f"{total:,}", "in this version"),
                *(
                    (split, f"{counts[split]:,}", f"{counts[split] / total:.0%}")
                    for split in SPLITS
                ),
                ("left out", f"{manifest['lost']['dropped']:,}", "duplicates and twins"),
                ("quarantine", f"{manifest['lost']['quarantined']:,}", "wait for a person"),
            ]
        ),
        *_balance(sides),
        _lengths(sides),
        _findings(manifest["findings"]),
        *parts,
        _clusters(sides, clusters),
        *certificates(manifest),
        _left_out(manifest["left_out"]),
        *lineage(manifest),
        html.section(
            "Where the rows come from",
            html.table(("source",), [(line,) for line in manifest["detected"]]),
        ),
    ]
    return html.page(
        f"{manifest['project']}: dataset {manifest['hash'][:12]}",
        [section for section in sections if section],
        subtitle="What is in this version, what stayed out, and why it can be trusted.",
        footer=f"Frozen {manifest['created_at'][:19]} UTC. Rows are added to later versions; "
        "none of these changes its side.",
    )


def _leak_sentence(leak: Mapping[str, Any]) -> str:
    return (
        f"{leak['test_rows']:,} test rows compared with {leak['train_rows']:,} train rows: "
        f"{leak['exact']:,} exact twins, {leak['near']:,} near twins "
        f"(cosine of character n-grams ≥ {leak['threshold']:g})"
    )


def _balance(sides: Sides) -> list[html.Html]:
    labels = Counter(row.label for rows in sides.values() for row in rows if row.label is not None)
    if not labels:
        return []
    split = {name: Counter(row.label for row in sides[name]) for name in SPLITS}
    rows = [
        (str(label), [split[name][label] for name in SPLITS]) for label, _ in labels.most_common(40)
    ]
    return [
        html.section(
            "Labels",
            html.stacked(rows, SPLITS, unit=" rows"),
            lead="Each label should have rows on every side; short bars are where more rows help.",
        )
    ]


def _lengths(sides: Sides) -> html.Html:
    rows = [row for name in SPLITS for row in sides[name]]
    return html.grid(
        html.section(
            "Length of inputs",
            html.histogram([len(row.input_text) for row in rows], x_label="characters", width=400),
        ),
        html.section(
            "Length of answers",
            html.histogram(
                [len(row.answer or "") for row in rows], x_label="characters", width=400
            ),
        ),
    )


def _findings(findings: Sequence[Mapping[str, Any]]) -> html.Html:
    if not findings:
        return html.section("Findings", html.paragraph("Nothing to report."))
    rows = [
        (
            html.badge(_TONES[entry["severity"]], entry["severity"]),
            entry["count"],
            html.join([entry["what"], html.Html("<br>"), _examples(entry)]),
            entry["fix"],
            html.code(entry["id"]),
        )
        for entry in findings
    ]
    return html.section(
        "Findings",
        html.table(("", "rows", "what", "what to do", "id"), rows),
        lead="Errors left the row out; warnings and notes kept it.",
    )


def _examples(entry: Mapping[str, Any]) -> html.Html:
    shown = [
        f"{example['where']}: {example['detail']}" if example["where"] else example["detail"]
        for example in entry["examples"][:2]
    ]
    return html.join([html.Html("<small>"), "; ".join(shown)[:240], html.Html("</small>")])


def _clusters(sides: Sides, clusters: Mapping[str, str]) -> html.Html:
    grouped: dict[str, list[tuple[str, Example]]] = defaultdict(list)
    for name in SPLITS:
        for row in sides[name]:
            grouped[clusters.get(row.id, row.id)].append((name, row))
    largest = sorted((g for g in grouped.values() if len(g) > 1), key=len, reverse=True)
    if not largest:
        return html.Html("")
    body = [
        html.details(
            f"{len(group)} rows in {group[0][0]}: {group[0][1].input_text[:80]}",
            html.table(
                ("row", "label"),
                [(row.input_text[:200], row.label or "") for _, row in group[:_MEMBERS]],
            ),
        )
        for group in largest[:_CLUSTERS]
    ]
    return html.section(
        "Kept on one side",
        *body,
        lead=f"{len(largest):,} clusters of rows that are close in letters or share a group. Each "
        "is on one side of the split, or the test would be too easy.",
    )


def _left_out(rows: Sequence[Mapping[str, Any]]) -> html.Html:
    if not rows:
        return html.Html("")
    shown = [
        (f"{row['file']}:{row['line']}" if row["line"] else row["file"], row["reason"])
        for row in rows[:_ROWS]
    ]
    lead = f"{len(rows):,} rows; the rest is in quarantine.jsonl and dropped.jsonl."
    return html.section("Left out, and why", html.table(("where", "why"), shown), lead=lead)
