"""Find what is certain to be meant by faulty rows, show it as a diff, and keep it as repairs.

The sources are never edited: a mended line or answer is a repair like those of people, listed by
`tutelage data repairs` and taken back by its batch. Doing it twice changes nothing more.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.data.findings import catalogue
from tutelage.data.mend import better, mend_fields, mend_line
from tutelage.data.privacy.masks import Masks
from tutelage.data.readers.base import ReadResult, Rejected
from tutelage.data.readers.shape import Shaper
from tutelage.data.readers.turns import Unusable
from tutelage.data.repairs import Repair, RepairStep, apply, key_of, rows_in
from tutelage.workflows.context import Context
from tutelage.workflows.data.check import clean_step, read_everything, shaper_of, steps
from tutelage.workflows.data.privacy import masks
from tutelage.workflows.data.repairs import record

_CONTEXT = 1  # unchanged lines around a change


@dataclass(frozen=True)
class Change:
    """One row before and after. `clean`: every curation does it; the others are kept as repairs.

    `id` is the example's before the change, or the key of a line.
    """

    kind: Literal["clean", "repair", "line"]
    source: str
    id: str
    finding: str
    what: str
    before: str
    after: str

    @property
    def diff(self) -> list[str]:
        """The change as lines of a unified diff; what can't be seen is spelled."""
        old, new = (visible(text).split("\n") for text in (self.before, self.after))
        name = f"{self.source} ({self.id[:12]})"
        return list(difflib.unified_diff(old, new, name, name, self.what, "", _CONTEXT, ""))

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        file, _, line = self.source.rpartition(":")
        return {
            "kind": self.kind,
            "finding": self.finding,
            "file": file if line.isdigit() else self.source,
            "line": int(line) if line.isdigit() else None,
            "id": self.id,
            "what": self.what,
            "diff": "\n".join(self.diff),
        }


@dataclass
class Fixes:
    """What was found to fix. `batch` names the repairs once they are kept."""

    changes: list[Change] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    batch: str | None = None

    def counts(self) -> dict[str, int]:
        """Return how many rows of each kind change, or would."""
        found = Counter(change.kind for change in self.changes)
        return {"clean": found["clean"], "repair": found["repair"], "line": found["line"]}

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "batch": self.batch,
            "repairs": len(self.repairs),
            **self.counts(),
            "changes": [change.as_dict() for change in self.changes],
        }


def fix(ctx: Context, *, dry_run: bool = False) -> Fixes:
    """Return what is certain to fix, and keep it as one batch of repairs unless `dry_run`."""
    found = plan_fixes(ctx)
    if found.repairs and not dry_run:
        found.batch = record(ctx, found.repairs)
    return found


def plan_fixes(ctx: Context) -> Fixes:
    """Return what is certain to fix, writing nothing."""
    output = ctx.config.output.format()
    read = read_everything(ctx)
    found = Fixes()
    mended = _mend_lines(read, shaper_of(ctx), output, found)
    rows = [*read.examples, *mended]
    cleaned = clean_step(ctx)
    for row in rows:
        tidy, notes = cleaned.clean(row)
        for key, what in list(notes.items())[:1]:
            found.changes.append(_change("clean", row, tidy, key, what))
    for repair_row, repair in better(_as_repaired(ctx, rows), output):
        after = apply(repair_row, repair, output)
        key = {"label": "D2-T10", "answer": "D2-C04", "input": "D2-C09"}[repair.action]
        found.changes.append(_change("repair", repair_row, after, key, repair.reason))
        found.repairs.append(repair)
    hide = masks(ctx)
    if hide is not None:
        found.changes = [_masked(change, hide) for change in found.changes]
    return found


def _masked(change: Change, hide: Masks) -> Change:
    """Return a change as it may be shown where data.privacy.mode is redact."""
    return replace(
        change,
        what=hide.mask(change.what),
        before=hide.mask(change.before),
        after=hide.mask(change.after),
    )


def _as_repaired(ctx: Context, rows: Sequence[Example]) -> list[Example]:
    """Return the rows as they are when the repairs in force have been applied."""
    kept = list(rows)
    for step in steps(ctx):
        kept = step.run(kept).kept
        if isinstance(step, RepairStep):
            break
    return kept


def _mend_lines(
    read: ReadResult, shaper: Shaper, output: OutputFormat, found: Fixes
) -> list[Example]:
    """Add a repair for each line whose meaning is certain; return the rows that it gives."""
    rows: list[Example] = []
    known: set[str] = set()
    for rejected in read.rejected:
        mended = _mended(rejected, shaper, output)
        if mended is None:
            continue
        value, what, examples = mended
        rows += examples
        key = key_of(rejected.whole)
        after = "\n".join(_row_text(row) for row in examples)
        change = Change(
            "line", rejected.source, key, rejected.finding_id, what, rejected.whole, after
        )
        found.changes.append(change)
        if key not in known:
            found.repairs.append(Repair(key, "line", value, what))
            known.add(key)
    return rows


def _mended(
    rejected: Rejected, shaper: Shaper, output: OutputFormat
) -> tuple[str, str, list[Example]] | None:
    """Return the rows as JSON lines, what was done, and the examples; None if not certain."""
    family = catalogue()[rejected.finding_id].id
    if family in ("D1-R01", "D1-R03"):
        line = mend_line(rejected.whole)
        return _usable(line[0], line[1], rejected, shaper) if line else None
    try:
        fields = json.loads(rejected.whole)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    for changed, what in mend_fields(fields, rejected.finding_id, output):
        value = json.dumps(changed, ensure_ascii=False)
        usable = _usable(value, what, rejected, shaper)
        if usable is not None:
            return usable
    return None


def _usable(
    value: str, what: str, rejected: Rejected, shaper: Shaper
) -> tuple[str, str, list[Example]] | None:
    try:
        examples = [shaper.example(row, rejected.source)[0] for row in rows_in(value)]
    except Unusable:
        return None
    return value, what, examples


def _change(
    kind: Literal["clean", "repair"], before: Example, after: Example, finding: str, what: str
) -> Change:
    source = before.origin.source
    return Change(kind, source, before.id, finding, what, _row_text(before), _row_text(after))


def _row_text(row: Example) -> str:
    """Return a row as people read it: a turn a paragraph."""
    turns = [f"{turn.role}: {turn.content}" for turn in row.messages]
    return "\n".join(turns)


def visible(text: str) -> str:
    """Return text with what can't be seen spelled: spaces at a line's end, controls, no-breaks."""
    lines = []
    for line in text.split("\n"):
        bare = line.rstrip(" \t")
        ending = line[len(bare) :].replace(" ", "·").replace("\t", "→")
        shown = bare if bare.isascii() and bare.isprintable() else "".join(map(_spelled, bare))
        lines.append(shown + ending)
    return "\n".join(lines)


def _spelled(character: str) -> str:
    if character == "\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zs"):
        return character
    if character == " ":
        return character
    return f"⟨{ord(character):04X}⟩"
