"""Bring MLflow's registry to what the store says: versions, evaluations' runs, aliases.

Everything that is wanted follows from the store, and what was done last is kept beside it: so
whoever comes next catches up, and imports no mlflow where there is nothing to do. The gateway,
which never imports it, has a child process do it, which runs this module over the project's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import Artifact
from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.core.events import Event
from tutelage.core.workspace import atomic_write
from tutelage.release import bundle, mlflow, mlflow_runs
from tutelage.release.deployments import active_rollout, deployments
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.base import Store
from tutelage.store.releases import ReleaseRow, RolloutRow
from tutelage.workflows.context import Context, find_artifact, made_from, open_context
from tutelage.workflows.release.release_card import brief

_DONE = "mlflow-aliases.json"  # what the aliases were set to last
_SHOWN = "mlflow-evaluations.json"  # the hashes of evaluations that have a run
_left: set[Path] = set()  # projects whose registry is left to child processes


def wanted_aliases(store: Store, project: str) -> dict[str, str]:
    """Return the full release id that each alias should point at.

    `stable` is what answers; `candidate` what a rollout is testing, or else the newest release
    that has not been tried and is newer than the stable one.
    """
    found: dict[str, str] = {}
    for row in deployments(store):
        found[mlflow.alias_of(row.name, project, mlflow.STABLE)] = row.stable
        active = active_rollout(store, row.name)
        if active is not None:
            found[mlflow.alias_of(row.name, project, mlflow.CANDIDATE)] = active.candidate
    if mlflow.CANDIDATE not in found:
        waiting = _waiting(store, found.get(mlflow.STABLE))
        if waiting is not None:
            found[mlflow.CANDIDATE] = waiting
    return found


def behind(ctx: Context) -> bool:
    """Return whether the registry lacks something, without importing mlflow."""
    if _unshown(ctx):
        return True
    rows = bundle.list_releases(ctx.store)
    tuned = [row for row in rows if row.kind != "base"]
    if not tuned:
        return False
    if any(row.registry_version is None for row in rows):
        return True
    return _done(ctx) != wanted_aliases(ctx.store, ctx.config.name)


def leave_to_child(ctx: Context) -> None:
    """From now on have a child process catch up for this project, and wait for none of them.

    For a process that answers people: mlflow's import costs it seconds and memory.
    """
    _left.add(ctx.workspace.home)


def catch_up(ctx: Context) -> None:
    """Register what is missing and move the aliases; a failure is a warning and is tried again.

    Safe to call at any time and from several processes; one works, the others wait.
    """
    if not behind(ctx):
        return
    if ctx.workspace.home in _left:
        _start_child(ctx)
        return
    with _alone(ctx.workspace.home / ".mlflow.lock"):
        if not behind(ctx):
            return
        try:
            for row in bundle.list_releases(ctx.store):
                if row.registry_version is None:
                    _register(ctx, row)
            _show_evaluations(ctx)
            wanted = wanted_aliases(ctx.store, ctx.config.name)
            numbers = {row.id: row.registry_version for row in bundle.list_releases(ctx.store)}
            versions = {a: str(numbers[r]) for a, r in wanted.items() if numbers.get(r)}
            if numbers:
                mlflow.set_aliases(ctx.workspace.mlflow_uri, ctx.config.name, versions)
        except EnvironmentProblem as error:
            text = f"MLflow's registry is behind: {error.sentence()}"
            ctx.emit(Event("release", "warning", text))
            return
        atomic_write(ctx.workspace.home / _DONE, json.dumps(wanted, sort_keys=True).encode())


def worth_a_child(ctx: Context) -> bool:
    """Return whether a gateway should have a child catch up: MLflow is in use, and behind."""
    return mlflow.installed() and (ctx.workspace.home / "mlflow.db").exists() and behind(ctx)


def _start_child(ctx: Context) -> None:
    command = [sys.executable, "-m", "tutelage.workflows.release.registry", str(ctx.workspace.root)]
    with (ctx.workspace.logs / "registry.log").open("ab") as out:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    threading.Thread(target=child.wait, name="wait for the registry", daemon=True).start()


def _unshown(ctx: Context) -> list[str]:
    """Return the evaluations without a run, of a project that keeps its runs in MLflow."""
    if not (ctx.workspace.home / "mlflow.db").exists():
        return []
    shown: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        shown = set(json.loads((ctx.workspace.home / _SHOWN).read_bytes()))
    with ctx.store.session() as session:
        query = select(ArtifactRow.hash).where(ArtifactRow.kind == "evaluation")
        return [found for found in session.scalars(query) if found not in shown]


def _show_evaluations(ctx: Context) -> None:
    """Make the runs of evaluations that led to no release, too."""
    missing = _unshown(ctx)
    if not missing:
        return
    for hash_ in missing:
        evaluation = find_artifact(ctx.store, hash_)
        if evaluation is not None and ctx.path_of(evaluation).is_dir():
            adapter = made_from(ctx.store, evaluation, "adapter")
            _log_evaluation(ctx, evaluation, _training_run(ctx, adapter))
    with ctx.store.session() as session:
        query = select(ArtifactRow.hash).where(ArtifactRow.kind == "evaluation")
        every = sorted(session.scalars(query))
    atomic_write(ctx.workspace.home / _SHOWN, json.dumps(every).encode())


def _waiting(store: Store, stable: str | None) -> str | None:
    """Return the newest release if it has not been tried since it was made, or None."""
    rows = [row for row in bundle.list_releases(store) if row.kind != "base"]
    if not rows or rows[-1].id == stable:
        return None
    with store.session() as session:
        query = select(RolloutRow.id).where(
            (RolloutRow.candidate == rows[-1].id) | (RolloutRow.baseline == rows[-1].id)
        )
        tried = session.scalars(query.limit(1)).first()
    return None if tried else rows[-1].id


def _register(ctx: Context, row: ReleaseRow) -> None:
    """Make one release's version, and the run of its evaluation; keep the number in the store."""
    manifest = bundle.manifest_of(row)
    uri, project = ctx.workspace.mlflow_uri, ctx.config.name
    adapter = find_artifact(ctx.store, manifest.adapter.hash) if manifest.adapter else None
    trained = _training_run(ctx, adapter)
    evaluation = find_artifact(ctx.store, manifest.evaluation) if manifest.evaluation else None
    evaluated = _log_evaluation(ctx, evaluation, trained) if evaluation else None
    version = mlflow.Version(
        model=project,
        source=ctx.workspace.home / row.path,
        tags=_tags(row, manifest, evaluation, evaluated),
        description=brief(ctx, row),
        run=trained or evaluated,
        about=f"Releases of {project}: {ctx.config.task} on {ctx.config.model}.",
    )
    number = mlflow.register_version(uri, version)
    with ctx.store.begin() as session:
        session.get_one(ReleaseRow, row.id).registry_version = number


def _tags(
    row: ReleaseRow,
    manifest: bundle.ReleaseManifest,
    evaluation: Artifact | None,
    evaluated: str | None,
) -> dict[str, str]:
    known = {
        "release": row.id,
        "name": row.name,
        "kind": row.kind,
        "base": manifest.base.digest,
        "dataset": manifest.dataset or "",
        "evaluation": manifest.evaluation or "",
        "evaluation_run": evaluated or "",
        "prompt": manifest.prompt_hash,
        "adapter": manifest.adapter.hash if manifest.adapter else "",
        "verdict": str(evaluation.meta.get("verdict")) if evaluation else "none",
    }
    return {name: value for name, value in known.items() if value}


def _training_run(ctx: Context, adapter: Artifact | None) -> str | None:
    """Return the MLflow run that trained the adapter, its data shown as inputs, or None."""
    name = adapter.meta.get("run") if adapter else None
    if adapter is None or not name:
        return None
    run = mlflow_runs.find_run(ctx.workspace.mlflow_uri, ctx.config.name, str(name))
    if run is not None:
        sides = {"train": "training", "validation": "validation"}
        mlflow_runs.log_data(ctx.workspace.mlflow_uri, run, _data(ctx, adapter, sides))
    return run


def _log_evaluation(ctx: Context, evaluation: Artifact, trained: str | None) -> str:
    folder, meta = ctx.path_of(evaluation), evaluation.meta
    run = mlflow_runs.EvaluationRun(
        experiment=ctx.config.name,
        folder=ctx.workspace.home / "mlflow",
        name=f"evaluate-{evaluation.short}",
        evaluation=evaluation.hash,
        tags={
            "verdict": str(meta.get("verdict", "")),
            "mlflow.note.content": str(meta.get("sentence", "")),
        },
        metrics=_metrics(folder, meta),
        files=[folder / name for name in ("report.html", "evaluation.json")],
        data=_data(ctx, evaluation, {"test": "evaluation"}),
    )
    return mlflow_runs.log_evaluation(ctx.workspace.mlflow_uri, run, trained)


def _metrics(folder: Path, meta: dict[str, Any]) -> dict[str, float | None]:
    """Return every candidate's means as <candidate>/<metric>, and what decides."""
    found: dict[str, float | None] = {"forgetting": meta.get("forgetting")}
    primary = meta.get("primary") or {}
    for key in ("difference", "difference_low", "difference_high"):
        found[key] = primary.get(key)
    try:
        document = json.loads((folder / "evaluation.json").read_bytes())
    except (OSError, ValueError):
        return found
    for candidate in document.get("candidates", ()):
        for metric, value in candidate.get("metrics", {}).items():
            found[f"{candidate['name']}/{metric}"] = value.get("estimate")
    return found


def _data(ctx: Context, artifact: Artifact, sides: dict[str, str]) -> list[mlflow_runs.Data]:
    dataset = made_from(ctx.store, artifact)
    if dataset is None:
        return []
    counts = dataset.meta.get("counts") or {}
    return [
        mlflow_runs.Data(
            ctx.config.name, dataset.hash, ctx.path_of(dataset) / f"{side}.jsonl",
            int(counts.get(side, 0)), context,
        )
        for side, context in sides.items()
    ]  # fmt: skip


def _done(ctx: Context) -> dict[str, str] | None:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, str] = json.loads((ctx.workspace.home / _DONE).read_bytes())
        return found
    return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time in; the lock goes with the process, however it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(ImportError):  # Windows: MLflow's database has its own locks
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main(directory: str) -> int:
    """Catch up for the project in `directory`, gently; return the exit status."""
    if hasattr(os, "nice"):
        os.nice(10)
    try:
        ctx = open_context(Path(directory), _to_stderr)
    except TutelageError as error:
        print(error.sentence(), file=sys.stderr)
        return error.exit_code
    try:
        catch_up(ctx)
    finally:
        ctx.store.close()
    return 0


def _to_stderr(event: Event) -> None:
    print(event.message, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
