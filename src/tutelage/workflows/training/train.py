"""Carry a training plan out: the dataset version in, an adapter artifact out.

The run's folder is named by what goes into it, so a run that was killed is found and continued;
its plan is kept there and holds for the rest of the run, unless somebody has edited it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import MANIFEST, Artifact, content_hash, describe, hash_files
from tutelage.core.errors import ConfigError, Conflict, DataError
from tutelage.core.events import Event
from tutelage.core.lock import sole
from tutelage.core.workspace import atomic_dir, atomic_write
from tutelage.data.version import DatasetVersion, load_version
from tutelage.inference.models import locate_model
from tutelage.inference.tuned import tuned_files
from tutelage.workflows.context import Context, StageOutcome, run_stage
from tutelage.workflows.data.preferences import material
from tutelage.workflows.training.plan import make_job
from tutelage.workflows.training.plan_checks import require_machine, require_recipe, require_wanted
from tutelage.workflows.training.replay import fingerprint, with_replay
from tutelage.workflows.training.stages import (
    CarryOut,
    before,
    plan_after,
    require_plans,
    text_facts,
)

if TYPE_CHECKING:
    from tutelage.training.job import TrainingJob, TrainResult
    from tutelage.training.planner import Plan
    from tutelage.training.tracker import Tracker

STAGE = "train"
_PLAN = "plan.json"
_DIGEST = "digest"  # the hash of the plan's other fields: a plan that was edited is none
# what does not change the outcome; a run that was cut off keeps its own plan
NO_MATTER = {"tracker", "processes", "launcher", "checkpoint_every", "hour_price", "force"}


def train(ctx: Context, dataset: Artifact, *, yes: bool = False) -> StageOutcome:
    """Train as planned and return the adapter's artifact; a run that was cut off goes on.

    The stages of train.before come first. With train.method: hosted a service tunes, and `yes`
    allows the upload. Raises PlanRefused if the planner advises against it (train.force
    overrides), DataError if no row can be trained on.
    """
    if ctx.config.train.method == "hosted":
        from tutelage.workflows.training.hosted import train_hosted

        return train_hosted(ctx, dataset, yes=yes)
    return carry_out(ctx, dataset, before(ctx, dataset, carry_out_after_checks(ctx, dataset)))


def carry_out_after_checks(ctx: Context, dataset: Artifact) -> CarryOut:
    """Return `carry_out` for the stages before: all plans are looked at before one is trained."""
    return partial(carry_out, first=cache(lambda: require_plans(ctx, dataset)))


def carry_out(
    ctx: Context,
    dataset: Artifact,
    earlier: Artifact | None,
    stage: str = STAGE,
    *,
    first: Callable[[], None] = lambda: None,
) -> StageOutcome:
    """Train on one set of rows, from the weights of `earlier` on; `stage` is its name.

    `first` is called if there is anything to train.
    """
    dataset = material(ctx, dataset)
    version = load_version(ctx.path_of(dataset))
    inputs = _inputs(ctx, dataset, version, earlier)
    run_dir = _run_dir(ctx, inputs)
    parents = [dataset, *([earlier] if earlier else [])]
    taken = Conflict(
        "another process trains this run",
        where=str(run_dir),
        fix="Wait for it, or stop it, and run the same command again: it goes on where that was",
    )
    lock = run_dir.with_name(f".{run_dir.name}.lock")

    def work() -> Artifact:
        first()
        return _work(ctx, parents, version, run_dir)

    with sole(lock, taken):
        outcome = run_stage(ctx, stage, inputs, work)
        if not outcome.skipped:
            shutil.rmtree(run_dir, ignore_errors=True)
            _tell_left(ctx, run_dir)
        lock.unlink(missing_ok=True)
    return outcome


def _tell_left(ctx: Context, run_dir: Path) -> None:
    """Say which runs of other settings were cut off and lie there still."""
    for other in sorted(run_dir.parent.glob("train-*/checkpoints")):
        size = sum(file.stat().st_size for file in other.rglob("*") if file.is_file())
        text = (
            f"a run with other settings that has not ended lies in {other.parent} "
            f"({size / 1e6:,.0f} MB): it goes on when those settings are back, or delete it"
        )
        ctx.emit(Event(STAGE, "note", text))


def prepare(ctx: Context, dataset: Artifact) -> Path:
    """Plan, write the job into its run's folder and return that: others will do the work.

    When they have, `train` files what they left there. The stages of train.before are done here.
    """
    from tutelage.training.job_files import write_job

    if ctx.config.train.method == "hosted":
        raise ConfigError("a service runs its own machines", where="train.method",
                          fix="Run `tutelage train`")  # fmt: skip
    earlier = before(ctx, dataset, carry_out_after_checks(ctx, dataset))
    dataset = material(ctx, dataset)
    version = load_version(ctx.path_of(dataset))
    run_dir = _run_dir(ctx, _inputs(ctx, dataset, version, earlier))
    parents = [dataset, *([earlier] if earlier else [])]
    return write_job(_job(ctx, parents, version, run_dir)[1])


def _inputs(
    ctx: Context, dataset: Artifact, version: DatasetVersion, earlier: Artifact | None
) -> dict[str, Any]:
    """Return what decides a run's outcome."""
    config = ctx.config
    return {
        "rows": version.manifest.get("rows_hash", dataset.hash),
        "model": locate_model(config.model, ctx.workspace.root).digest,
        "prompt": config.prompt,
        "task": config.task,
        "train": config.train.model_dump(mode="json", exclude=NO_MATTER),
        "start": earlier.hash if earlier else None,
        "replay": fingerprint(ctx),
    }


def _run_dir(ctx: Context, inputs: dict[str, Any]) -> Path:
    return ctx.workspace.runs / f"train-{content_hash(inputs)[:12]}"


def _work(
    ctx: Context, parents: list[Artifact], version: DatasetVersion, run_dir: Path
) -> Artifact:
    from tutelage.training.job_files import read_result
    from tutelage.training.launch import run

    tracker = tracker_of(ctx, run_dir)  # a name it can't be is said before the planning
    here = read_result(run_dir) is None  # else other machines have done it
    made, job, replayed = _job(ctx, parents, version, run_dir, here=here)
    settings = ctx.config.train
    result = run(
        replace(job, tracker=tracker),
        processes=settings.processes,
        launcher=settings.launcher,
        emit=ctx.emit,
    )
    return _file(ctx, [*parents, *([replayed] if replayed else [])], made, result, run_dir)


def _job(
    ctx: Context,
    parents: list[Artifact],
    version: DatasetVersion,
    run_dir: Path,
    *,
    here: bool = False,
) -> tuple[Plan, TrainingJob, Artifact | None]:
    """Return the plan, the job as planned, and the replayed rows that are in it.

    With `here` this machine is to carry it out, and must be able to.
    """
    dataset, *earlier = parents
    recipe = earlier[0].meta.get("recipe", {}) if earlier else None
    made = _kept_plan(ctx, run_dir) or plan_after(ctx, dataset, recipe)
    require_recipe(made.recipe)
    if here:
        require_machine(ctx, made.recipe)
    ctx.emit(Event("plan", "note", data={"plan": made.model_dump(mode="json")}))
    require_wanted(made)
    if not version.rows("train"):
        raise DataError("the train split is empty", where=str(version.directory))
    _keep_plan(run_dir, made)
    start = ctx.path_of(earlier[0]) if earlier else None
    job = make_job(ctx, version, made.recipe, run_dir, start=start)
    held = [*version.rows("validation"), *version.rows("test")]
    return made, *with_replay(ctx, job, held)


def _keep_plan(run_dir: Path, made: Plan) -> None:
    plan = made.model_dump(mode="json")
    text = json.dumps({**plan, _DIGEST: content_hash(plan)}, indent=2, ensure_ascii=False)
    atomic_write(run_dir / _PLAN, (text + "\n").encode())


def _kept_plan(ctx: Context, run_dir: Path) -> Plan | None:
    """Return the plan of a run that was cut off, so that it ends as it began.

    One that was edited is not followed, and that is said.
    """
    from pydantic import ValidationError

    from tutelage.training.planner import Plan

    path = run_dir / _PLAN
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_bytes())
        digest = plan.pop(_DIGEST, None)
        if digest is not None and content_hash(plan) == digest:
            return Plan.model_validate(plan)
        changed = digest is not None
    except ValidationError:
        return None  # of another version of this program: plan anew
    except (ValueError, AttributeError):
        changed = True
    if changed:
        text = (
            f"{path} was changed after the run began: it is planned anew, as tutelage.yaml says. "
            "Settings are made there, under train"
        )
        ctx.emit(Event(STAGE, "warning", text))
    return None


def tracker_of(ctx: Context, run_dir: Path, parent: Path | None = None) -> Tracker:
    """Return what `train.tracker` names, for the run in `run_dir`, a part of that in `parent`."""
    from tutelage.training.tracker import TrackedRun, make_tracker

    def warn(text: str) -> None:
        ctx.emit(Event(STAGE, "warning", text))

    run = TrackedRun(ctx.workspace, ctx.config.name, run_dir, parent, warn)
    return make_tracker(ctx.config.train.tracker, run)


def _summary(result: TrainResult) -> str:
    many = f"{result.steps} step{'s' if result.steps != 1 else ''}"
    best = f"best at {result.best_step}" if result.best_step else "none better than the start"
    text = f"{many}, {best}, {result.stopped}"
    share = result.interpolation["share"]
    return text if share == 1.0 else f"{text}, {share:.0%} of the change kept"


def _file(
    ctx: Context, parents: list[Artifact], made: Plan, result: TrainResult, run_dir: Path
) -> Artifact:
    """Move the adapter to its content-addressed folder and describe it."""
    files = tuned_files(result.adapter_dir)
    digest = hash_files(result.adapter_dir, files)
    folder = ctx.workspace.artifact_dir("adapters", digest)

    def fill(target: Path) -> None:
        for name in files:
            shutil.copyfile(result.adapter_dir / name, target / name)
        for name in (_PLAN, "history.json"):
            shutil.copyfile(run_dir / name, target / name)

    atomic_dir(folder, fill)
    meta = {
        "model": ctx.config.model,
        "run": run_dir.name,  # as trackers call it
        "method": made.recipe.method,
        "recipe": made.recipe.model_dump(mode="json"),
        "planned_seconds": made.seconds,
        "planned_memory_mb": made.memory.total_mb,
        "best_step": result.best_step,
        "steps": result.steps,
        "stopped": result.stopped,
        "seconds": result.seconds,
        "peak_memory_mb": result.peak_memory_mb,
        "trainable": result.trainable,
        "coverage": result.coverage,
        "prefix": result.prefix,
        "interpolation": result.interpolation,
        "summary": _summary(result),
        **text_facts(made.recipe.method, result.history),
    }
    artifact = describe(
        "adapter", digest, ctx.workspace.relative(folder), parents=[p.hash for p in parents],
        seed=made.recipe.seed, meta=json.loads(json.dumps(meta)),
    )  # fmt: skip
    if not (folder / MANIFEST).exists():
        atomic_write(folder / MANIFEST, artifact.model_dump_json(indent=2).encode())
    return artifact
