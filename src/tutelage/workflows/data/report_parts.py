"""What the single inspections add to a version's report, in the order a reader needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core import html
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.dedup import page
from tutelage.data.dedup.view import exact_and_near, members_of
from tutelage.data.privacy import report as privacy
from tutelage.workflows.context import Context
from tutelage.workflows.data import experts_review


def report_parts(
    ctx: Context,
    sides: Mapping[SplitName, Sequence[Example]],
    dropped: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any],
) -> list[html.Html]:
    """Return the sections about duplicates, identifiers and experts; what nobody did is absent."""
    rows = [row for split in SPLITS for row in sides[split]]
    by_id = {row.id: split for split in SPLITS for row in sides[split]}
    found = exact_and_near(members_of(rows, by_id, dropped), ctx.config.data.dedup.threshold)
    return [
        *page.sections(found),
        *privacy.section(manifest.get("privacy")),
        *experts_review.sections(ctx),
    ]
