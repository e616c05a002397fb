"""Whether an answer can be one: the same rules that curation will apply to the row."""

from __future__ import annotations

from tutelage.core.config import Project as Settings
from tutelage.core.errors import DataError
from tutelage.data.annotation.items import Item, answered
from tutelage.data.filters.base import Filter, FilterSettings, load_filters
from tutelage.data.findings import catalogue
from tutelage.data.readers.turns import Unusable
from tutelage.workflows.context import Context, last_output
from tutelage.workflows.data.check import shaper_of

_LAYERS = ("schema", "content")


def is_labelled(config: Settings) -> bool:
    """Return whether the project's answers are labels."""
    closed = bool(config.output.labels or config.output.field)
    return closed or config.task == "classification"


def known_labels(ctx: Context) -> list[str]:
    """Return the labels to choose from: the settings' list, or those the dataset has."""
    config = ctx.config
    if config.output.labels or not is_labelled(config):
        return list(config.output.labels or ())
    artifact = last_output(ctx, "curate")
    return sorted(artifact.meta.get("labels", {})) if artifact is not None else []


def checked_answer(
    ctx: Context, item: Item, label: str | None, answer: str | None
) -> tuple[str | None, str | None]:
    """Return (label, answer) as they are kept: one of them is set.

    A label is brought into the list's spelling. Raises DataError with the reason, the nearest
    label and what to do.
    """
    config = ctx.config
    if is_labelled(config):
        value = label if label is not None else answer
        if value is None or not value.strip():
            raise DataError("the answer has no label", where=item.id, fix="Choose one, or skip")
        try:
            found = shaper_of(ctx).answer(value)
        except Unusable as problem:
            raise _refused(problem.finding_id, problem.detail, item) from problem
        return found[1], None
    text = answer if answer is not None else label
    if text is None or not text.strip():
        raise DataError("the answer is empty", where=item.id, fix="Write it, or skip the item")
    plain = text.strip() if config.task != "code" else text.strip("\n")
    row = answered(item.example, None, plain, config.output.format())
    for layer in _layers(ctx):
        for finding in layer.check(row):
            if finding.kind.severity == "error":
                raise _refused(finding.id, finding.detail, item)
    return None, plain


def _layers(ctx: Context) -> list[Filter]:
    """Return the layers that look at one row."""
    config = ctx.config
    settings = FilterSettings(
        task=config.task,
        output=config.output.format(),
        json_schema=config.output.json_schema,
        max_tokens=config.data.max_tokens,
    )
    loaded = load_filters(settings)
    return [loaded[name] for name in _LAYERS if name in loaded]


def _refused(finding_id: str, detail: str, item: Item) -> DataError:
    return DataError(detail, where=item.id, fix=catalogue()[finding_id].fix)
