"""Keep people's choices between two answers, one by one or from a file; nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select

from tutelage.core.artifact import content_hash
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message
from tutelage.data.annotation.items import Item, from_fields, item_id
from tutelage.data.findings import Finding, summarise
from tutelage.data.preferences import same
from tutelage.data.readers.base import Broken, RawRow
from tutelage.data.readers.jsonl import JsonlReader
from tutelage.data.readers.table import CsvReader
from tutelage.data.readers.turns import Unusable, as_text
from tutelage.store.preferences import ComparisonRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.check import columns_of
from tutelage.workflows.data.experts_rows import known_rows
from tutelage.workflows.data.privacy import redacted_rows

Choice = Literal["first", "second", "tie"]
_FIRST = ("a", "answer_a", "response_a", "output_a", "completion_a", "first")
_SECOND = ("b", "answer_b", "response_b", "output_b", "completion_b", "second")
_CHOICE = ("choice", "winner", "preferred", "preference", "better")
_AUTHOR = ("author", "annotator", "expert", "by", "user")
_WORDS: dict[str, Choice] = {
    "a": "first", "first": "first", "1": "first", "left": "first", "answer_a": "first",
    "b": "second", "second": "second", "2": "second", "right": "second", "answer_b": "second",
    "tie": "tie", "draw": "tie", "equal": "tie", "same": "tie", "both": "tie", "neither": "tie",
    "0": "tie",
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One choice: what was asked, two answers in the order they were shown, and which is better.

    `first_from` and `second_from` name who wrote them (a model, a release), for evaluations.
    """

    messages: tuple[Message, ...]
    first: str
    second: str
    choice: Choice
    author: str
    why: str = ""
    seconds: float | None = None
    first_from: str | None = None
    second_from: str | None = None
    source: str = ""


def choice_of(word: str) -> Choice:
    """Return the choice that a word names; raise DataError with the words that do."""
    found = _WORDS.get(word.strip().lower())
    if found is None:
        raise DataError(f"{word[:30]!r} is not a choice", fix="Say a, b or tie")
    return found


def add_comparisons(ctx: Context, made: Sequence[Comparison]) -> int:
    """Keep choices in one transaction; return how many are new.

    A line of a file counts once; besides, a choice is new if the person's last one on these two
    answers was another. Raises DataError for one without an author, an input or an answer.
    """
    for one in made:
        _require(one)
    safe = _redacted(ctx, made)
    items = known_rows(ctx, [_item(one) for one in safe])
    added = 0
    with ctx.store.begin() as session:
        for one, item in zip(safe, items, strict=True):
            row = _row(one, item)
            earlier = list(
                session.scalars(
                    select(ComparisonRow)
                    .where(ComparisonRow.pair == row.pair, ComparisonRow.author == row.author)
                    .order_by(ComparisonRow.number)
                )
            )
            if one.source:
                row.key = content_hash([row.pair, _winner(row), row.author, one.source])
                known = any(old.key == row.key for old in earlier)
            else:
                row.key = content_hash([row.pair, row.author, len(earlier)])
                known = bool(earlier) and _winner(earlier[-1]) == _winner(row)
            if not known:
                session.add(row)
                session.flush()
                added += 1
    return added


def _winner(row: ComparisonRow) -> str:
    return {"first": same(row.first), "second": same(row.second)}.get(row.choice, "")


def add_file(ctx: Context, path: Path, *, by: str | None = None) -> dict[str, Any]:
    """Keep the choices in a file of comparisons (.csv, .tsv, .jsonl, .json).

    A row has the input, two answers (`a` and `b`), a `choice` (a, b, tie) and perhaps its
    `author`, for whom `by` stands in. Returns {read, new, known, findings}. Raises DataError if
    the file can't be read or holds no comparison.
    """
    made: list[Comparison] = []
    findings: list[Finding] = []
    for row in _rows(path):
        place = f"{path.name}{row.line if row.line.startswith('#') else ':' + row.line}"
        if isinstance(row, Broken):
            findings.append(Finding(row.finding_id, row.detail, place))
            continue
        try:
            made.append(_read(ctx, row.fields, place, by))
        except Unusable as problem:
            findings.append(Finding(problem.finding_id, problem.detail, place))
        except DataError as problem:
            findings.append(Finding("D8-P07", problem.what, place))
    if not made:
        first = f"; first: {findings[0].detail} ({findings[0].where})" if findings else ""
        raise DataError(
            f"the file holds no comparison{first}",
            where=path.name,
            fix="Give each row a prompt, two answers a and b, and a choice: a, b or tie",
        )
    new = add_comparisons(ctx, made)
    known = len(made) - new
    return {"read": len(made), "new": new, "known": known, "findings": summarise(findings)}


def _read(ctx: Context, fields: Mapping[str, Any], place: str, by: str | None) -> Comparison:
    folded = {str(key).strip().lower(): str(key) for key in reversed(list(fields))}

    def value(names: tuple[str, ...]) -> str:
        name = next((folded[n] for n in names if n in folded), None)
        return as_text(fields.get(name)).strip() if name is not None else ""

    item = from_fields(fields, place, columns_of(ctx))
    author = value(_AUTHOR) or by or "file"
    return Comparison(
        messages=item.example.messages,
        first=value(_FIRST),
        second=value(_SECOND),
        choice=choice_of(value(_CHOICE)),
        author=author[:80],
        why=value(("why", "reason", "comment")),
        first_from=value(("first_from", "model_a", "a_from"))[:160] or None,
        second_from=value(("second_from", "model_b", "b_from"))[:160] or None,
        source=place[:160],
    )


def _require(one: Comparison) -> None:
    problem = None
    if not one.messages or one.messages[-1].role == "assistant":
        problem = "a comparison needs an input that both answers are to"
    elif not one.first.strip() or not one.second.strip():
        problem = "a comparison needs two answers"
    elif same(one.first) == same(one.second):
        problem = "both answers are the same"
    elif not one.author.strip():
        problem = "a choice needs an author"
    if problem:
        where = one.source or None
        raise DataError(problem, where=where, fix="Give prompt, a, b, a choice and who made it")


def _item(one: Comparison) -> Item:
    return Item(item_id(one.messages), Example(messages=one.messages), "file")


def _redacted(ctx: Context, made: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with pseudonyms where data.privacy.mode asks for them."""
    if ctx.config.data.privacy.mode != "redact":
        return list(made)
    found = []
    for one in made:
        rows = [
            Example(messages=(*one.messages, Message(role="assistant", content=text)))
            for text in (one.first, one.second)
        ]
        first, second = redacted_rows(ctx, rows)
        found.append(
            replace(
                one,
                messages=first.context,
                first=first.answer or "",
                second=second.answer or "",
            )
        )
    return found


def _row(one: Comparison, item: Item) -> ComparisonRow:
    texts = sorted((same(one.first), same(one.second)))
    name = item_id(one.messages)
    pair = content_hash([name, *texts])[:24]
    return ComparisonRow(
        item=name,
        pair=pair,
        example=Example(messages=one.messages).model_dump(mode="json", exclude_defaults=True),
        first=one.first,
        second=one.second,
        first_from=one.first_from,
        second_from=one.second_from,
        choice=one.choice,
        author=one.author,
        why=one.why,
        seconds=one.seconds,
        split=item.split,
        source=one.source,
    )


def _rows(path: Path) -> Iterator[RawRow | Broken]:
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    reader = next((r for r in (CsvReader(), JsonlReader()) if r.accepts(path, b"")), None)
    if reader is None:
        raise DataError(
            f"there is no reader for {path.suffix or 'files without an ending'}",
            where=path.name,
            fix="Bring comparisons as .csv, .tsv, .jsonl or .json",
        )
    yield from reader.read(path, "utf-8-sig")
