"""Every page of the site as an address: the registered paths, with values where they need some."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlalchemy import select

from tutelage.store.artifacts import ArtifactRow, JobRow
from tutelage.store.drift import DriftReportRow
from tutelage.store.human import HumanStudyRow
from tutelage.store.improve import TurnRow
from tutelage.store.mining import MineRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import ReleaseRow, RolloutRow
from tutelage.web.registry import pages
from tutelage.workflows.context import Context

Value = Callable[[Context], str]


def _first(column: object, *where: object, newest: object = None) -> Value:
    def value(ctx: Context) -> str:
        query = select(column).where(*where).limit(1)  # type: ignore[call-overload]
        if newest is not None:
            query = query.order_by(newest)
        with ctx.store.session() as session:
            return str(session.scalars(query).one())

    return value


def _artifact(kind: str) -> Value:
    return lambda ctx: _first(ArtifactRow.hash, ArtifactRow.kind == kind)(ctx)[:12]


def _two_evaluations(ctx: Context) -> str:
    with ctx.store.session() as session:
        query = select(ArtifactRow.hash).where(ArtifactRow.kind == "evaluation")
        return "+".join(digest[:12] for digest in session.scalars(query))


def _run(ctx: Context) -> str:
    """Return the trained adapter, or where it keeps no history a job."""
    short = _artifact("adapter")(ctx)
    folder = ctx.workspace.artifacts / "adapters" / short
    return short if (folder / "history.json").exists() else _job(ctx)


def _name(ctx: Context) -> str:
    return ctx.config.name


_release = _first(ReleaseRow.name, newest=ReleaseRow.created_at.desc())
_record = _first(RecordRow.id, RecordRow.id.in_(select(SignalRow.record)))
_study = _first(HumanStudyRow.id, newest=HumanStudyRow.at.desc())
_job = _first(JobRow.id, JobRow.state == "done")
_turn = _first(TurnRow.id, newest=TurnRow.started_at.desc())

# By the path's beginning, the longest first; each braced part gets the value.
_VALUES: dict[str, Value] = {
    "/evaluations/side-by-side/": _two_evaluations,
    "/evaluations/": _artifact("evaluation"),
    "/prompts/": lambda ctx: "3",
    "/releases/": _release,
    "/lineage/": _release,
    "/rollout/": _name,
    "/rollouts/": _first(RolloutRow.id, newest=RolloutRow.created_at.desc()),
    "/deployments/": _name,
    "/runs/": _run,
    "/jobs/": _job,
    "/search": _job,
    "/data/": _artifact("dataset"),
    "/traffic/": _record,
    "/records/": _record,
    "/drift/": _first(DriftReportRow.id, newest=DriftReportRow.at.desc()),
    "/mine/": _first(MineRow.id),
    "/mining/": _first(MineRow.id),
    "/improve/": _turn,
    "/compare-blind/": _study,
    "/guidelines/": lambda ctx: "2",
}


def addresses(ctx: Context) -> dict[str, str]:
    """Return {registered path: an address that shows it}; raises KeyError for an unknown value."""
    return {page.path: _address(ctx, page.path) for page in pages()}


def _address(ctx: Context, path: str) -> str:
    if "{" not in path:
        return path
    known = sorted((one for one in _VALUES if path.startswith(one)), key=len, reverse=True)
    if not known:
        raise KeyError(f"say in tests/fakes/web_walk.py what {path} shows")
    value = _VALUES[known[0]](ctx)
    return re.sub(r"\{[^}]+\}", value, path)
