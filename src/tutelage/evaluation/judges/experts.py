"""Experts' verdicts from a file, held against a judge's: kappa, and which way they differ.

One row of the file is one expert's verdict on one answer: the example's id, the verdict, and where
they are needed the candidate, the criterion and who judged. Several experts' verdicts on an answer
become what most of them said; where they are split even, the answer is left out and counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError, did_you_mean
from tutelage.data.quality.agreement import agreement
from tutelage.data.quality.ratings import encode
from tutelage.evaluation.judges.rubric import PREFERENCE, Criterion, Rubric

COLUMNS = {
    "item": ("item", "id", "row", "example", "example_id"),
    "verdict": ("verdict", "level", "label", "choice", "rating", "score"),
    "candidate": ("candidate", "model"),
    "criterion": ("criterion",),
    "expert": ("expert", "annotator", "author", "by"),
    "against": ("against", "other"),
}
_WORDS = {"fail": 1, "no": 1, "false": 1, "wrong": 1, "pass": 2, "yes": 2, "true": 2, "right": 2}
SIDES = ("ours", "tie", "theirs")
_SHORTEST_ID = 6  # characters of an id that name a row

Answer = tuple[str, str]  # example id, candidate; pairwise: example id, whom it is held against


@dataclass(frozen=True)
class Opinion:
    """One expert's verdict on one answer; `outcome` is a level's number, or ours, theirs, tie."""

    answer: Answer
    criterion: str
    outcome: str
    expert: str = ""


@dataclass(frozen=True)
class Agreement:
    """How far a judge agrees with experts on one criterion.

    `kappa` is Cohen's: with quadratic weights where levels have an order. `rows` are distinct.
    """

    criterion: str
    kappa: float | None
    low: float | None
    high: float | None
    rows: int
    figures: dict[str, Any] = field(default_factory=dict)


def read_opinions(path: Path, rubric: Rubric, items: Sequence[str], ours: str) -> list[Opinion]:
    """Return the verdicts of a CSV, TSV or JSONL file.

    `items` are the example ids there are; an id may be cut to its beginning. `ours` is the
    candidate that is meant where the file names none. Raises DataError naming the line.
    """
    found = []
    for line, fields in _read(path):
        where = f"{path.name}:{line}"
        cells = _cells(fields, where)
        item = _item(cells["item"], items, where)
        criterion = _criterion(cells["criterion"], rubric, where)
        if rubric.mode == "pairwise":
            mine, other = cells["candidate"] or ours, cells["against"] or "base"
            outcome = _side(cells["verdict"], mine, other, where)
            found.append(Opinion((item, other), criterion, outcome, cells["expert"]))
        else:
            outcome = _level(cells["verdict"], rubric.named(criterion), where)
            answer = (item, cells["candidate"] or ours)
            found.append(Opinion(answer, criterion, outcome, cells["expert"]))
    if not found:
        raise DataError(
            "the file holds no verdict", where=path.name, fix="See the how-to on judges"
        )
    return found


def settled(opinions: Iterable[Opinion], criterion: str) -> tuple[dict[Answer, str], int]:
    """Return what most experts said on each answer, and on how many they were split even.

    An expert's later verdict on an answer replaces an earlier one.
    """
    by_answer: dict[Answer, dict[str, str]] = defaultdict(dict)
    for place, opinion in enumerate(opinions):
        if opinion.criterion == criterion:
            by_answer[opinion.answer][opinion.expert or str(place)] = opinion.outcome
    found, split = {}, 0
    for answer, given in by_answer.items():
        ranked = Counter(given.values()).most_common(2)
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            split += 1
        else:
            found[answer] = ranked[0][0]
    return found, split


def agree(
    criterion: str,
    outcomes: Sequence[str],
    experts: Mapping[Answer, str],
    judge: Mapping[Answer, str | None],
    confidence: float = 0.95,
) -> Agreement:
    """Return how far the judge agrees on the answers that both decided; `outcomes` in order."""
    both = [
        (answer, said, mine)
        for answer, said in experts.items()
        if (mine := judge.get(answer)) is not None
    ]
    rows = len({answer[0] for answer, _, _ in both})
    figures: dict[str, Any] = {
        "answers": len(both),
        "undecided": len(experts) - len(both),
        "outcomes": list(outcomes),
        "confusion": _confusion(outcomes, [(said, mine) for _, said, mine in both]),
        "pairs": [[*answer, said, mine] for answer, said, mine in both],
    }
    if not both:
        return Agreement(criterion, None, None, None, 0, figures)
    ordered = len(outcomes) > 2 and outcomes[0].isdigit()
    columns = {"experts": [said for _, said, _ in both], "judge": [mine for _, _, mine in both]}
    found = agreement(
        encode(columns, order=outcomes),
        level="ordinal" if ordered else "nominal",
        confidence=confidence,
    )
    best = found.chosen
    figures |= {
        "name": best.name,
        "why": best.why,
        "others": {c.name: [c.value, c.low, c.high] for c in found.coefficients[1:]},
        "prevalent": found.prevalent,
        "prevalence": found.prevalence,
        "notes": list(found.notes),
    }
    return Agreement(criterion, best.value, best.low, best.high, rows, figures)


def outcomes_of(rubric: Rubric, criterion: str) -> tuple[str, ...]:
    """Return what a verdict on `criterion` may be, in order."""
    if rubric.mode == "pairwise":
        return SIDES
    return tuple(str(n + 1) for n in range(len(rubric.named(criterion).levels)))


def _confusion(outcomes: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Return the counts: a row is what experts said, a column what the judge said."""
    counted = Counter(pairs)
    return [[counted[said, mine] for mine in outcomes] for said in outcomes]


def _read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    from tutelage.data.readers.base import Broken
    from tutelage.data.readers.jsonl import JsonlReader
    from tutelage.data.readers.table import CsvReader

    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    reader = next((r for r in (CsvReader(), JsonlReader()) if r.accepts(path, b"")), None)
    if reader is None:
        fix = "Bring the verdicts as .csv, .tsv or .jsonl"
        raise DataError(f"there is no reader for {path.suffix or 'it'}", where=path.name, fix=fix)
    rows = []
    for item in reader.read(path, "utf-8-sig"):
        if isinstance(item, Broken):
            raise DataError(item.detail, where=f"{path.name}:{item.line}", fix="Correct the line")
        rows.append((item.line, item.fields))
    return rows


def _cells(fields: Mapping[str, Any], where: str) -> dict[str, str]:
    found = {}
    for name, known in COLUMNS.items():
        value = next((fields[k] for k in known if fields.get(k) is not None), "")
        found[name] = str(int(value)) if isinstance(value, float) else str(value).strip()
    missing = next((name for name in ("item", "verdict") if not found[name]), None)
    if missing:
        raise DataError(
            f"there is no {missing}",
            where=where,
            fix=f"Name the column {' or '.join(COLUMNS[missing])}; it has: {', '.join(fields)}",
        )
    return found


def _item(text: str, items: Sequence[str], where: str) -> str:
    found = [i for i in items if i == text or (len(text) >= _SHORTEST_ID and i.startswith(text))]
    if len(found) != 1:
        what = "fits several rows" if found else "is not a row of the evaluation"
        fix = "Take the ids from rows.jsonl of the evaluation, or use `tutelage human new`"
        raise DataError(f"the id {text!r} {what}", where=where, fix=fix)
    return found[0]


def _criterion(text: str, rubric: Rubric, where: str) -> str:
    known = list(rubric.asked)
    if text in known or (not text and len(known) == 1):
        return text or known[0]
    if rubric.mode == "pairwise":
        return PREFERENCE
    hint = did_you_mean(text, known) if text else ""
    what = f"{text!r} is not a criterion" if text else "it does not say which criterion is meant"
    raise DataError(what, where=where, fix=f"{hint}The rubric has: {', '.join(known)}")


def _level(text: str, criterion: Criterion, where: str) -> str:
    count = len(criterion.levels)
    if text.isdigit() and 1 <= int(text) <= count:
        return str(int(text))
    if text in criterion.levels:
        return str(criterion.levels.index(text) + 1)
    if count == 2 and text.lower() in _WORDS:
        return str(_WORDS[text.lower()])
    raise DataError(
        f"{text[:40]!r} is no level of {criterion.name!r}",
        where=where,
        fix=f"Give a number from 1 (the worst) to {count}"
        + (", or pass or fail" if count == 2 else ""),
    )


def _side(text: str, ours: str, other: str, where: str) -> str:
    known = {ours: "ours", other: "theirs", "tie": "tie", "ours": "ours", "theirs": "theirs"}
    if text not in known:
        fix = f"Say {ours}, {other} or tie"
        raise DataError(f"{text[:40]!r} names none of the two", where=where, fix=fix)
    return known[text]
