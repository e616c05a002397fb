"""Where the loop stands: what each stage gave, what serves, what was learned, what is next."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from tutelage.feedback.segment import learning_summary
from tutelage.release.rollout import ACTIVE
from tutelage.serving.monitoring.alert_store import list_alerts
from tutelage.serving.monitoring.monitor_views import alert_view
from tutelage.store.artifacts import StageRow
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.release.rollout import status as rollout_status
from tutelage.workflows.serving.keep_alive import pulses

_ORDER = ("curate", "train", "evaluate", "release")


def loop_status(ctx: Context) -> dict[str, Any]:
    """Return the state of the loop as plain data; `next` is one sentence of advice."""
    stages: dict[str, Any] = {}
    with ctx.store.session() as session:
        rows = {row.stage: row for row in session.scalars(select(StageRow))}
    for name in _ORDER:
        row = rows.get(name)
        artifact = find_artifact(ctx.store, row.output) if row else None
        if row is None or artifact is None:
            stages[name] = None
            continue
        stages[name] = {
            "artifact": artifact.short,
            "finished_at": row.finished_at.isoformat(timespec="seconds"),
            "seconds": round(row.seconds, 1),
            "summary": _summary(name, artifact.meta),
        }
    serving = rollout_status(ctx)
    learning = learning_summary(ctx.store, ctx.config.output.format())
    return {
        "project": ctx.config.name,
        "stages": stages,
        "serving": serving,
        "learning": learning,
        "keep_alive": pulses(ctx),
        "alerts": [alert_view(row) for row in list_alerts(ctx.store)],
        "next": advice(ctx, stages, serving, learning),
    }


def _summary(name: str, meta: dict[str, Any]) -> str:
    if name == "curate":
        counts = meta["counts"]
        return ", ".join(f"{counts[key]} {key}" for key in ("train", "validation", "test"))
    if name == "evaluate":
        primary = meta["primary"]
        return f"{meta['verdict']}: {primary['metric']} {primary['tuned']:.1%}"
    return str(meta.get("name") or meta.get("summary") or "")


def advice(
    ctx: Context, stages: dict[str, Any], serving: dict[str, Any], learning: dict[str, Any]
) -> str:
    """Return what to do next, in one sentence."""
    if any(stages[name] is None for name in _ORDER[:3]):
        return "Next: `tutelage run` finishes curate, train and evaluate."
    if stages["release"] is None:
        return "Next: look at the report; no release was made because the verdict is not a pass."
    rollout = serving.get("rollout")
    if rollout and rollout["state"] in ACTIVE:
        return (
            f"Next: the rollout of {rollout['candidate']} is {rollout['state']}; "
            "`tutelage rollout status` shows it."
        )
    ready, wanted = learning["train"], ctx.config.improve.new_rows
    if ready >= wanted:
        return (
            f"Next: {ready} corrected answers wait for training; `tutelage improve` would make a "
            "new dataset version from them, train, and test it against the release that serves."
        )
    return (
        f"Next: {ready} corrected answers wait for training; `tutelage improve` would start a new "
        f"turn at {wanted}."
    )
