"""The rows that wait for a person: each with its place, reason and remedy. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.data.findings import catalogue
from tutelage.data.pipeline import run_steps
from tutelage.workflows.context import Context
from tutelage.workflows.data.check import Checked, read_everything, steps, waiting_rows
from tutelage.workflows.data.fix import plan_fixes


@dataclass(frozen=True)
class Waiting:
    """One row in quarantine. `row` is its text, or its fields; `mendable`: `--fix` mends it."""

    finding: str
    reason: str
    file: str
    line: int | None
    id: str | None
    remedy: str
    mendable: bool
    row: Any

    @property
    def place(self) -> str:
        """file:line, or the file with the entry's number."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "finding": self.finding,
            "reason": self.reason,
            "file": self.file,
            "line": self.line,
            "id": self.id,
            "remedy": self.remedy,
            "mendable": self.mendable,
            "row": self.row,
        }


def quarantine(ctx: Context, finding: str | None = None) -> list[Waiting]:
    """Return the rows of the sources that can't be used, in their order, as they are now.

    `finding` keeps those with that id, or with one that begins so (D1, D2-S).
    """
    read = read_everything(ctx)
    checked = Checked(read, run_steps(read.examples, steps(ctx)))
    mendable = {
        change.source for change in plan_fixes(ctx).changes if change.kind in ("line", "repair")
    }
    found = (_waiting(row, mendable) for row in waiting_rows(checked))
    return [row for row in found if finding is None or row.finding.startswith(finding)]


def _waiting(row: dict[str, Any], mendable: set[str]) -> Waiting:
    place = f"{row['file']}:{row['line']}" if row["line"] else row["file"]
    return Waiting(
        finding=row["finding"],
        reason=row["reason"],
        file=row["file"],
        line=row["line"],
        id=row["id"],
        remedy=catalogue()[row["finding"]].fix,
        mendable=place in mendable,
        row=row["row"],
    )


def by_finding(rows: Sequence[Waiting]) -> list[tuple[str, int, str]]:
    """Return (finding, rows, remedy), the most frequent first."""
    counts = Counter(row.finding for row in rows)
    return [(key, count, catalogue()[key].fix) for key, count in counts.most_common()]
