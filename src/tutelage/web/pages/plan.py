"""The plan as advice: what training would do, why, how long it takes, and why it should not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from tutelage.web.parts.chart import bars
from tutelage.web.parts.layout import Action, card, empty, grid, heading, notice
from tutelage.web.parts.table import plain_table
from tutelage.web.parts.text import text
from tutelage.web.parts.words import ago, duration, number
from tutelage.web.runs.start import JobBar, start, starting
from tutelage.web.view import Page, View
from tutelage.workflows import jobs
from tutelage.workflows.context import Context, last_output
from tutelage.workflows.training.plan_words import grouped, shown

_ROLES = frozenset({"engineer", "admin"})
_METHODS = {
    "lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "cpt": "raw text", "dpo": "DPO", "kto": "KTO",
}  # fmt: skip


async def show(view: View) -> None:
    """Draw the newest plan, or how to get one."""
    made = await view.call(_plans, view.context)
    working, newest = made
    replan = _planning(view)
    view.keys({"p": ("Plan anew", replan)})
    word = "Plan anew" if newest else "Plan"
    heading(
        "Plan",
        Action(word, replan, icon="refresh", weight="plain" if newest else "main", key="p"),
        *(
            [Action("Start training", starting(view, "train"), icon="play_arrow", weight="main")]
            if newest and not _refusals(newest.result)
            else []
        ),
        note="What training would do with these rows, this model and this machine, and why.",
    )
    if working:
        with card("Planning"):
            text("p", "The rows are read and one step is timed on this machine.", "tt-muted")
            JobBar(view, working[0], ended=lambda job: ui.navigate.reload())
    if newest is None:
        if not working:
            _nothing(await view.call(_last_failure, view.context))
        return
    outdated = await view.call(_outdated, view.context, newest.started_at)
    _head(newest, outdated)
    for number_of, stage in enumerate(newest.result.get("stages") or (), start=1):
        with card(f"Stage {number_of}"):
            _plan(stage)
    _plan(newest.result)


def _planning(view: View) -> Any:
    async def go() -> None:
        if await start(view, "plan") is not None:
            ui.navigate.reload()

    return go


def _plans(ctx: Context) -> tuple[list[jobs.Job], jobs.Job | None]:
    """Return the plans that are being made, and the newest one that is."""
    listed = [job for job in jobs.jobs(ctx, limit=200) if job.kind == "plan"]
    ready = (job for job in listed if job.state == jobs.DONE and job.result.get("choices"))
    return [job for job in listed if job.alive], next(ready, None)


def _last_failure(ctx: Context) -> str | None:
    listed = [job for job in jobs.jobs(ctx, limit=200) if job.kind == "plan"]
    return listed[0].message if listed and listed[0].state == jobs.FAILED else None


def _nothing(problem: str | None) -> None:
    if problem:
        notice(problem, "bad")
    empty(
        "There is no plan yet. It takes less than a minute and trains nothing.",
        "tutelage train --plan",
    )


def _outdated(ctx: Context, planned: datetime) -> str | None:
    """Return why a plan may not hold any more."""
    dataset = last_output(ctx, "curate")
    if dataset is not None and dataset.created_at > planned:
        return f"There is a newer dataset version, {dataset.short}. Plan anew."
    changed = datetime.fromtimestamp(ctx.workspace.config_path.stat().st_mtime, UTC)
    if changed > planned:
        return "tutelage.yaml was changed after this was planned. Plan anew."
    return None


def _refusals(plan: Mapping[str, Any]) -> list[str]:
    parts = [*(plan.get("stages") or ()), plan]
    return [str(part["refusal"]) for part in parts if part.get("refusal")]


def _head(job: jobs.Job, outdated: str | None) -> None:
    plan = job.result
    for refusal in _refusals(plan):
        notice(
            f"The planner advises against training: {refusal}. Label more rows, or set "
            "train.force: true.",
            "bad",
        )
    if outdated:
        notice(outdated, "warn")
    if plan.get("headline"):
        text("p", f"{plan['headline']}.", "text-lg")
    said = f"At most {duration(plan.get('seconds'))}"
    if plan.get("cost") is not None:
        said += f", {number(plan['cost'], 2)} at your price an hour"
    said += "; it stops sooner when the validation rows gain no more."
    text("p", f"{said} Planned {ago(job.started_at)}.", "tt-muted")


def _plan(plan: Mapping[str, Any]) -> None:
    for warning in plan.get("warnings") or ():
        notice(str(warning), "warn")
    with grid("26rem"):
        with card("Time and steps"):
            rows = [
                ("time at most", duration(plan.get("seconds"))),
                ("steps", number(plan.get("steps"))),
                ("trained weights", number(plan.get("trained"))),
            ]
            plain_table(("estimate", "value"), rows, name="Time and steps")
        _memory(plan.get("memory") or {})
    for title, choices in grouped(plan).items():
        with card(title):
            plain_table(
                ("setting", "value", "why", "from"),
                [
                    (
                        str(choice["name"]).replace("_", " "),
                        _value(choice["value"]),
                        choice["reason"],
                        choice["source"],
                    )
                    for choice in choices
                ],
                name=title,
            )


def _value(value: object) -> str:
    said = shown(value)
    return _METHODS.get(said, said)


def _memory(memory: Mapping[str, Any]) -> None:
    total = memory.get("total_mb")
    if not total:
        return
    parts = [
        (name.removesuffix("_mb").replace("_", " "), float(value))
        for name, value in memory.items()
        if name != "total_mb" and value
    ]
    with card(f"Memory: about {number(total, 0)} MB"):
        bars(parts, name="Memory by what it holds", unit="MB")


PAGES = (Page("/plan", "Plan", show, _ROLES, "Build", "tune", "b"),)
