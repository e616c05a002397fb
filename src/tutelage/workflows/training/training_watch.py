"""Training as it goes and as it went: live curves, adapters that were trained, runs that were cut.

It only reads: jobs.py starts and stops, train.py trains.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from tutelage.core.errors import DataError
from tutelage.store.artifacts import ArtifactRow, ParentRow
from tutelage.workflows.context import Context, find_artifact

Points = list[tuple[float, float]]
_STAGE = "train"
_KINDS = ("adapter", "search")


@dataclass
class Curve:
    """The losses of a run so far; `feed` takes what its process told next.

    `total`, `eta_s` and `pace` (tokens a second) are None until they are known.
    """

    train: Points = field(default_factory=list)
    validation: Points = field(default_factory=list)
    step: int = 0
    total: int | None = None
    eta_s: float | None = None
    pace: float | None = None
    rate: float | None = None
    notes: list[tuple[str, str]] = field(default_factory=list)  # (kind, message), the newest last

    def feed(self, events: Sequence[Mapping[str, Any]]) -> bool:
        """Take events in; return whether a point came."""
        before = len(self.train) + len(self.validation)
        for event in events:
            if event.get("kind") in ("note", "warning", "done") and event.get("message"):
                self.notes.append((str(event["kind"]), str(event["message"])))
            if event.get("stage") == _STAGE:
                self._take(event)
        return len(self.train) + len(self.validation) > before

    def _take(self, event: Mapping[str, Any]) -> None:
        data = event.get("data") or {}
        if event.get("total"):
            self.total = int(event["total"])
        if event.get("kind") == "start":
            self.train, self.validation = [], []  # a stage of training after another
        if event.get("done") is not None:
            self.step = int(event["done"])
        if event.get("kind") == "metric" and _finite(data.get("validation_loss")):
            self.validation.append((self.step, data["validation_loss"]))
        if event.get("kind") == "progress" and _finite(data.get("loss")):
            self.train.append((self.step, data["loss"]))
            self.eta_s, self.pace = data.get("eta_s"), data.get("tokens_per_s")
            self.rate = data.get("learning_rate")


def curve_of(history: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the curve of a finished run from its history."""
    made = Curve()
    for point in history:
        made.step = max(made.step, int(point["step"]))
        if _finite(point.get("loss")):
            made.train.append((point["step"], point["loss"]))
        if _finite(point.get("validation_loss")):
            made.validation.append((point["step"], point["validation_loss"]))
    made.total = made.step
    return made


def thin(points: Points, most: int = 400) -> Points:
    """Return at most about `most` points: means of neighbours, the last one as it is."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / most)
    means = []
    for start in range(0, len(points) - 1, size):
        part = points[start : min(start + size, len(points) - 1)]
        means.append((part[-1][0], sum(value for _, value in part) / len(part)))
    return [*means, points[-1]]


@dataclass(frozen=True)
class Trained:
    """What a run gave. `meta` is the artifact's (workflows/training/train.py, _file)."""

    hash: str
    created_at: datetime
    meta: dict[str, Any]
    folder: Path
    datasets: tuple[str, ...] = ()
    used_by: tuple[tuple[str, str], ...] = ()  # (kind, short hash)


def adapters(ctx: Context, *, start: int = 0, count: int = 20) -> tuple[list[Trained], int]:
    """Return what was trained, the newest first, and how many there are."""
    return _made(ctx, "adapter", start, count)


def searches(ctx: Context, *, start: int = 0, count: int = 20) -> tuple[list[Trained], int]:
    """Return the searches that ended, the newest first, and how many there are."""
    return _made(ctx, "search", start, count)


def trained(ctx: Context, name: str) -> Trained:
    """Return one adapter or search by the first digits of its hash, with its relatives.

    Raises DataError if there is none.
    """
    with ctx.store.session() as session:
        query = select(ArtifactRow).where(
            ArtifactRow.kind.in_(_KINDS), ArtifactRow.hash.startswith(name, autoescape=True)
        )
        found = session.scalars(query.limit(2)).all()
        if len(name) < 6 or len(found) != 1:
            raise DataError("there is no such run", where=name[:40], fix="Look at the list of runs")
        children = session.execute(
            select(ArtifactRow.kind, ArtifactRow.hash)
            .join(ParentRow, ParentRow.child == ArtifactRow.hash)
            .where(ParentRow.parent == found[0].hash)
            .order_by(ArtifactRow.created_at.desc())
        ).all()
    artifact = find_artifact(ctx.store, found[0].hash)
    parents = artifact.parents if artifact else ()
    kinds = {parent: find_artifact(ctx.store, parent) for parent in parents}
    return Trained(
        found[0].hash,
        found[0].created_at,
        found[0].meta,
        ctx.workspace.home / found[0].path,
        tuple(parent[:12] for parent, made in kinds.items() if made and made.kind == "dataset"),
        tuple((kind, digest[:12]) for kind, digest in children),
    )


def history(one: Trained) -> list[dict[str, Any]]:
    """Return the points of a finished run; empty where its file is gone."""
    try:
        kept = json.loads((one.folder / "history.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    points: list[dict[str, Any]] = kept["history"] if isinstance(kept, dict) else kept
    return points


def search_data(one: Trained) -> dict[str, Any]:
    """Return what a search found, as search_report.trial_rows takes it."""
    try:
        data: dict[str, Any] = json.loads((one.folder / "result.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data


@dataclass(frozen=True)
class Cut:
    """A run that has not ended: started again, training goes on after `step`."""

    name: str
    step: int
    steps: int | None
    changed_at: datetime


def unfinished(ctx: Context) -> list[Cut]:
    """Return the runs that were cut off, the last one first."""
    found = []
    for folder in ctx.workspace.runs.glob("train-*"):
        plan = folder / "plan.json"
        if plan.is_file():
            kept = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
            step = int(kept[-1].removeprefix("step-")) if kept else 0
            newest = max(path.stat().st_mtime for path in (folder, plan))
            found.append(Cut(folder.name, step, _steps(plan), datetime.fromtimestamp(newest, UTC)))
    return sorted(found, key=lambda cut: cut.changed_at, reverse=True)


def _steps(plan: Path) -> int | None:
    try:
        return int(json.loads(plan.read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError):
        return None


def _made(ctx: Context, kind: str, start: int, count: int) -> tuple[list[Trained], int]:
    with ctx.store.session() as session:
        total = session.scalar(select(func.count()).where(ArtifactRow.kind == kind)) or 0
        rows = session.scalars(
            select(ArtifactRow)
            .where(ArtifactRow.kind == kind)
            .order_by(ArtifactRow.created_at.desc(), ArtifactRow.hash)
            .offset(start)
            .limit(count)
        ).all()
    made = [Trained(r.hash, r.created_at, r.meta, ctx.workspace.home / r.path) for r in rows]
    return made, total


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
