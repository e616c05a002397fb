"""General text beside a stage's own rows: drawn from the base model or read from a file.

What is replayed becomes an artifact of its own, a parent of what is trained with it. How much is
the plan's; replayed rows are never in validation or test.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import Artifact, content_hash, describe, hash_file
from tutelage.core.config import Columns
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.core.workspace import atomic_dir, atomic_write
from tutelage.data.version import json_lines
from tutelage.workflows.context import Context, register

if TYPE_CHECKING:
    from tutelage.training.job import TrainingJob
    from tutelage.training.recipe import Recipe
    from tutelage.training.replay import Kind

STAGE = "replay"
MOST_OWN = 512  # samples that are drawn of a base model, at most
_OWN = "own"
_WITHOUT = ("cloze", "classify", "dpo", "kto")  # methods whose rows are of another shape
_BYTES_A_TOKEN = 2  # fewer than any tokenizer needs for prose: errs to the short side


def fingerprint(ctx: Context) -> dict[str, str]:
    """Return the hash of the file that train.replay_from names; nothing for the model's own."""
    source = ctx.config.train.replay_from
    if source == _OWN:
        return {}
    path = ctx.workspace.root / source
    if not path.is_file():
        raise ConfigError(
            f"there is no file {source!r}",
            where="train.replay_from",
            fix="Name a file of general text, relative to the project, or `own`",
        )
    return {source: hash_file(path)}


def require_use(recipe: Recipe) -> None:
    """Raise ConfigError for general text beside a method that has no use for it."""
    if recipe.replay > 0 and recipe.method in _WITHOUT:
        raise ConfigError(
            f"train.replay has no meaning for {recipe.method!r}",
            where="train.replay",
            fix="Remove it",
        )


def with_replay(
    ctx: Context, job: TrainingJob, held_out: Sequence[Example]
) -> tuple[TrainingJob, Artifact | None]:
    """Return the job with `recipe.replay` of its rows being general text, and what that text is.

    A file's rows that resemble a row of `held_out` are left out. Raises ConfigError for a method
    that has no use for general text.
    """
    from tutelage.training.replay import mix

    share = job.recipe.replay
    if share <= 0 or not job.train:
        return job, None
    require_use(job.recipe)
    sources = fingerprint(ctx)
    rows = _own(ctx, job) if not sources else _from_file(ctx, job, held_out)
    if not rows:
        return job, None
    artifact = _keep(ctx, rows, sources, job)
    ctx.emit(Event(STAGE, "note", artifact.meta["summary"], data={"rows": len(rows)}))
    mixed = mix(job.train, rows, job.recipe.seed)
    return replace(job, train=mixed), artifact


def _own(ctx: Context, job: TrainingJob) -> list[Example]:
    """Return the base model's own samples: as many rows, or as much text, as the share asks."""
    from tutelage.training.replay import LONG, own_samples, replay_count

    folder, share = ctx.workspace.home / "replay", job.recipe.replay
    if job.recipe.method != "cpt":
        count = min(MOST_OWN, replay_count(len(job.train), share))
        return [
            row
            for kind, part in _parts(count)
            for row in own_samples(job.model, kind, part, folder, emit=ctx.emit)
        ]
    wanted = _size(job.train) * share / (1 - share)
    count = 8
    while True:
        count = min(MOST_OWN, count)
        rows = own_samples(job.model, "text", count, folder, sampling=LONG, emit=ctx.emit)
        if _size(rows) >= wanted or count == MOST_OWN or len(rows) < count:
            return _up_to(rows, wanted)
        count += max(8, round(count * (wanted / max(1, _size(rows)) - 1)))


def _parts(count: int) -> list[tuple[Kind, int]]:
    """Return how many samples of each kind: texts, and answers to requests, in turn."""
    from tutelage.training.replay import KINDS

    found = [(kind, (count + i) // len(KINDS)) for i, kind in enumerate(reversed(KINDS))]
    return [(kind, part) for kind, part in found if part]


def _from_file(ctx: Context, job: TrainingJob, held_out: Sequence[Example]) -> list[Example]:
    """Return rows of the user's file, in an order drawn by the seed."""
    from tutelage.data.readers.base import read_sources
    from tutelage.training.replay import KEY, replay_count
    from tutelage.workflows.training.stages import apart

    source = ctx.config.train.replay_from
    try:
        read = read_sources(ctx.workspace.root, [source], Columns(), OutputFormat(), "text")
    except DataError as error:
        error.at("train.replay_from", "train.replay_from")
        raise
    kept, dropped = apart(read.examples, held_out)
    if dropped:
        many = "1 row" if len(dropped) == 1 else f"{len(dropped)} rows"
        text = f"{many} of {source}, held out here, not replayed"
        ctx.emit(Event(STAGE, "warning", text))
    pretraining = job.recipe.method == "cpt"
    rows = kept if pretraining else _short(kept, _BYTES_A_TOKEN * job.recipe.max_tokens)
    random.Random(job.recipe.seed).shuffle(rows)
    share = job.recipe.replay
    if pretraining:
        rows = _up_to(rows, _size(job.train) * share / (1 - share))
    else:
        rows = rows[: replay_count(len(job.train), share)]
    return [row.model_copy(update={"meta": {**row.meta, KEY: "file"}}) for row in rows]


def _short(rows: Sequence[Example], limit: int) -> list[Example]:
    """Return texts in passages of at most `limit` characters; conversations stay whole."""
    from tutelage.data.readers.documents import passages

    found: list[Example] = []
    for row in rows:
        if not row.is_text:
            found.append(row)
            continue
        parts = list(passages([row.answer or ""], limit))
        for number, text in enumerate(parts, start=1):
            update: dict[str, Any] = {"messages": (Message(role="assistant", content=text),)}
            if number < len(parts):
                update["meta"] = {**row.meta, "open": True}
            found.append(row.model_copy(update=update))
    return found


def _size(rows: Sequence[Example]) -> int:
    """Return the length of all texts in characters."""
    return sum(len(turn.content) for row in rows for turn in row.messages)


def _up_to(rows: Sequence[Example], wanted: float) -> list[Example]:
    """Return the first rows that together have `wanted` characters; the last text is cut there."""
    found: list[Example] = []
    left = max(1, round(wanted))
    for row in rows:
        if left <= 0:
            break
        found.append(_cut(row, left))
        left -= _size([row])
    return found


def _cut(row: Example, size: int) -> Example:
    """Return a text's first `size` characters, left open; a shorter one, or a talk, stays whole."""
    if not row.is_text or _size([row]) <= size:
        return row
    text = (row.answer or "")[:size]
    words = text.rpartition(" ")[0].strip() or text
    turns = (Message(role="assistant", content=words),)
    alone = {name: value for name, value in row.meta.items() if name not in ("document", "passage")}
    return row.model_copy(update={"messages": turns, "meta": {**alone, "open": True}})


def _keep(
    ctx: Context, rows: Sequence[Example], sources: dict[str, str], job: TrainingJob
) -> Artifact:
    """File the replayed rows under their content and return their artifact."""
    lines = json_lines(row.model_dump(mode="json", exclude_defaults=True) for row in rows)
    digest = content_hash({"replay": lines})
    folder = ctx.workspace.artifact_dir("replay", digest)
    atomic_dir(folder, lambda target: atomic_write(target / "rows.jsonl", lines.encode()))
    what = f"of {next(iter(sources))}" if sources else f"that {job.model.name} wrote itself"
    unit = "row" if job.recipe.method != "cpt" else "text"
    part = _size(rows) / (_size(rows) + _size(job.train))
    if job.recipe.method != "cpt":
        part = len(rows) / (len(rows) + len(job.train))
    meta = {
        "summary": f"{len(rows)} {unit}{'s' if len(rows) != 1 else ''} {what}, {part:.0%} of the "
        f"training {unit}s",
        "rows": len(rows),
        "share": round(part, 4),
        "sources": sources,
    }
    path = ctx.workspace.relative(folder)
    return register(ctx.store, describe("replay", digest, path, seed=job.recipe.seed, meta=meta))
