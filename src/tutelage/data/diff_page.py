"""The comparison of two dataset versions as text for a terminal and as a page for an expert.

Built from what diff.py found; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.example import SPLITS
from tutelage.data.diff import Changed, Placed, VersionDiff

_ROWS = 200  # rows of one kind on a page
_LINES = 5  # rows of one kind in a terminal
_LABELS = 40
_WIDTH = 80  # characters of a row's text in a terminal
_TONES: dict[str, html.Tone] = {"error": "bad", "warning": "warn", "note": "note"}


def text(found: VersionDiff) -> str:
    """Return the comparison as lines for a terminal."""
    counts = found.counts()
    lines = [
        f"{short(found.before)} → {short(found.after)}: {sentence(found)}",
        f"rows: {_sides(found.before)} → {_sides(found.after)}",
    ]
    for title, placed in (("added", found.added), ("removed", found.removed)):
        lines += _listed(title, [_line(item) for item in placed], counts[title])
    changes = [
        f"{_line(item.before)}  →  {_said(item)} ({item.after.why})" for item in found.changed
    ]
    lines += _listed("changed", changes, counts["changed"])
    moves = [
        f"{_line(item.before)}: {item.before.side} → {item.after.side}" for item in found.moved
    ]
    lines += _listed("moved", moves, counts["moved"])
    labels = [f"{name!r} {a:,} → {b:,}" for name, (a, b) in found.labels.items() if a != b]
    lines += _listed("labels", labels, len(labels))
    for item in found.lengths:
        drift = f", drifted (stability index {item.index:.2f})" if item.drifted else ""
        lines.append(
            f"length of {item.name}: median {item.median[0]:,.0f} → {item.median[1]:,.0f} "
            f"characters, 90 % under {item.high[0]:,.0f} → {item.high[1]:,.0f}{drift}"
        )
    lines += [
        f"{entry['severity']:<8}{entry['before']:,} → {entry['after']:,}  {entry['what']} "
        f"[{entry['id']}]"
        for entry in found.findings
    ]
    return "\n".join(lines) + "\n"


def sentence(found: VersionDiff) -> str:
    """Return what changed in one sentence."""
    if found.empty:
        return f"the same {found.same:,} rows on the same sides"
    parts = [
        f"{count:,} {name}"
        for name, count in found.counts().items()
        if count and name not in ("same", "moved")
    ]
    said = ", ".join(parts) or "no row added, removed or changed"
    moved = f"{len(found.moved):,} rows changed their side" if found.moved else "none moved"
    return f"{said}; {found.same:,} are the same, {moved}"


def page(found: VersionDiff, *, project: str) -> str:
    """Return the whole page."""
    before, after = short(found.before), short(found.after)
    return html.page(
        f"{project}: {before} to {after}",
        sections(found),
        subtitle="What changed from one dataset version to another.",
        footer=f"{before} was frozen {_date(found.before)}, {after} {_date(found.after)} UTC.",
    )


def sections(found: VersionDiff) -> list[html.Html]:
    """Return the cards of the page: the answer first, then rows, labels, lengths, findings."""
    counts = found.counts()
    tiles = [(name, f"{count:,}", "rows") for name, count in counts.items()]
    head = "Rows changed their side" if found.moved else "No row changed its side"
    parts = [
        html.verdict("bad" if found.moved else "good", head, sentence(found)),
        html.stats(tiles),
        _changed("Moved", found.moved) if found.moved else html.Html(""),
        _changed("Changed", found.changed),
        _placed("Added", found.added),
        _placed("Removed", found.removed),
        _labels(found.labels),
        _lengths(found),
        _findings(found.findings),
    ]
    return [part for part in parts if part]


def short(manifest: Mapping[str, Any]) -> str:
    """Return the name people type for a version."""
    return str(manifest["hash"])[:12]


def _placed(title: str, items: Sequence[Placed]) -> html.Html:
    if not items:
        return html.Html("")
    why = any(item.why for item in items)
    rows = [
        (
            html.code(item.row.id[:12]),
            item.side,
            item.row.input_text[:300],
            item.row.label or (item.row.answer or "")[:120],
            *([item.why] if why else []),
        )
        for item in items[:_ROWS]
    ]
    head = ("id", "side", "input", "label or answer", *(["why"] if why else []))
    return html.section(f"{title}: {_rows(len(items))}", html.table(head, rows), lead=_rest(items))


def _changed(title: str, items: Sequence[Changed]) -> html.Html:
    if not items:
        return html.Html("")
    rows = []
    for item in items[:_ROWS]:
        one, two = item.before.row, item.after.row
        same = one.input_text == two.input_text
        answers = (one.label or one.answer or "")[:120], (two.label or two.answer or "")[:120]
        rows.append(
            (
                item.after.side
                if item.before.side == item.after.side
                else f"{item.before.side} → {item.after.side}",
                one.input_text[:300],
                "the same" if same else two.input_text[:300],
                answers[0],
                "the same" if answers[0] == answers[1] else answers[1],
                item.after.why,
            )
        )
    head = ("side", "input before", "input now", "answer before", "answer now", "how")
    return html.section(f"{title}: {_rows(len(items))}", html.table(head, rows), lead=_rest(items))


def _labels(labels: Mapping[str, tuple[int, int]]) -> html.Html:
    moved = [(name, a, b, f"{b - a:+,}") for name, (a, b) in labels.items() if a != b]
    if not moved:
        return html.Html("")
    lead = f"{len(moved):,} labels have another number of rows, those that changed most first."
    table = html.table(("label", "before", "now", "difference"), moved[:_LABELS])
    return html.section("Labels", table, lead=lead)


def _lengths(found: VersionDiff) -> html.Html:
    rows = [
        (
            item.name,
            f"{item.median[0]:,.0f} → {item.median[1]:,.0f}",
            f"{item.high[0]:,.0f} → {item.high[1]:,.0f}",
            f"{item.index:.3f}",
            html.badge("warn", "drifted") if item.drifted else html.badge("good", "stable"),
        )
        for item in found.lengths
    ]
    if not rows:
        return html.Html("")
    head = ("", "median", "90 % are shorter than", "stability index", "")
    lead = "In characters. Drifted: the index is 0.2 or more, and more than chance explains."
    return html.section("Lengths", html.table(head, rows), lead=lead)


def _findings(findings: Sequence[Mapping[str, Any]]) -> html.Html:
    if not findings:
        return html.Html("")
    rows = [
        (
            html.badge(_TONES[entry["severity"]], entry["severity"]),
            entry["what"],
            entry["before"],
            entry["after"],
            html.code(entry["id"]),
        )
        for entry in findings
    ]
    return html.section("Findings", html.table(("", "what", "before", "now", "id"), rows))


def _listed(title: str, lines: Sequence[str], count: int) -> list[str]:
    if not count:
        return []
    more = count - len(lines[:_LINES])
    rest = [f"  and {more:,} more"] if more > 0 else []
    return [f"{title}: {count:,}", *(f"  {line}" for line in lines[:_LINES]), *rest]


def _line(item: Placed) -> str:
    words = " ".join(item.row.input_text.split())
    cut = words if len(words) <= _WIDTH else words[: _WIDTH - 1] + "…"
    label = f" [{item.row.label}]" if item.row.label is not None else ""
    why = f" ({item.why})" if item.why else ""
    return f"{item.row.id[:8]} {item.side}: {cut}{label}{why}"


def _said(item: Changed) -> str:
    """Return what a changed row says now: its label or answer, or else its input."""
    one, two = item.before.row, item.after.row
    answers = (one.label or one.answer or ""), (two.label or two.answer or "")
    new = answers[1] if answers[0] != answers[1] else two.input_text
    words = " ".join(new.split())
    return repr(words if len(words) <= _WIDTH else words[: _WIDTH - 1] + "…")


def _sides(manifest: Mapping[str, Any]) -> str:
    return ", ".join(f"{manifest['counts'][split]:,} {split}" for split in SPLITS)


def _date(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("created_at", ""))[:19].replace("T", " ")


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _rest(items: Sequence[object]) -> str:
    more = len(items) - _ROWS
    return f"The first {_ROWS:,}; {more:,} more are not shown." if more > 0 else ""
