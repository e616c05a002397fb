"""Search the training settings of a project: the plan and its rivals, on validation rows alone.

The dataset version is opened without its test split, so nothing here can read it. What is found
is advice: tutelage.yaml changes only when asked (search_write.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import MANIFEST, Artifact, content_hash, describe
from tutelage.core.config import Train
from tutelage.core.errors import ConfigError, DataError, EnvironmentProblem
from tutelage.core.events import Event, silent
from tutelage.core.example import SplitName
from tutelage.core.workspace import atomic_dir, atomic_write
from tutelage.data.version import DatasetVersion, load_version
from tutelage.inference.models import locate_model
from tutelage.workflows.context import Context, run_stage
from tutelage.workflows.data.preferences import material
from tutelage.workflows.training.plan import make_job, plan_rows
from tutelage.workflows.training.plan_checks import (
    require_machine,
    require_recipe,
    require_settings,
    require_wanted,
)
from tutelage.workflows.training.replay import fingerprint, with_replay
from tutelage.workflows.training.search_report import fragment, report_page
from tutelage.workflows.training.stages import before, going_on
from tutelage.workflows.training.train import NO_MATTER, carry_out_after_checks, tracker_of

if TYPE_CHECKING:
    from tutelage.training.job import TrainingJob
    from tutelage.training.planner import Plan
    from tutelage.training.search import Findings, SearchJob

STAGE = "search"
OPEN_SPLITS: tuple[SplitName, ...] = ("train", "validation")
_RESULT, _REPORT = "result.json", "report.html"


@dataclass(frozen=True)
class Limits:
    """How much is spent. `minutes` bounds the whole search, `seeds` is how often it is repeated."""

    trials: int = 12
    minutes: float | None = None
    seeds: int = 3


@dataclass(frozen=True)
class SearchResult:
    """What a search found. `data` is the artifact's result.json."""

    artifact: Artifact
    path: Path
    skipped: bool
    data: Mapping[str, Any]

    @property
    def take(self) -> bool:
        """Whether the best settings are better than the plan beyond the noise."""
        return bool(self.data["take"])

    @property
    def overrides(self) -> dict[str, Any]:
        """The fields of `train` that the best settings change; empty if the plan stays."""
        return dict(self.data["overrides"]) if self.take else {}

    @property
    def fragment(self) -> str:
        """The YAML that makes `tutelage train` use them; empty if the plan stays."""
        return fragment(self.overrides)

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / _REPORT


def search(
    ctx: Context, dataset: Artifact, limits: Limits | None = None, over: Sequence[str] | None = None
) -> SearchResult:
    """Search `over` (unset: learning rate, rank, epochs, batch size) and return what is best.

    A search that was cut off goes on. Raises DataError without validation rows, PlanRefused if
    the planner advises against training, ConfigError for a setting that can't be searched.
    """
    from tutelage.training.search_space import space

    limits, names = limits or Limits(), tuple(over or ())
    _require_means(ctx)
    space(_default_recipe(), names)  # a name it can't be is said before any work
    scene = _scene(ctx, dataset)
    inputs = {
        "rows": [scene.version.manifest["files"][f"{split}.jsonl"] for split in OPEN_SPLITS],
        "model": locate_model(ctx.config.model, ctx.workspace.root).digest,
        "prompt": ctx.config.prompt,
        "task": ctx.config.task,
        "train": ctx.config.train.model_dump(mode="json", exclude=NO_MATTER),
        "start": scene.earlier.hash if scene.earlier else None,
        "replay": fingerprint(ctx),
        "over": sorted(names),
    }
    folder = ctx.workspace.runs / f"search-{content_hash(inputs)[:12]}"
    outcome = run_stage(
        ctx, STAGE, {**inputs, "limits": asdict(limits)},
        lambda: _work(scene, limits, names, folder),
    )  # fmt: skip
    if not outcome.skipped:
        shutil.rmtree(folder, ignore_errors=True)
    path = ctx.path_of(outcome.artifact)
    data = json.loads((path / _RESULT).read_bytes())
    return SearchResult(outcome.artifact, path, outcome.skipped, data)


@dataclass(frozen=True)
class _Scene:
    """What is searched on: rows without the test split, and the stage they are trained after."""

    ctx: Context
    dataset: Artifact
    version: DatasetVersion
    earlier: Artifact | None


def _require_means(ctx: Context) -> None:
    """Raise an error if a search can't be done at all."""
    if ctx.config.train.method == "hosted":
        raise ConfigError(
            "a search trains here, and train.method is hosted",
            where="train.method",
            fix="Name another method, or set the service's values by hand",
        )
    if find_spec("optuna") is None:
        raise EnvironmentProblem(
            "the search needs Optuna, which is not installed",
            fix="Run `pip install 'tutelage[search]'`",
        )


def _scene(ctx: Context, dataset: Artifact) -> _Scene:
    """Open the rows, and carry out the stages before; DataError without validation rows."""
    rows = material(ctx, dataset)
    version = load_version(ctx.path_of(rows), OPEN_SPLITS)
    if not version.rows("validation"):
        raise DataError(
            "the validation split is empty, and a search has nothing else to compare by",
            where=str(version.directory),
            fix="Give data.splits.validation a share, and run `tutelage data split`",
        )
    earlier = before(ctx, dataset, carry_out_after_checks(ctx, dataset))
    return _Scene(going_on(ctx, earlier) if earlier else ctx, rows, version, earlier)


def _work(scene: _Scene, limits: Limits, names: tuple[str, ...], folder: Path) -> Artifact:
    from tutelage.training.search import search as run
    from tutelage.training.search_space import space, usual

    ctx = scene.ctx
    require_settings(ctx)
    whole = tracker_of(ctx, folder)
    plan = plan_rows(ctx, scene.version, ctx.config.train)
    require_recipe(plan.recipe)
    require_machine(ctx, plan.recipe)
    require_wanted(plan)
    given = names or usual(plan.recipe, going_on=scene.earlier is not None)
    dimensions = space(plan.recipe, given)
    whole.log_params({"over": ", ".join(d.name for d in dimensions), **asdict(limits)})
    job = _job(scene, limits, dimensions, folder)
    ctx.emit(Event(STAGE, "start", _announce(plan, limits, [d.name for d in dimensions])))
    try:
        found = run(job, ctx.emit)
    except BaseException as error:
        whole.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    artifact = _file(ctx, scene.dataset, found, plan)
    figures = {"planned_loss": found.planned.loss, "best_loss": found.best.loss}
    whole.log_metrics({k: v for k, v in figures.items() if v is not None}, len(found.trials))
    whole.log_artifact(ctx.path_of(artifact) / _REPORT)
    whole.finish("FINISHED")
    ctx.emit(Event(STAGE, "done", found.reason))
    return artifact


def _default_recipe() -> Any:
    from tutelage.training.recipe import Recipe

    return Recipe()


def _announce(plan: Plan, limits: Limits, names: Sequence[str]) -> str:
    """Return what the search will do and about how long that takes at most."""
    runs = limits.trials + 2 * limits.seeds
    minutes = runs * plan.seconds / 60
    if limits.minutes is not None:
        minutes = min(minutes, limits.minutes)
    return (
        f"{', '.join(names)} in up to {limits.trials} trials, then {2 * limits.seeds} runs to tell "
        f"gain from luck: at most {minutes:.0f} minutes if no run stops early"
    )


def _job(scene: _Scene, limits: Limits, dimensions: Any, folder: Path) -> SearchJob:
    from tutelage.training.launch import run
    from tutelage.training.search import SearchJob
    from tutelage.training.search_trial import run_trial

    ctx, version, earlier = scene.ctx, scene.version, scene.earlier
    quiet = replace(ctx, emit=silent)
    start = ctx.path_of(earlier) if earlier else None
    processes, launcher = ctx.config.train.processes, ctx.config.train.launcher

    def make(changed: dict[str, Any], seed: int, run_dir: Path) -> TrainingJob:
        """Return the run that `tutelage train` would make of these settings."""
        settings = Train.model_validate({**ctx.config.train.model_dump(), **changed})
        recipe = plan_rows(quiet, version, settings, probe=False).recipe
        recipe = recipe.model_copy(update={"seed": seed})
        tracker = tracker_of(ctx, run_dir, folder)
        job = make_job(ctx, version, recipe, run_dir, tracker=tracker, start=start)
        return with_replay(quiet, job, version.rows("validation"))[0]

    return SearchJob(
        url=f"sqlite:///{ctx.workspace.home / 'search.db'}",
        key=folder.name,
        folder=folder,
        space=dimensions,
        make=make,
        trials=limits.trials,
        seeds=limits.seeds,
        minutes=limits.minutes,
        seed=ctx.config.train.seed,
        execute=partial(run_trial, run=partial(run, processes=processes, launcher=launcher)),
    )


def _file(ctx: Context, dataset: Artifact, found: Findings, plan: Plan) -> Artifact:
    """Write the result and its report as an artifact."""
    best = found.best.settings
    data = {
        "take": found.take,
        "reason": found.reason,
        "overrides": {k: v for k, v in best.items() if v != found.planned.settings[k]},
        "planned": found.planned.settings,
        "planned_loss": found.planned.loss,
        "best_loss": found.best.loss,
        "best_trial": found.best.number,
        "gain": found.gain.as_dict() if found.gain else None,
        "pairs": [asdict(pair) for pair in found.pairs],
        "trials": [asdict(trial) for trial in found.trials],
        "recipe": plan.recipe.model_dump(mode="json"),
    }
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    page = report_page(ctx.config.name, json.loads(text))
    digest = content_hash({_RESULT: text, _REPORT: page})
    folder = ctx.workspace.artifact_dir("searches", digest)

    def fill(target: Path) -> None:
        (target / _RESULT).write_text(text, encoding="utf-8")
        (target / _REPORT).write_text(page, encoding="utf-8")

    atomic_dir(folder, fill)
    meta = {name: data[name] for name in ("take", "reason", "overrides", "planned_loss")}
    meta |= {"best_loss": data["best_loss"], "summary": found.reason}
    artifact = describe(
        "search", digest, ctx.workspace.relative(folder), parents=[dataset.hash],
        seed=plan.recipe.seed, meta=meta,
    )  # fmt: skip
    if not (folder / MANIFEST).exists():
        atomic_write(folder / MANIFEST, artifact.model_dump_json(indent=2).encode())
    return artifact
