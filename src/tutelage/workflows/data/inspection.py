"""What stands out among a version's rows: strangers, doubtful labels, and how production differs.

It flags and counts; nothing is dropped here but what data.quality.best asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tutelage.core import html
from tutelage.core.example import Example
from tutelage.data.findings import Finding
from tutelage.data.quality import balance as spread
from tutelage.data.quality.assess import quality_findings
from tutelage.data.quality.report import sections
from tutelage.workflows.context import Context
from tutelage.workflows.data import balance
from tutelage.workflows.data.quality import assess_rows


@dataclass
class Inspection:
    """The findings, what the manifest keeps of them, and the report's sections."""

    findings: list[Finding] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    sections: list[html.Html] = field(default_factory=list)


def inspect(ctx: Context, rows: Sequence[Example], clusters: Mapping[str, str]) -> Inspection:
    """Return what stands out among `rows`; what data.quality turns off is not looked for."""
    result = Inspection()
    tell = ctx.emit
    ctx = replace(ctx, emit=lambda event: tell(replace(event, stage="curate")))
    quality = ctx.config.data.quality
    if rows and (quality.outliers or quality.label_errors):
        found = assess_rows(ctx, rows, clusters)
        result.findings, result.summary = quality_findings(found)
        result.sections = sections(found)
    asked = balance.production_rows(ctx, rows)
    if asked:
        compared = balance.compare(ctx, rows, asked)
        result.findings += balance.findings(compared)
        result.summary["production"] = {
            "verdict": compared.production.verdict,
            "sentences": list(compared.production.sentences),
        }
        result.sections += spread.production_section(compared.production)
    return result
