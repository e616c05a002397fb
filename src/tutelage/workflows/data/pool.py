"""The texts that could be labelled next: of a file, of production, or those in quarantine.

Left out, and counted with the reason, is what the dataset holds already, what experts were given
already, and what was reviewed. Known failures and disagreements ride along as signals.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.errors import DataError
from tutelage.core.example import Example, normalise
from tutelage.data.annotation.items import Item, from_example, from_fields
from tutelage.data.readers.turns import Unusable
from tutelage.data.version import QUARANTINE
from tutelage.feedback.outcome import goodness
from tutelage.feedback.signals import DECLARED as BUILT_IN
from tutelage.feedback.signals import Declared, declare, read_signals
from tutelage.store.annotations import AnnotationRow, AssignmentRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.check import columns_of
from tutelage.workflows.data.experts_items import Order, pool_of
from tutelage.workflows.data.experts_rows import known_rows, require_version

PRODUCTION, WAITING = "production", "quarantine"
_DOUBTED = 0.5  # failure of an answer that a check of the gateway flagged
_LOW, _HIGH = "failure", ("score", "rating")  # fields of a row that tell how the model did


@dataclass(frozen=True)
class Candidate:
    """One text, how far the current model failed on it or people differ (0 to 1), and why."""

    item: Item
    failure: float = 0.0
    disagreement: float = 0.0
    why: str = ""


@dataclass
class Candidates:
    """The texts of a pool, and how many were left out, by reason."""

    rows: list[Candidate] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: str | None = None  # place and reason of the first line that could not be read


def read_pool(ctx: Context, pool: str) -> Candidates:
    """Return the texts of `pool`: a file's path, "production" or "quarantine".

    Raises DataError if there is none, or a field that tells how the model did is not a ratio.
    """
    found = Candidates()
    if pool == PRODUCTION:
        items = pool_of(ctx, Order(people=(), source="production", split="train"), [])
        candidates = _with_signals(ctx, items, found)
    elif pool == WAITING:
        candidates = [Candidate(item) for item in known_rows(ctx, _waiting(ctx, found))]
    else:
        candidates = _from_file(ctx, Path(pool).expanduser(), found)
    given = given_items(ctx)
    for candidate in candidates:
        if candidate.item.example_id is not None:
            found.left_out["a row of the dataset already"] += 1
        elif candidate.item.id in given:
            found.left_out["given to experts already"] += 1
        else:
            found.rows.append(candidate)
    if not found.rows:
        raise _nothing(pool, found)
    return found


def _from_file(ctx: Context, path: Path, found: Candidates) -> list[Candidate]:
    findings: list[Any] = []
    items = pool_of(ctx, Order(people=(), source="file", file=path), findings)
    for finding in findings:
        found.left_out[finding.kind.what.lower()] += 1
        found.first = found.first or f"{finding.where}: {finding.detail}"
    return [_told(item) for item in items]


def _told(item: Item) -> Candidate:
    """Return the item with what its own fields tell: failure, score, rating, disagreement."""
    meta, place = item.example.meta, item.example.origin.source
    failure, why = 0.0, ""
    if _LOW in meta:
        failure = _ratio(meta, _LOW, place)
        why = f"failure {failure:g}" if failure else ""
    for name in _HIGH:
        if name in meta and not failure:
            value = _ratio(meta, name, place)
            failure, why = 1.0 - value, f"{name} {value:g}" if value < 1 else ""
    disagreement = _ratio(meta, "disagreement", place) if "disagreement" in meta else 0.0
    if disagreement and not why:
        why = f"disagreement {disagreement:g}"
    return Candidate(item, failure, disagreement, why)


def _ratio(meta: Mapping[str, Any], name: str, place: str) -> float:
    try:
        value = float(meta[name])
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= 1:
        raise DataError(
            f"the field {name!r} is {str(meta[name])[:40]!r}, not a number from 0 to 1",
            where=place,
            fix="Correct it, or give the field another name",
        )
    return value


def _with_signals(ctx: Context, items: Iterable[Item], found: Candidates) -> list[Candidate]:
    """Return requests nobody has corrected, with the feedback they got as failure."""
    reviewed, failed = _feedback(ctx)
    candidates = []
    for item in items:
        key = normalise(item.text)
        if key in reviewed:
            found.left_out["corrected by a person already"] += 1
            continue
        failure, why = failed.get(key, (0.0, ""))
        candidates.append(Candidate(item, failure, 0.0, why))
    return candidates


def _feedback(ctx: Context) -> tuple[set[str], dict[str, tuple[float, str]]]:
    """Return inputs with a correction, and for others the worst failure with its reason."""
    signals: dict[str, list[tuple[str, Any]]] = {}
    for (record, kind), signal in read_signals(ctx.store).items():
        signals.setdefault(record, []).append((kind, signal.value["value"]))
    reviewed: set[str] = set()
    failed: dict[str, tuple[float, str]] = {}
    names = declare(ctx.config.feedback)
    with ctx.store.session() as session:
        for row in session.execute(select(RecordRow.id, RecordRow.messages, RecordRow.checks)):
            texts = [m["content"] for m in row.messages if m["role"] != "system"]
            key = normalise("\n".join(texts))
            own = signals.get(row.id, [])
            if any(kind == "edit" for kind, _ in own):
                reviewed.add(key)
            for failure, why in [*(_failure(one, names) for one in own), *_flagged(row.checks)]:
                if failure > failed.get(key, (0.0, ""))[0]:
                    failed[key] = failure, why
    return reviewed, failed


def _failure(signal: tuple[str, Any], names: Mapping[str, Declared]) -> tuple[float, str]:
    """Return how far a signal tells of a failure, and the words for it."""
    kind, value = signal
    rule = names.get(kind)
    good = goodness(value, rule) if rule is not None else None
    if rule is None or good is None:
        return 0.0, ""
    if rule.direction > 0:
        return 1.0 - good, f"rated {good:g}" if kind == "rating" else f"not {kind}"
    return 1.0 - good, rule.meaning if kind in BUILT_IN else kind


def _flagged(checks: Mapping[str, Any] | None) -> Iterator[tuple[float, str]]:
    for name, check in (checks or {}).items():
        if isinstance(check, dict) and check.get("ok") is False:
            yield _DOUBTED, f"the check {name!r} flagged it: {check.get('why', '')}"


def _waiting(ctx: Context, found: Candidates) -> Iterator[Item]:
    """Yield the rows in quarantine whose text can be read: most lack a usable answer."""
    version = require_version(ctx)
    columns = columns_of(ctx)
    seen: set[str] = set()
    with (version.directory / QUARANTINE).open(encoding="utf-8", newline="\n") as stream:
        for line in stream:
            entry = json.loads(line)
            place = f"{entry['file']}:{entry['line']}" if entry["line"] else entry["file"]
            try:
                row = entry["row"]
                fields = json.loads(row) if isinstance(row, str) else row
                if "messages" in fields and "origin" in fields:
                    item = from_example(Example.model_validate(fields), "file")
                else:
                    item = from_fields(fields, place, columns)
            except (ValueError, TypeError, Unusable):
                found.left_out["in quarantine and without a readable text"] += 1
                continue
            if item.id not in seen and item.text.strip():
                seen.add(item.id)
                yield item


def given_items(ctx: Context) -> set[str]:
    """Return the items that were given to experts, or answered by them."""
    with ctx.store.session() as session:
        return {
            *session.scalars(select(AssignmentRow.item)),
            *session.scalars(select(AnnotationRow.item)),
        }


def _nothing(pool: str, found: Candidates) -> DataError:
    if found.left_out:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.most_common())
        first = f"; first: {found.first}" if found.first else ""
        what = f"there is nothing to label: {counts}{first}"
    else:
        what = "there is nothing to label"
    fix = {
        PRODUCTION: "Serve a release first, or name a file of texts with --pool FILE",
        WAITING: "Nothing waits there; name a file of texts with --pool FILE",
    }.get(pool, "Bring texts without a label as .txt, .csv or .jsonl")
    return DataError(what, where=pool, fix=fix)
