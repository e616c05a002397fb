"""The certificates and the lineage of a version, as cards of its report.

Built from the manifest; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.core import html
from tutelage.data.leakage import SEMANTIC

_FILES = 20


def certificates(manifest: Mapping[str, Any]) -> list[html.Html]:
    """Return the card that shows what each two sides have in common."""
    leaks: Mapping[str, Mapping[str, Any]] = manifest.get("leaks") or {}
    if not leaks:
        return []
    by_meaning = any(leak.get("semantic") is not None for leak in leaks.values())
    rows = []
    for name, leak in leaks.items():
        low, _, high = name.partition("-")
        found = leak["exact"] or leak["near"]
        rows.append(
            (
                f"{low} and {high}",
                f"{leak['train_rows']:,} and {leak['test_rows']:,}",
                leak["exact"],
                leak["near"],
                *([leak.get("semantic") or 0] if by_meaning else []),
                html.badge("bad", "leaks") if found else html.badge("good", "clean"),
            )
        )
    first = next(iter(leaks.values()))
    lead = (
        "Each two sides were compared, every row with every other. Near: a cosine of "
        f"{first['threshold']:g} or more of character n-grams."
    )
    if by_meaning:
        lead += (
            f" By meaning: {SEMANTIC:g} or more of embeddings ({first['embedder']}); these rows "
            "are counted and stay."
        )
    meaning = ["by meaning"] if by_meaning else []
    head = ("sides", "rows", "exact twins", "near twins", *meaning, "")
    return [html.section("Leak certificate", html.table(head, rows), lead=lead)]


def lineage(manifest: Mapping[str, Any]) -> list[html.Html]:
    """Return the card that says what the version was made from."""
    sources: Mapping[str, str] = manifest.get("sources") or {}
    parents = [str(parent)[:12] for parent in manifest.get("parents") or ()]
    repairs = manifest.get("repairs") or []
    if not sources:
        return []
    files = [(name, html.code(digest[:12])) for name, digest in list(sources.items())[:_FILES]]
    after = f"It came after {', '.join(parents)}." if parents else "It is the first version."
    batches = f" Batches of repairs in it: {len(repairs):,}." if repairs else ""
    more = len(sources) - len(files)
    rest = [html.paragraph(f"and {more:,} more files")] if more > 0 else []
    table = html.table(("file", "hash"), files)
    return [html.section("Made from", table, *rest, lead=after + batches)]
