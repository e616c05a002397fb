"""Training in stages: what is trained before the project's own rows, each stage from the last.

A stage has rows of its own (read, checked, and held apart from the project's validation and test
rows), a plan, a run folder and an artifact; unchanged stages are skipped, a killed one goes on.
The project's own training is not carried out here, it only starts from what this returns.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import Artifact, describe, hash_file
from tutelage.core.config import Output, Stage, Train
from tutelage.core.errors import ConfigError, DataError, TutelageError
from tutelage.core.events import Event, EventKind
from tutelage.core.example import Example, SplitName
from tutelage.data.benchmarks import BenchmarkText, without_matches
from tutelage.data.pipeline import Dropped
from tutelage.data.version import VersionDraft, load_version, write_version
from tutelage.workflows.context import Context, StageOutcome, run_stage
from tutelage.workflows.training.plan import plan
from tutelage.workflows.training.plan_checks import (
    require_machine,
    require_recipe,
    require_settings,
    require_wanted,
)

if TYPE_CHECKING:
    from tutelage.training.planner import Plan

# (context of the stage, its rows, what it starts from, its name) -> what was trained
CarryOut = Callable[[Context, Artifact, Artifact | None, str], StageOutcome]

KIND = "stage_rows"
_STAGE = "train"
_SAME = (
    "tune", "rank", "alpha", "dropout", "target_modules", "peft", "precision", "attention",
    "strategy", "offload", "processes", "launcher", "tracker", "hour_price",
)  # fmt: skip
_SHAPE = ("rank", "alpha", "target_modules")  # of an adapter
_MOVING = ("pissa", "olora")
# adapters of one shape, which differ in their rates or in how the base is held
_ALIKE = {"lora_plus": "lora", "loraplus": "lora", "qlora": "lora", "rs_lora": "rslora"}
_HEAD = "classify"  # the method that puts a head on the model
_PLANNED = "lora"  # what is trained where nobody says it, or qlora


def before(ctx: Context, dataset: Artifact, carry_out: CarryOut) -> Artifact | None:
    """Train every stage of train.before in order; return what the last one gave, if there is one.

    `dataset` is the project's own version: none of its validation and test rows is trained on.
    Errors name the stage they are of.
    """
    earlier: Artifact | None = None
    stages = ctx.config.train.before
    _require_same(ctx)
    if stages:
        require_settings(ctx)  # else it is known when the stages are trained
    for number, stage in enumerate(stages, start=1):
        inner = stage_context(ctx, stage)
        told = f"stage {number} of {len(stages) + 1}: {', '.join(stage.sources)}"
        ctx.emit(Event(_STAGE, "note", told, data={"stage": number}))
        with _naming(number):
            rows = stage_rows(inner, stage, number, dataset)
            earlier = carry_out(inner, rows.artifact, earlier, f"train-{number}").artifact
    return earlier


def plans(ctx: Context, dataset: Artifact) -> list[Plan]:
    """Return the plan of every stage before the project's own training; nothing is trained.

    The minutes are computed, not timed: a later stage has no weights to start from yet.
    """
    _require_same(ctx)
    made: list[Plan] = []
    for number, stage in enumerate(ctx.config.train.before, start=1):
        inner = stage_context(ctx, stage)
        with _naming(number):
            rows = stage_rows(inner, stage, number, dataset).artifact
            require_settings(inner)
            made.append(plan_after(inner, rows, _recipe(made), probe=False))
            require_recipe(made[-1].recipe)
            require_machine(inner, made[-1].recipe)
    return made


def planned(ctx: Context, dataset: Artifact, *, probe: bool = True) -> tuple[list[Plan], Plan]:
    """Return the plans of all stages, and that of the project's own training after them.

    Raises an error for what the run would fail of.
    """
    require_settings(ctx)
    made = plans(ctx, dataset)
    own = plan_after(ctx, dataset, _recipe(made), probe=probe)
    require_recipe(own.recipe)
    require_machine(ctx, own.recipe)
    return made, own


def require_plans(ctx: Context, dataset: Artifact) -> None:
    """Raise what any stage, or the training after them, would fail of or is refused for.

    It is asked before the first stage is trained; with everything trained nobody has to.
    """

    def emit(event: Event) -> None:
        if not event.data.get("skipped"):  # it is told when it is the stage's turn
            ctx.emit(event)

    made, own = planned(replace(ctx, emit=emit), dataset, probe=False)
    for number, each in enumerate(made, start=1):
        with _naming(number):
            require_wanted(each)
    require_wanted(own)


def plan_after(
    ctx: Context, dataset: Artifact, earlier: Mapping[str, Any] | None, *, probe: bool = True
) -> Plan:
    """Return the plan of a training that goes on from one with the recipe `earlier`, if any."""
    if earlier is None:
        return plan(ctx, dataset, probe=probe)
    same = _left_open(ctx, earlier)
    made = plan(_with(ctx, same), dataset, probe=probe)
    told = {"reason": "as the stage before", "source": "train.before"}
    choices = [c.model_copy(update=told) if c.name in same else c for c in made.choices]
    return made.model_copy(update={"choices": choices})


def _recipe(made: Sequence[Plan]) -> dict[str, Any] | None:
    """Return what the last of the plans so far trains with."""
    return made[-1].recipe.model_dump(mode="json") if made else None


@contextlib.contextmanager
def _naming(number: int) -> Iterator[None]:
    """Say in an error which stage it is of."""
    try:
        yield
    except TutelageError as error:
        error.at(f"train.before, stage {number}", "the stage's sources")
        raise


def _require_same(ctx: Context) -> None:
    """Raise ConfigError if a stage trains other weights, or such as have a start of their own."""
    for number, stage in enumerate(ctx.config.train.before, start=1):
        place = f"train.before, stage {number}"
        for part in (stage, ctx.config.train):
            moving = next((name for name in (part.tune, part.method) if name in _MOVING), None)
            if moving:
                raise ConfigError(
                    f"{moving} starts from the base model's own weights, so it can't go on from "
                    "a stage, nor a stage from it",
                    where=place,
                    fix="Take lora, dora or full, or train without stages",
                )
        _require_weights(ctx, stage, place)
        _require_head(ctx, number, place)
        for name in ("rank", "target_modules"):
            own, ours = getattr(stage, name), getattr(ctx.config.train, name)
            if own is not None and own != ours:
                raise ConfigError(
                    f"the stage's {name} is {own}, the project's is {ours or 'planned'}: a stage "
                    "can only go on from the same weights",
                    where=place,
                    fix=f"Set {name} under train alone: it holds for every stage",
                )


def _require_weights(ctx: Context, stage: Stage, place: str) -> None:
    """Raise ConfigError if what the stage trains is not what the project's own training trains."""
    ours = ctx.config.train
    kinds = [_trained(part) or _PLANNED for part in (stage_context(ctx, stage).config.train, ours)]
    if _ALIKE.get(kinds[0], kinds[0]) == _ALIKE.get(kinds[1], kinds[1]):
        return
    told = kinds[1] if _trained(ours) else f"{kinds[1]}, as planned"
    field = "method" if ours.method == "auto" or _named(ours) else "tune"
    raise ConfigError(
        f"the stage trains {kinds[0]}, the project's own training {told}: a stage can only go on "
        "from the same weights",
        where=place,
        fix=f"Set train.{field}: {kinds[0]}, or let the stage's method and tune be the project's",
    )


def _require_head(ctx: Context, number: int, place: str) -> None:
    """Raise ConfigError if a stage trains a head that what comes after it has not."""
    stages = [stage_context(ctx, stage).config for stage in ctx.config.train.before]
    own, after = stages[number - 1], [*stages, ctx.config][number]
    if own.train.method != _HEAD:
        return
    if after.train.method != _HEAD:
        told = "planned" if after.train.method == "auto" else after.train.method
        raise ConfigError(
            f"the stage trains a classification head, and the next training ({told}) has none to "
            "go on from",
            where=place,
            fix=f"Set the method of both to {_HEAD}, or take lora for the stage",
        )
    if own.output.labels != after.output.labels:
        raise ConfigError(
            "the stage's classification head has other labels than the next training's",
            where=place,
            fix="Give both the same output.labels, or take lora for the stage",
        )


def _named(train: Train) -> str | None:
    """Return the method of `train` if it is the name of what is trained, an adapter or full."""
    from tutelage.training.planner_rules import OBJECTIVES

    plain = train.method.lower().replace("-", "_").replace("+", "_plus")
    return None if plain in ("auto", "hosted", *OBJECTIVES) else plain


def _trained(train: Train) -> str | None:
    """Return what the settings say is trained; None leaves it to the plan."""
    return _named(train) or train.tune


def stage_context(ctx: Context, stage: Stage) -> Context:
    """Return the project as a stage sees it: its own settings where it has some.

    What decides which weights are trained is the project's, so that the next stage can go on.
    """
    config = ctx.config
    task = _task(ctx, stage)
    shape = Output() if task == "text" else config.output
    own = stage.model_fields_set
    values = stage.model_dump(include=set(Train.model_fields) - {"before"})
    values |= {name: getattr(config.train, name) for name in _SAME if name not in own}
    named = _named(config.train)
    if stage.method == "auto" and named and task != "text":
        values["method"] = named
    if values["tune"] is None and named:
        values["tune"] = named
    data = config.data.model_copy(update={"sources": stage.sources, "columns": stage.columns})
    changed = config.model_copy(
        update={
            "task": task,
            "prompt": config.prompt if stage.prompt is None else stage.prompt,
            "output": shape if stage.output is None else stage.output,
            "data": data,
            "train": Train.model_validate(values),
        }
    )
    return replace(ctx, config=changed)


def going_on(ctx: Context, earlier: Artifact) -> Context:
    """Return the project with the adapter that `earlier` trained, where it leaves that to the plan.

    Plans differ with the rows, and a stage can only go on from the same weights.
    """
    return _with(ctx, _left_open(ctx, earlier.meta.get("recipe", {})))


def _left_open(ctx: Context, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return of the weights' shape in `recipe` what the project leaves to the plan."""
    train = ctx.config.train
    shape = _SHAPE if recipe.get("tune") != "full" else ("target_modules",)
    return {name: recipe[name] for name in shape if getattr(train, name) is None and name in recipe}


def _with(ctx: Context, settings: Mapping[str, Any]) -> Context:
    train = ctx.config.train.model_copy(update=dict(settings))
    return replace(ctx, config=ctx.config.model_copy(update={"train": train}))


def _task(ctx: Context, stage: Stage) -> Any:
    if stage.task is not None:
        return stage.task
    return "text" if stage.method == "cpt" else ctx.config.task


def text_facts(method: str, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what training on raw text did to the perplexity of held-out text, if it is known.

    Perplexity is e to the loss in nats a token: before the first step, and at its lowest.
    """
    losses = [point["validation_loss"] for point in history if "validation_loss" in point]
    if method != "cpt" or not losses:
        return {}
    was, now = (round(math.exp(min(loss, 700.0)), 2) for loss in (losses[0], min(losses)))
    told = f"held-out perplexity {was:,.1f} → {now:,.1f}"
    return {"perplexity": {"before": was, "after": now}, "summary": told}


def stage_rows(ctx: Context, stage: Stage, number: int, dataset: Artifact) -> StageOutcome:
    """Return the frozen rows of a stage; `ctx` is the stage's own.

    Raises DataError if its sources hold nothing to train on.
    """
    from tutelage.data.readers.files import find_files, shown

    root = ctx.workspace.root
    paths = find_files(root, stage.sources, [], ctx.config.task)
    sources = {shown(path, root): hash_file(path) for path in paths}
    version = load_version(ctx.path_of(dataset))
    inputs = {
        "sources": sources,
        "held_out": version.manifest.get("rows_hash", dataset.hash),
        "validation": stage.validation,
        "data": ctx.config.data.model_dump(mode="json"),
        "task": ctx.config.task,
        "output": ctx.config.output.model_dump(mode="json"),
    }
    held_out = [*version.rows("validation"), *version.rows("test")]
    return run_stage(
        ctx, f"rows-{number}", inputs, lambda: _make_rows(ctx, stage, number, held_out, sources)
    )


def apart(
    rows: Sequence[Example], held_out: Sequence[Example]
) -> tuple[list[Example], list[Dropped]]:
    """Return the rows that resemble no held-out one, and the others with the reason.

    A row resembles one if its input is the same or nearly the same, or shares a run of 13 words
    (of 8 to 12 with a text that is no longer).
    """
    texts = [
        BenchmarkText(text, f"the held-out row {row.origin.source or row.id}")
        for row in held_out
        for text in dict.fromkeys((row.input_text, row.answer or ""))
        if text.strip() and (text == row.input_text or len(text.split()) >= 8)
    ]
    if not rows or not texts:
        return list(rows), []
    return without_matches(rows, texts)


def _make_rows(
    ctx: Context, stage: Stage, number: int, held_out: Sequence[Example], sources: dict[str, str]
) -> Artifact:
    from tutelage.data.assign import cluster_rows
    from tutelage.data.pipeline import run_steps
    from tutelage.workflows.data import check

    read = check.read_rows(ctx)
    for line in read.detected:
        ctx.emit(Event(_STAGE, "note", line))
    steps = check.steps(ctx, keep=True)[:-1]  # the last compares with the project's own version
    result = run_steps(read.examples, steps)
    kept, leaked = apart(result.kept, held_out)
    if leaked:
        text = f"{len(leaked)} rows resemble held-out rows and are left out: {leaked[0].reason}"
        ctx.emit(Event(_STAGE, "warning", text))
    if not kept:
        raise DataError(
            "no row of the stage's sources can be trained on",
            where=", ".join(sources),
            fix="Bring other rows; those left out were unusable or are held out for the test",
        )
    clusters = cluster_rows(kept, ctx.config.data.dedup.threshold)
    sides = _sides(kept, clusters, stage.validation)
    checked = check.Checked(read, result)
    quarantine = check.waiting_rows(checked)
    dropped = check.skipped_rows(checked)
    dropped += [item.as_dict() for item in (*result.dropped, *leaked)]
    meta = {"project": ctx.config.name, "sources": sources, "stage": number}
    draft = VersionDraft(sides, clusters, dropped, quarantine, meta)
    version = write_version(ctx.workspace.artifacts / "stages", draft)
    counts = {side: count for side, count in version.manifest["counts"].items() if count}
    lost = {"dropped": len(dropped), "quarantined": len(quarantine)}
    path = ctx.workspace.relative(version.directory)
    told = ", ".join(f"{count} {name}" for name, count in {**counts, **lost}.items() if count)
    kind: EventKind = "warning" if quarantine else "note"
    ctx.emit(Event(_STAGE, kind, f"rows of stage {number}: {told} ({path})", data=lost))
    facts = json.loads(json.dumps({**meta, **lost, "counts": counts}))
    return describe(KIND, version.hash, path, meta=facts)


def _sides(
    rows: Sequence[Example], clusters: dict[str, str], validation: float
) -> dict[SplitName, list[Example]]:
    """Return the rows to train on and those that say when to stop; none is a test row."""
    from tutelage.core.config import Splits
    from tutelage.data.assign import assign

    splits = Splits(train=1 - validation, validation=validation, test=0)
    given = assign(rows, clusters, splits, {})
    sides: dict[SplitName, list[Example]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        sides[given.sides.get(row.id, "train")].append(row)
    return sides
