"""Clusters of duplicates as HTML: contradictions first, each cluster opens, differences marked.

Built from core/html.py; it decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from tutelage.core import html
from tutelage.core.example import normalise
from tutelage.data.dedup.view import KINDS, Cluster, Kind, Member

SHOWN = 200  # clusters on a page; the rest is counted
_MEMBERS = 60  # rows of one cluster on a page
_WHAT: dict[Kind, tuple[str, str]] = {
    "exact": ("Exact", "One input, apart from case and spaces. Copies were left out."),
    "near": ("Near", "The same but for typos, the order of words, or a small word."),
    "semantic": ("Similar", "Close in meaning. Similar is not the same: look before you decide."),
}
_TOKEN = re.compile(r"\s+|[^\W_]+(?:['’][^\W_]+)*|.", re.DOTALL)


def sections(found: Sequence[Cluster], shown: int = 8) -> list[html.Html]:
    """Return what a report says of duplicates: the counts, and the first clusters to look at."""
    if not found:
        return [html.section("Duplicates", html.paragraph("No two rows say the same."))]
    parts: list[object] = [
        html.table(("kind", "clusters", "rows", "contradictions"), _counts(found))
    ]
    parts += [_cluster(cluster) for cluster in found[:shown]]
    if len(found) > shown:
        rest = f"{len(found) - shown:,} more: `tutelage data dedup --html` shows them."
        parts.append(html.paragraph(rest))
    return [
        html.section(
            "Duplicates",
            *parts,
            lead="Rows that say the same. Where their answers differ, one of them may be wrong.",
        )
    ]


def page(found: Sequence[Cluster], *, project: str, shown: int = SHOWN) -> str:
    """Return the whole page of the first `shown` clusters, by kind, contradictions on top."""
    wrong = [cluster for cluster in found if cluster.contradictory]
    top = html.verdict(
        "warn" if wrong else "good",
        f"{_several(len(wrong), 'cluster')} with different labels"
        if wrong
        else "No contradictions",
        "Rows that say the same should have the same answer. Ask an expert which one is right."
        if wrong
        else "Rows that say the same have the same label.",
    )
    body = [top, html.table(("kind", "clusters", "rows", "contradictions"), _counts(found))]
    listed = list(found[:shown])
    body += _group("Contradictions", "The same words under different labels.", wrong[:shown])
    for kind in KINDS:
        title, lead = _WHAT[kind]
        body += _group(title, lead, [c for c in listed if c.kind == kind and not c.contradictory])
    left = len(found) - len(listed)
    return html.page(
        f"{project}: duplicates",
        body,
        subtitle="Each cluster opens. Words that differ from its first row are marked.",
        footer=f"{left:,} smaller clusters are not on this page." if left else "",
    )


def difference(base: str, other: str) -> html.Html:
    """Return `other` with the words marked that `base` has not, and those it lost struck out."""
    one, two = _TOKEN.findall(base), _TOKEN.findall(other)
    plain = SequenceMatcher(None, [normalise(w) for w in one], [normalise(w) for w in two], False)
    parts: list[object] = []
    for kind, i0, i1, j0, j1 in plain.get_opcodes():
        gone, new = "".join(one[i0:i1]), "".join(two[j0:j1])
        if kind == "equal":
            parts.append(new)
            continue
        if gone.strip():
            parts.append(html.Html(f"<del>{html.esc(gone)}</del>"))
        parts.append(html.Html(f"<mark>{html.esc(new)}</mark>") if new.strip() else new)
    return html.join(parts)


def _group(title: str, lead: str, found: Sequence[Cluster]) -> list[html.Html]:
    if not found:
        return []
    return [html.section(title, *(_cluster(cluster) for cluster in found), lead=lead)]


def _cluster(cluster: Cluster) -> html.Html:
    first = cluster.members[0]
    rows = [_row(member, first) for member in cluster.members[:_MEMBERS]]
    left = len(cluster.members) - len(rows)
    labels = ", ".join(f"{_short(name)} × {n}" for name, n in list(cluster.labels.items())[:4])
    summary = f"{cluster.id} · {cluster.rows} rows · {labels} · {_short(first.example.input_text)}"
    return html.details(
        summary,
        html.table(("row", "side", "answer", "input"), rows),
        html.paragraph(f"{left:,} more rows") if left else "",
    )


def _row(member: Member, first: Member) -> tuple[object, ...]:
    row = member.example
    copies = f" and {_several(len(member.copies), 'copy', 'copies')}" if member.copies else ""
    place = html.join([html.code(row.id[:8]), f" {row.origin.source}{copies}"])
    text = row.input_text
    shown = text if member is first else difference(first.example.input_text, text)
    answer = row.label or row.answer or ""
    base = first.example.label or first.example.answer or ""
    tone: html.Tone = "note" if normalise(answer) == normalise(base) else "bad"
    return place, member.side, html.badge(tone, _short(answer)), shown


def _counts(found: Sequence[Cluster]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for kind in KINDS:
        own = [cluster for cluster in found if cluster.kind == kind]
        wrong = sum(cluster.contradictory for cluster in own)
        rows.append((_WHAT[kind][0], len(own), sum(c.rows for c in own), wrong))
    return rows


def _short(text: str, room: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"


def _several(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
