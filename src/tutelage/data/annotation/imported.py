"""Answers that were given in another tool: what an export holds, and which question is taken.

The tools' own forms are in label_studio.py and argilla.py. Nothing is stored from here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.artifact import content_hash
from tutelage.core.config import Columns, Task
from tutelage.core.errors import DataError, did_you_mean
from tutelage.core.lines import lines_of
from tutelage.core.output import OutputFormat
from tutelage.data.annotation.items import Item, from_fields
from tutelage.data.findings import Finding
from tutelage.data.readers.shape import Shaper
from tutelage.data.readers.turns import Unusable, as_text

FITS = 0.5  # share of a question's answers that must be labels for it to be the one that is meant


@dataclass(frozen=True)
class RawAnswer:
    """One person's answers to all questions of a task: by question, as the tool has them."""

    annotator: str
    values: Mapping[str, Any]
    key: str  # names this delivery: the same answer imported twice is one
    seconds: float | None = None
    skipped: bool = False
    unfinished: bool = False
    final: bool = False  # marked as the truth
    comment: str = ""


@dataclass(frozen=True)
class RawDraft:
    """What a model proposed, by question."""

    model: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class RawTask:
    """One task of an export. `odd` says what in it can't be used (spans, boxes)."""

    place: str
    fields: Mapping[str, Any]
    answers: tuple[RawAnswer, ...] = ()
    drafts: tuple[RawDraft, ...] = ()
    odd: str = ""


@dataclass(frozen=True)
class RawExport:
    """A whole export: the tool, why the file was taken for its, and the tasks."""

    tool: str
    why: str
    tasks: list[RawTask]


@dataclass(frozen=True)
class Answer:
    """One answer in the project's form. `extra` holds what was said to the other questions."""

    annotator: str
    label: str | None
    answer: str | None
    key: str
    seconds: float | None = None
    skipped: bool = False
    final: bool = False
    comment: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """One model's draft in the project's form."""

    model: str
    label: str | None
    text: str


@dataclass(frozen=True)
class Labelled:
    """One item with what came with it."""

    item: Item
    answers: tuple[Answer, ...]
    drafts: tuple[Proposal, ...]


@dataclass
class Imported:
    """What an export gave, which question was taken, and a finding for all that was not."""

    tool: str
    why: str
    question: str | None
    tasks: list[Labelled] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """How an export is to be read: the project's form, and what the user named."""

    columns: Columns = Columns()
    output: OutputFormat = field(default_factory=OutputFormat)
    task: Task = "generation"
    question: str | None = None
    text: str | None = None
    people: Mapping[str, str] = field(default_factory=dict)  # the tool's ids -> names here

    @property
    def labelled(self) -> bool:
        """Whether answers are labels."""
        closed = bool(self.output.labels or self.output.field)
        return closed or self.task == "classification"


Detect = Callable[[Any, str], RawExport | None]


def read_export(path: Path, wanted: Wanted) -> Imported:
    """Return what a file of another tool holds.

    Raises DataError if it is of no known tool, or if it can't be told which question is meant.
    """
    from tutelage.data.annotation.argilla import detect_argilla
    from tutelage.data.annotation.label_studio import detect_label_studio

    value = load(path)
    detectors: tuple[Detect, ...] = (detect_label_studio, detect_argilla)
    found = next((e for d in detectors if (e := d(value, path.name)) is not None), None)
    if found is None:
        raise DataError(
            "this is no export of Label Studio or Argilla",
            where=path.name,
            fix="Export tasks as JSON (Label Studio), or records with to_json (Argilla); rows "
            "with answers of your own are `data.sources`",
        )
    question = choose_question(found, wanted, path.name)
    return translate(found, question, wanted)


def load(path: Path) -> Any:
    """Return the JSON of a file: one value, or a list of its lines."""
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("this is no UTF-8 text", where=path.name, fix="Export as JSON") from error
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError("the JSON is nested too deeply", where=path.name, fix="Check it") from error
    except ValueError:
        return _lines(text, path)


def _lines(text: str, path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(lines_of(text), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"not valid JSON: {str(error).splitlines()[0]}",
                    where=f"{path.name}:{number}",
                    fix="Export it again as JSON",
                ) from error
    return rows


def choose_question(export: RawExport, wanted: Wanted, name: str) -> str | None:
    """Return the question whose answers are imported: the named, the only, or the one that fits.

    None if nobody has answered anything. Raises DataError if several could be meant.
    """
    values: dict[str, list[Any]] = {}
    for task in export.tasks:
        said = [*(one.values for one in task.answers), *(one.values for one in task.drafts)]
        for given in said:
            for question, value in given.items():
                values.setdefault(question, []).append(value)
    if wanted.question is not None:
        if wanted.question not in values:
            hint = did_you_mean(wanted.question, values)
            raise DataError(
                f"there is no question {wanted.question!r}",
                where=name,
                fix=f"{hint}It has: {', '.join(values) or 'none'}",
            )
        return wanted.question
    if len(values) <= 1:
        return next(iter(values), None)
    fitting = [question for question, given in values.items() if _fits(given, wanted)]
    if len(fitting) == 1:
        return fitting[0]
    raise DataError(
        f"the export has {len(values)} questions: {', '.join(values)}",
        where=name,
        fix="Say which one to import: --question NAME",
    )


def _fits(values: Sequence[Any], wanted: Wanted) -> bool:
    """Return whether answers are what the project asks for: labels of its list, or free text."""
    if wanted.output.labels:
        known = {_fold(label) for label in wanted.output.labels}
        hits = sum(_fold(as_text(one)) in known for value in values for one in _each(value))
        return hits >= FITS * max(1, len(values))
    texts = Counter(_kind(value) for value in values).most_common(1)[0][0]
    return texts == ("choice" if wanted.labelled else "text")


def _kind(value: Any) -> str:
    text = as_text(_each(value)[0]) if _each(value) else ""
    return "choice" if len(text) <= 40 and "\n" not in text else "text"


def translate(export: RawExport, question: str | None, wanted: Wanted) -> Imported:
    """Return the export in the project's form; what can't be used becomes a finding."""
    columns = wanted.columns
    if wanted.text is not None:
        columns = columns.model_copy(update={"input": wanted.text})
    shaper = Shaper(columns, wanted.output, wanted.task)
    result = Imported(export.tool, export.why, question)
    places: dict[str, int] = {}
    for task in export.tasks:
        try:
            fields = {k: v for k, v in task.fields.items() if k != question}
            item = from_fields(fields, task.place, columns, "import")
        except Unusable as problem:
            result.findings.append(Finding(problem.finding_id, problem.detail, task.place))
            continue
        if task.odd:
            result.findings.append(Finding("D8-I04", task.odd, task.place))
        notes = _Notes(task.place, question, wanted, shaper, result.findings)
        answers = tuple(a for raw in task.answers if (a := notes.answer(raw)) is not None)
        drafts = tuple(d for raw in task.drafts if (d := notes.draft(raw)) is not None)
        if not answers:
            result.findings.append(Finding("D8-I01", "no answer in it", task.place))
        if item.id in places:  # the same text in two tasks is one item
            before = result.tasks[places[item.id]]
            merged = Labelled(item, before.answers + answers, before.drafts + drafts)
            result.tasks[places[item.id]] = merged
        else:
            places[item.id] = len(result.tasks)
            result.tasks.append(Labelled(item, answers, drafts))
    return result


@dataclass(frozen=True)
class _Notes:
    """Turns one task's answers into the project's form, noting what can't be used."""

    place: str
    question: str | None
    wanted: Wanted
    shaper: Shaper
    findings: list[Finding]

    def answer(self, raw: RawAnswer) -> Answer | None:
        """Return the answer; None if it is unfinished or can't be used."""
        name = self.wanted.people.get(raw.annotator, raw.annotator)
        if raw.unfinished:
            self._note("D8-I06", f"{name} has not submitted it")
            return None
        if raw.skipped:
            self._note("D8-I05", f"{name} passed it by")
            return Answer(name, None, None, raw.key, raw.seconds, True, comment=raw.comment)
        value = raw.values.get(self.question or "")
        if value is None:
            return None
        read = self._read(value)
        if read is None:
            return None
        extra = {q: v for q, v in raw.values.items() if q != self.question}
        label, text = read
        return Answer(name, label, text, raw.key, raw.seconds, False, raw.final, raw.comment, extra)

    def draft(self, raw: RawDraft) -> Proposal | None:
        """Return the draft; None if it says nothing on the question."""
        value = raw.values.get(self.question or "")
        read = self._read(value) if value is not None else None
        if read is None:
            return None
        label, text = read
        shown = text if text is not None else self.wanted.output.render(label or "")
        return Proposal(raw.model, label, shown)

    def _read(self, value: Any) -> tuple[str | None, str | None] | None:
        """Return (label, text) of one of which is set, or None with a finding."""
        given = _each(value)
        if not given:
            return None
        if not self.wanted.labelled:
            return None, "\n".join(as_text(one) for one in given)
        if len(given) > 1:
            self._note("D8-I02", f"{len(given)} choices: {', '.join(map(as_text, given))[:80]}")
            return None
        try:
            return self.shaper.answer(given[0])[1], None
        except Unusable as problem:
            self._note("D8-I03", problem.detail)
            return None

    def _note(self, finding: str, detail: str) -> None:
        self.findings.append(Finding(finding, detail, self.place))


def key_of(*parts: Any) -> str:
    """Return the name of one delivered answer."""
    return content_hash([str(part) for part in parts])[:40]


def rows_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; anything else in it is left out."""
    values: Iterable[Any] = value if isinstance(value, list) else [value]
    return [row for row in values if isinstance(row, dict)]


def _each(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if as_text(one).strip()]


def _fold(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("-", " ").split()).casefold()
