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

SHOWN = 100  # clusters of one group on a page; the rest is counted
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
    parts: list[object] = [_counts(found)]
    parts += [_cluster(cluster) for cluster in found[:shown]]
    if len(found) > shown:
        more = html.join(
            [
                f"{len(found) - shown:,} more: ",
                html.code("tutelage data dedup --html"),
                " shows them.",
            ]
        )
        parts.append(html.paragraph(more))
    return [
        html.section(
            "Duplicates",
            *parts,
            lead="Rows that say the same. Where their answers differ, one of them may be wrong.",
        )
    ]


def page(found: Sequence[Cluster], *, project: str, shown: int = SHOWN) -> str:
    """Return the whole page: contradictions on top, then by kind, `shown` clusters of each."""
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
    rest = [cluster for cluster in found if not cluster.contradictory]
    groups = [("Contradictions", "Rows that say the same under different labels.", wrong)]
    groups += [(*_WHAT[kind], [c for c in rest if c.kind == kind]) for kind in KINDS]
    body = [top, _counts(found)]
    for title, lead, clusters in groups:
        if clusters:
            body.append(_group(title, lead, clusters, shown))
    return html.page(
        f"{project}: duplicates",
        body,
        subtitle="Each cluster opens. Words that differ from its first row are marked.",
        footer="Decide on a cluster: tutelage data dedup --cluster ID --keep first",
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


def _group(title: str, lead: str, found: Sequence[Cluster], shown: int) -> html.Html:
    left = len(found) - shown
    more = html.paragraph(f"{left:,} more are not on this page.") if left > 0 else ""
    return html.section(title, *(_cluster(cluster) for cluster in found[:shown]), more, lead=lead)


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
    side = html.Html(f"<span style='white-space: nowrap'>{html.esc(member.side)}</span>")
    return place, side, html.badge(tone, _short(answer)), shown


def _counts(found: Sequence[Cluster]) -> html.Html:
    """Return the strip of figures: clusters of each kind, and those with several labels."""
    tiles: list[tuple[str, object, str]] = []
    for kind in KINDS:
        own = [cluster for cluster in found if cluster.kind == kind]
        rows = _several(sum(cluster.rows for cluster in own), "row")
        hint = f"{rows}, {sum(cluster.mixed for cluster in own):,} with several labels"
        tiles.append((f"{_WHAT[kind][0].lower()} clusters", f"{len(own):,}", hint))
    return html.stats(tiles)


def _short(text: str, room: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"


def _several(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
