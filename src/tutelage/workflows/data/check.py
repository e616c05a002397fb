"""Read the sources and run the checks; what is lost, and what was found. Nothing is written.

Curation begins with `read_and_check`; `tutelage data check` shows what it gave.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select

from tutelage.core.config import Columns
from tutelage.core.errors import DataError
from tutelage.core.events import Event
from tutelage.core.example import Example, SplitName
from tutelage.data.clean import CleanStep
from tutelage.data.dedup.exact import ExactDuplicates
from tutelage.data.dedup.thin import NearStep
from tutelage.data.filters.base import FilterSettings, FilterStep, load_filters
from tutelage.data.filters.statistics import all_the_same, fatal
from tutelage.data.findings import Finding, catalogue, reason, summarise
from tutelage.data.pipeline import PipelineResult, Step, run_steps
from tutelage.data.privacy.step import PrivacyStep
from tutelage.data.readers.base import ReadResult, Rejected, Tally, read_file, read_sources
from tutelage.data.readers.files import find_files, shown
from tutelage.data.readers.shape import Shaper
from tutelage.data.repairs import RepairStep, mended_lines
from tutelage.data.version import load_version
from tutelage.store.artifacts import SplitRow
from tutelage.workflows.context import Context, last_output
from tutelage.workflows.data import privacy
from tutelage.workflows.data.progress import tell
from tutelage.workflows.data.repairs import active

_STAGE = "curate"  # checking is its first part


@dataclass
class Checked:
    """What the sources gave, and what the steps kept, dropped, quarantined and found."""

    read: ReadResult
    result: PipelineResult
    privacy: PrivacyStep | None = None

    @property
    def renamed(self) -> dict[str, str]:
        """The new ids of rows whose identifiers were replaced, by their old ones."""
        return self.privacy.renamed if self.privacy else {}


def check(ctx: Context) -> dict[str, Any]:
    """Read and check the sources without writing: what was detected, kept, lost, found."""
    checked = read_and_check(ctx)
    waiting = waiting_rows(checked)
    return {
        "detected": checked.read.detected,
        "kept": len(checked.result.kept),
        "lost": len(waiting),
        "first": first_waiting(waiting),
        "findings": summarise(all_findings(checked)),
    }


def read_and_check(ctx: Context, *, keep: bool = False) -> Checked:
    """Read the sources and run every step on them. `keep`: new pseudonyms are kept in the vault.

    Raises DataError if what is left can't teach anything; the sentence names the first lost row.
    """
    tell(ctx, "read")
    read = read_rows(ctx)
    read.detected = privacy.hidden_lines(ctx, read.detected)
    for line in read.detected:
        ctx.emit(Event(_STAGE, "note", line))
    same = all_the_same(read.examples)
    if same is not None:
        raise same
    chosen = steps(ctx, keep=keep)
    result = run_steps(
        read.examples, chosen, lambda entry: _tell_step(ctx, entry), partial(tell, ctx)
    )
    checked = Checked(read, result, privacy.step_of(chosen))
    privacy.tell(ctx, checked.privacy, result)
    stop = fatal(checked.result.findings)
    if stop is not None:
        raise _with_first_loss(stop, waiting_rows(checked))
    return checked


def read_rows(ctx: Context) -> ReadResult:
    """Return everything the sources hold, as the settings read it; lines with a repair mended.

    Raises DataError if there are no files, or none of their rows can be used.
    """
    return read_sources(
        ctx.workspace.root,
        ctx.config.data.sources,
        columns_of(ctx),
        ctx.config.output.format(),
        ctx.config.task,
        mended_lines(active(ctx)),
        privacy.concealer(ctx),
    )


def read_everything(ctx: Context) -> ReadResult:
    """Return what `read_rows` does, also where no row can be used."""
    root, task = ctx.workspace.root, ctx.config.task
    result = ReadResult()
    lines = mended_lines(active(ctx))
    conceal = privacy.concealer(ctx)
    for path in find_files(root, ctx.config.data.sources, result.detected, task):
        tally = Tally(shown(path, root), repairs=lines)
        for item in read_file(path, shaper_of(ctx), tally):
            if isinstance(item, Example):
                result.examples.append(item)
            else:
                (result.rejected if item.is_error else result.skipped).append(conceal(item))
        result.detected += tally.lines()
        result.mended += tally.mended
    return result


def columns_of(ctx: Context) -> Columns:
    """Return the columns as the settings name them, the splits' own among them."""
    data = ctx.config.data
    return data.columns.model_copy(
        update={
            "group": data.columns.group or data.splits.group,
            "time": data.columns.time or data.splits.time,
        }
    )


def shaper_of(ctx: Context) -> Shaper:
    """Return what turns rows of named fields into examples of this project."""
    return Shaper(columns_of(ctx), ctx.config.output.format(), ctx.config.task)


def steps(ctx: Context, *, keep: bool = False) -> list[Step]:
    """Return the steps of curation in their order. `keep`: as in `read_and_check`."""
    config = ctx.config
    output = config.output.format()
    settings = FilterSettings(
        task=config.task,
        output=output,
        json_schema=config.output.json_schema,
        language=config.data.language,
        max_tokens=config.data.max_tokens,
        refusal_share=config.data.refusal_share,
        previous=tuple(_previous(ctx)),
    )
    layers = load_filters(settings)
    statistics = layers.pop("statistics")
    return [
        clean_step(ctx),
        *privacy.privacy_steps(ctx, keep=keep),
        RepairStep(active(ctx), output),
        *(FilterStep(name, layer) for name, layer in layers.items()),
        ExactDuplicates(config.data.dedup.across_labels),
        NearStep(config.data.dedup.near, config.data.dedup.threshold, _frozen(ctx)),
        FilterStep("statistics", statistics),
    ]


def _frozen(ctx: Context) -> dict[str, SplitName]:
    """Return the side of every row that has one, by example id."""
    with ctx.store.session() as session:
        return {row.example_id: row.split for row in session.scalars(select(SplitRow))}  # type: ignore[misc]


def clean_step(ctx: Context) -> CleanStep:
    """Return the step that tidies rows as the settings ask."""
    config = ctx.config
    answers = config.data.answers
    if answers == "auto" and config.output.json_schema is not None:
        answers = "json"
    return CleanStep(config.task, config.output.format(), answers)


def _with_first_loss(stop: DataError, waiting: list[dict[str, Any]]) -> DataError:
    """Return the error with the first unusable row, which is often the cause."""
    if not waiting:
        return stop
    count = "1 row" if len(waiting) == 1 else f"{len(waiting):,} rows"
    first = first_waiting(waiting)
    return DataError(f"{stop.what}; {count} can't be used, first: {first}", fix=stop.fix)


def _tell_step(ctx: Context, entry: dict[str, Any]) -> None:
    lost = entry["dropped"] + entry["quarantined"]
    if not lost:
        return
    kinds = catalogue()
    why = ", ".join(
        f"{count} × {kinds[key].what.lower()}" for key, count in entry["reasons"].items()
    )
    ctx.emit(Event(_STAGE, "note", f"{entry['step']}: {why}", data=entry))


def _previous(ctx: Context) -> list[Example]:
    artifact = last_output(ctx, _STAGE)
    if artifact is None or not ctx.path_of(artifact).exists():
        return []
    return load_version(ctx.path_of(artifact)).all_rows()


def all_findings(checked: Checked) -> list[Finding]:
    """Return what reading and the steps found, and the rows that would tie sides together."""
    unread = (*checked.read.rejected, *checked.read.skipped)
    rejected = [Finding(r.finding_id, r.reason, r.source) for r in unread]
    mended = [Finding("D3-L01", "read from its repair", place) for place in checked.read.mended]
    left = [
        Finding(item.finding_id, item.reason, item.example.origin.source, item.example.id)
        for item in checked.result.dropped
        if item.finding_id == "D10-X01"
    ]
    return [*rejected, *mended, *checked.result.findings, *left]


def _rejected_row(item: Rejected) -> dict[str, Any]:
    file, _, line = item.source.rpartition(":")
    return {
        "finding": item.finding_id,
        "reason": reason(item.finding_id, item.reason),
        "file": file or item.source,
        "line": int(line) if line.isdigit() else None,
        "id": None,
        "cause": None,
        "row": item.raw,
    }


def waiting_rows(checked: Checked) -> list[dict[str, Any]]:
    """Return the rows that wait for a person, in the form of quarantine.jsonl."""
    rejected = [_rejected_row(item) for item in checked.read.rejected]
    return [*rejected, *(item.as_dict() for item in checked.result.quarantined)]


def skipped_rows(checked: Checked) -> list[dict[str, Any]]:
    """Return the log entries that nobody has to mend, in the form of dropped.jsonl."""
    return [_rejected_row(item) for item in checked.read.skipped]


def first_waiting(waiting: list[dict[str, Any]]) -> str | None:
    """Return the place and reason of the first waiting row, or None."""
    if not waiting:
        return None
    row = waiting[0]
    place = f"{row['file']}:{row['line']}" if row["line"] else row["file"]
    return f"{place}: {row['reason']}"
