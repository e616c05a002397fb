"""What a turn trains from: the base model, or the adapter of the stable release.

Going on from an adapter is quicker and remembers more; begun anew, nothing of earlier data sets
stays in the weights, and warm starts can generalise worse (Ash & Adams 2020, arXiv 1910.08475).
So a short probe of both, with the same rows, steps and seed, is asked: the adapter is taken only
where it is ahead on the validation rows after the same number of steps.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.events import Event, silent
from tutelage.core.workspace import atomic_write
from tutelage.data.version import DatasetVersion, is_buried, load_version
from tutelage.inference.models import locate_model
from tutelage.release.bundle import get_release, manifest_of
from tutelage.store.releases import DeploymentRow
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.training.stages import going_on

if TYPE_CHECKING:
    from tutelage.training.recipe import Recipe

PROBE_STEPS = 24  # optimizer steps of each, at most
_LEAST_VALIDATION = 8  # rows that can tell the two apart
_AHEAD = 0.02  # of the loss, a ratio: less is no lead
_MOVING = ("pissa", "olora")


@dataclass(frozen=True)
class Chosen:
    """What training starts from and why; `adapter` is None for the base model."""

    adapter: Artifact | None
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return it in words."""
        return f"adapter {self.adapter.short}" if self.adapter else "the base model"


def choose(ctx: Context, dataset: Artifact) -> Chosen:
    """Return what to train from, by improve.start, by what is possible, or by the probe."""
    wanted = ctx.config.improve.start
    if wanted == "base":
        return Chosen(None, "improve.start says so")
    last = stable_adapter(ctx)
    if last is None:
        return Chosen(None, "the stable release has no adapter of this project")
    version = load_version(ctx.path_of(dataset))
    bar = barrier(ctx, last, version)
    if bar is not None:
        return Chosen(None, bar)
    if wanted == "adapter":
        return Chosen(last, "improve.start says so")
    if len(version.rows("validation")) < _LEAST_VALIDATION:
        held = len(version.rows("validation"))
        return Chosen(None, f"{held} validation rows can't tell the two apart")
    return _by_probe(ctx, last, dataset, version)


def stable_adapter(ctx: Context) -> Artifact | None:
    """Return the adapter of the stable release, if it was trained here and is still there."""
    with ctx.store.session() as session:
        row = session.get(DeploymentRow, ctx.config.name)
    if row is None:
        return None
    reference = manifest_of(get_release(ctx.store, row.stable)).adapter
    found = find_artifact(ctx.store, reference.hash) if reference else None
    if found is None or found.kind != "adapter" or not ctx.path_of(found).exists():
        return None
    return found


def barrier(ctx: Context, adapter: Artifact, version: DatasetVersion) -> str | None:
    """Return why training can't go on from `adapter`, or None.

    Weights that have seen a row which is held out now may not be gone on from.
    """
    recipe = adapter.meta.get("recipe", {})
    settings = ctx.config.train
    if settings.before:
        return "train.before trains stages of its own"
    if adapter.meta.get("model") != ctx.config.model:
        return "it was trained from another base model"
    if settings.method not in ("auto", recipe.get("method")):
        return f"train.method is {settings.method}, the adapter's is {recipe.get('method')}"
    if recipe.get("method") in _MOVING or recipe.get("tune") in _MOVING:
        return f"{recipe.get('tune') or recipe.get('method')} starts from the base's own weights"
    held = {row.id for side in ("validation", "test") for row in version.rows(side)}
    seen = _seen(ctx, adapter)
    if seen is None:
        return "the rows that it was trained on are not known any more"
    if seen & held:
        return f"it was trained on {len(seen & held)} rows that are held out now"
    labels = {row.label for row in version.rows("train")}
    if recipe.get("method") == "classify" and labels - _labels_of(ctx, adapter):
        return "there are labels that it does not know"
    return None


def _versions(ctx: Context, adapter: Artifact) -> list[DatasetVersion] | None:
    """Return every version that `adapter` and what it started from were trained on."""
    found, waiting, done = [], [adapter], set()
    while waiting:
        one = waiting.pop()
        for parent in one.parents:
            if parent in done:
                continue
            done.add(parent)
            artifact = find_artifact(ctx.store, parent)
            if artifact is None or not ctx.path_of(artifact).exists():
                return None
            if is_buried(ctx.path_of(artifact)):  # weights that learned erased rows stay behind
                return None
            if artifact.kind == "adapter":
                waiting.append(artifact)
            elif (ctx.path_of(artifact) / "train.jsonl").is_file():
                found.append(load_version(ctx.path_of(artifact)))
    return found or None


def _seen(ctx: Context, adapter: Artifact) -> set[str] | None:
    versions = _versions(ctx, adapter)
    if versions is None:
        return None
    return {row.id for version in versions for row in version.rows("train")}


def _labels_of(ctx: Context, adapter: Artifact) -> set[str | None]:
    versions = _versions(ctx, adapter) or []
    return {row.label for version in versions for row in version.rows("train")}


def _by_probe(ctx: Context, last: Artifact, dataset: Artifact, version: DatasetVersion) -> Chosen:
    """Train both for a few steps and return the one that is ahead on the validation rows."""
    from tutelage.workflows.training.plan import plan

    inner = going_on(ctx, last)
    made = plan(inner, dataset, probe=False)
    rows = len(version.rows("train"))
    steps = min(PROBE_STEPS, made.recipe.total_steps(rows))
    recipe = _short(made.recipe, steps, rows)
    losses = {
        name: _probe(ctx, version, recipe, start)
        for name, start in (("base", None), ("adapter", last))
    }
    base, ours = losses["base"], losses["adapter"]
    evidence = {"steps": steps, "validation_loss": losses,
                "validation_rows": len(version.rows("validation")),
                "note": "a warm start is ahead early on, so only a clear lead counts"}  # fmt: skip
    told = (
        f"validation loss after {steps} steps {ours:.3f} from the adapter, {base:.3f} from the base"
    )
    if math.isfinite(ours) and ours < base * (1 - _AHEAD):
        return Chosen(last, told, evidence)
    return Chosen(None, f"{told}: no lead that is worth carrying old weights on", evidence)


def _short(recipe: Recipe, steps: int, rows: int) -> Recipe:
    """Return the recipe with `steps` optimizer steps, judged once at their end."""
    epochs = steps / recipe.steps_per_epoch(rows)
    once = {"eval_every": steps, "checkpoint_every": steps + 1, "interpolate": False}
    return recipe.model_copy(update={"epochs": epochs, "replay": 0.0, **once})


def _probe(ctx: Context, version: DatasetVersion, recipe: Recipe, start: Artifact | None) -> float:
    """Return the lowest validation loss of a short run, nats a token; it is kept for a rerun."""
    from tutelage.training.search_trial import run_trial
    from tutelage.workflows.training.plan import make_job

    asked = {
        "rows": version.manifest.get("rows_hash", version.hash),
        "model": locate_model(ctx.config.model, ctx.workspace.root).digest,
        "prompt": ctx.config.prompt,
        "recipe": recipe.model_dump(mode="json"),
        "start": start.hash if start else None,
    }
    folder = ctx.workspace.runs / f"probe-{content_hash(asked)[:12]}"
    file = folder / "loss.json"
    if file.is_file():
        return _loss(file)
    ctx.emit(Event("start", "note", f"probing from {'the adapter' if start else 'the base model'}"))
    job = make_job(ctx, version, recipe, folder, start=ctx.path_of(start) if start else None)
    found = run_trial(job, lambda tenth, loss: False, silent)
    loss = found.loss if found.loss is not None else math.inf
    for path in folder.iterdir():  # its weights are nobody's
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    atomic_write(file, json.dumps({"loss": loss if math.isfinite(loss) else None}).encode())
    return loss


def _loss(file: Path) -> float:
    kept = json.loads(file.read_text(encoding="utf-8"))["loss"]
    return math.inf if kept is None else float(kept)
