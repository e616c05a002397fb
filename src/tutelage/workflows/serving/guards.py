"""The checks of live traffic from the project's side: what is in force, golden windows.

A golden window is made once from the rows of the release's dataset and the answers it was
evaluated with, and kept under .tutelage/windows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.errors import DataError, TutelageError
from tutelage.core.events import Event
from tutelage.core.output import OutputFormat
from tutelage.core.workspace import atomic_write
from tutelage.data.version import DatasetVersion, load_version
from tutelage.release.bundle import ReleaseManifest, get_release, manifest_of
from tutelage.release.routes import deployments, route
from tutelage.serving.guards.base import (
    WHOLE,
    ActiveGuard,
    GuardContext,
    Surroundings,
    build_guards,
)
from tutelage.serving.guards.window import Side, Window
from tutelage.serving.hooks import Hook
from tutelage.serving.router import build_profile
from tutelage.serving.state import GatewayState
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context, find_artifact, last_output

_FORMAT = 1  # of the files; another number makes them anew
_ENOUGH = 50  # evaluated answers that stand for all of a release's


def surroundings(ctx: Context) -> Callable[[ReleaseRow], Surroundings]:
    """Return what tells guards of a release's project folder and golden window.

    A window that can't be made is a warning: the release is served all the same.
    """

    def of(row: ReleaseRow) -> Surroundings:
        window = None
        try:
            window = golden_window(ctx, row)
        except (TutelageError, OSError) as error:
            text = error.sentence() if isinstance(error, TutelageError) else str(error)
            ctx.emit(Event("serve", "warning", f"{row.name} has no golden window: {text}"))
        return Surroundings(ctx.workspace.root, window)

    return of


def drift_monitor(ctx: Context, state: GatewayState) -> tuple[Hook, ...]:
    """Return the watch over drift, unless the project turned it off."""
    from tutelage.serving.guards.monitor import DriftMonitor
    from tutelage.workflows.serving.guard_report import past_sights

    layer = ctx.config.deploy.guards.statistics
    if layer.action == "off" or not layer.drift:
        return ()
    return (DriftMonitor(state, sights=past_sights(ctx)),)


def golden_window(ctx: Context, row: ReleaseRow) -> Window | None:
    """Return the statistics of a release's golden rows, or None if it has no dataset.

    Requests are the dataset's own rows, without those a teacher wrote; answers are the release's
    from its evaluation where there are 50, else the reference answers.
    Raises DataError if the dataset can't be read.
    """
    manifest = manifest_of(row)
    dataset = _dataset(ctx, manifest)
    if dataset is None:
        return None
    facts = {
        "format": _FORMAT,
        "dataset": dataset.hash,
        "evaluation": manifest.evaluation,
        "output": manifest.output.model_dump(mode="json"),
    }
    path = ctx.workspace.home / "windows" / f"{content_hash(facts)[:16]}.json"
    try:
        return Window.read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        window = _make(ctx, manifest, load_version(ctx.path_of(dataset)))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, window.text().encode())
    return window


def _dataset(ctx: Context, manifest: ReleaseManifest) -> Artifact | None:
    if manifest.dataset is not None:
        return find_artifact(ctx.store, manifest.dataset)
    return last_output(ctx, "curate")


def _make(ctx: Context, manifest: ReleaseManifest, version: DatasetVersion) -> Window:
    rows = [r for r in version.all_rows() if r.origin.kind != "augmented" and not r.is_text]
    answers = _evaluated(ctx, manifest.evaluation)
    if len(answers) < _ENOUGH:
        answers = [row.answer for row in rows if row.answer is not None]
    output = manifest.output
    return Window.of(
        [row.input_text for row in rows],
        answers,
        OutputFormat(output.field, output.labels),
        free=output.json_schema is None,
    )


def _evaluated(ctx: Context, evaluation: str | None) -> list[str]:
    """Return the answers that a tuned release gave when it was evaluated."""
    from tutelage.evaluation.candidates import TUNED

    found = find_artifact(ctx.store, evaluation) if evaluation else None
    path = ctx.path_of(found) / "rows.jsonl" if found else Path()
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [str(row["text"]) for row in rows if row["candidate"] == TUNED]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the evaluation's answers can't be read",
            where=str(path),
            fix="Run `tutelage evaluate` again",
        ) from error


def in_force(
    ctx: Context, release: str | None = None
) -> tuple[str | None, tuple[ActiveGuard, ...]]:
    """Return the name of a release (unset: the one that serves) and the guards that watch it.

    Before there is a release the settings of the project stand for it.
    Raises DataError for an unknown release, ConfigError for guards that can't be built.
    """
    row = get_release(ctx.store, release) if release else _serving(ctx)
    guards = ctx.config.deploy.guards
    if row is None:
        output = ctx.config.output
        context = GuardContext(
            output.format(), output.json_schema or output.format().schema(),
            prompt=ctx.config.prompt, root=ctx.workspace.root,
        )  # fmt: skip
        return None, build_guards(guards, context)
    return row.name, build_profile(
        manifest_of(row), ctx.config.deploy, surroundings(ctx)(row)
    ).guards


def describe(ctx: Context, release: str | None = None) -> dict[str, Any]:
    """Return the layers of a release (unset: the one that serves) and what its golden rows are."""
    name, guards = in_force(ctx, release)
    row = get_release(ctx.store, name) if name else None
    window = surroundings(ctx)(row).window if row else None
    return {
        "release": name,
        "guards": [
            {"name": one.name, "action": one.action, "stream": _streams(one)} for one in guards
        ],
        "golden": None if window is None else _golden(window),
    }


def _streams(guard: ActiveGuard) -> str:
    """Return how an answer streams under a guard, in words."""
    if guard.action != "block" or guard.hold == 0:
        return "as it comes"
    if guard.hold == WHOLE:
        return "whole, at the end"
    return f"{guard.hold} characters late"


def _golden(window: Window) -> dict[str, Any]:
    """Return a golden window in short."""
    return {
        "rows": window.rows,
        "request": _side(window.request),
        "answer": _side(window.answer),
        "labels": dict(window.labels),
    }


def _side(side: Side) -> dict[str, Any]:
    low, high = side.bounds()
    return {
        "rows": len(side.lengths),
        "from": max(0, math.ceil(low)),
        "to": math.floor(high) if side.lengths else None,
        "languages": dict(side.languages),
    }


def _serving(ctx: Context) -> ReleaseRow | None:
    """Return the stable release of the project's deployment, or None."""
    name = ctx.config.name
    if all(row.name != name for row in deployments(ctx.store)):
        return None
    with ctx.store.session() as session:
        return session.get_one(ReleaseRow, route(ctx.store, name).stable)
