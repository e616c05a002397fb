"""Runs: what is at work, what was trained and how it ended; starting, stopping, going on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from tutelage.release.bundle import list_releases, manifest_of
from tutelage.web.parts.chart import line
from tutelage.web.parts.layout import Action, card, chip, empty, facts, grid, heading, notice
from tutelage.web.parts.table import Chip, Column, Query, Rows, plain_table, table
from tutelage.web.parts.text import text
from tutelage.web.parts.words import ago, count, duration, number, percent, short, when
from tutelage.web.runs.live import Live, series
from tutelage.web.runs.start import (
    JobBar,
    may,
    run_path,
    starting,
    state,
    stop_action,
    title,
)
from tutelage.web.view import Page, View
from tutelage.workflows import jobs
from tutelage.workflows.context import Context
from tutelage.workflows.training import training_watch as watch

_ROLES = frozenset({"engineer", "operator", "admin"})
_SHOWN = 200  # jobs that are listed
_REJECTED = 50
_USERS = {"prompt_test": "Test of a prompt"}  # what uses an adapter; others as they are called
_JOBS = ".tt-jobs td:first-child { white-space: nowrap; }"


async def show_list(view: View) -> None:
    """Draw the list of runs."""
    listed = await view.call(jobs.jobs, view.context, limit=_SHOWN)
    cut = await view.call(watch.unfinished, view.context)
    alive = [job for job in listed if job.alive]
    actions = []
    if view.can("engineer"):
        train, search = starting(view, "train"), starting(view, "search")
        actions = [
            Action("Plan", "/plan", icon="tune"),
            Action("Search settings", search, icon="manage_search"),
            Action("Start training", train, icon="play_arrow", weight="main", key="n"),
        ]
        view.keys({"n": ("Start training", train)})
    heading("Runs", *actions, note="Training and other long work. It goes on when you leave.")
    if alive:
        with card("At work"):
            for job in alive:
                JobBar(view, job, ended=lambda job: ui.navigate.reload())
    if cut and not any(job.kind in ("train", "search", "improve") for job in alive):
        _cut(view, cut)
    with card("Trained"):
        await _trained(view)
    with card("Searches of settings"):
        await _searches(view)
    ui.add_css(_JOBS)
    with card("Everything that was started here", classes="tt-jobs"):
        await _jobs(listed)


def _cut(view: View, cut: list[watch.Cut]) -> None:
    with card("Cut off"):
        for run in cut:
            with ui.row().classes("items-center gap-4 w-full"):
                text("span", run.name, "tt-mono")
                of = f" of {run.steps}" if run.steps else ""
                text("span", f"kept up to step {run.step}{of}, {ago(run.changed_at)}", "tt-muted")
        text(
            "p",
            "With the same rows and settings, starting training again goes on from there.",
            "tt-muted",
        )
        if view.can("engineer"):
            ui.button("Go on", icon="resume", on_click=starting(view, "train")).props("outline")


async def _trained(view: View) -> None:
    async def rows(query: Query) -> Rows:
        found, total = await view.call(
            watch.adapters, view.context, start=query.offset, count=query.limit
        )
        return Rows([_trained_row(one) for one in found], total)

    await table(
        (
            Column("id", "Adapter"),
            Column("made", "Made"),
            Column("method", "Method"),
            Column("steps", "Steps", "number"),
            Column("best", "Best at", "number"),
            Column("took", "Took"),
            Column("ended", "Why it ended", wide=True),
        ),
        rows,
        key="id",
        on_open="/runs/{id}",
        nothing="Nothing was trained yet. Start training, or look at the plan first.",
        limit=15,
    )


def _trained_row(one: watch.Trained) -> dict[str, Any]:
    meta = one.meta
    return {
        "id": one.hash[:12],
        "made": ago(one.created_at),
        "method": meta.get("method", "–"),
        "steps": meta.get("steps"),
        "best": meta.get("best_step"),
        "took": duration(meta.get("seconds")),
        "ended": meta.get("stopped") or meta.get("summary") or "–",
    }


async def _searches(view: View) -> None:
    async def rows(query: Query) -> Rows:
        found, total = await view.call(
            watch.searches, view.context, start=query.offset, count=query.limit
        )
        return Rows(
            [
                {
                    "id": one.hash[:12],
                    "made": ago(one.created_at),
                    "take": Chip("better settings", "good")
                    if one.meta.get("take")
                    else Chip("keep the plan", "idle"),
                    "why": one.meta.get("reason", ""),
                }
                for one in found
            ],
            total,
        )

    await table(
        (
            Column("id", "Search"),
            Column("made", "Made"),
            Column("take", "Result"),
            Column("why", "Why", wide=True),
        ),
        rows,
        key="id",
        on_open="/runs/{id}",
        nothing="No search has ended yet. Search settings tries the plan's rivals on the "
        "validation rows.",
        limit=10,
    )


async def _jobs(listed: list[jobs.Job]) -> None:
    await table(
        (
            Column("id", "Job"),
            Column("kind", "What"),
            Column("state", "State"),
            Column("started", "Started"),
            Column("by", "By"),
            Column("message", "Last word", wide=True),
        ),
        [
            {
                "id": job.id,
                "kind": title(job.kind),
                "state": Chip(*state(job.state)),
                "started": ago(job.started_at),
                "by": job.by or "–",
                "message": short(_last_word(job), 160),
            }
            for job in listed
        ],
        key="id",
        on_open="/runs/{id}",
        nothing="Nothing was started from this page yet.",
        limit=15,
    )


def _last_word(job: jobs.Job) -> str:
    """Return how a job ended, or where it stands; a plan says nothing at its end but its gist."""
    gist = job.result.get("headline") if job.state == jobs.DONE else None
    return str(gist or job.message)


async def show_one(view: View, run: str) -> None:
    """Draw a job, an adapter or a search."""
    if "-" in run:
        await _show_job(view, await view.call(jobs.job, view.context, run))
        return
    one = await view.call(watch.trained, view.context, run)
    if "take" in one.meta:
        await _show_search(view, one)
    else:
        await _show_adapter(view, one)


async def _show_job(view: View, job: jobs.Job) -> None:
    actions = []
    if view.can(*may(job.kind)):
        if job.alive:
            actions = [stop_action(view, job)]
        else:
            word = "Go on" if job.state in (jobs.STOPPED, jobs.FAILED) else "Start again"
            again = starting(view, job.kind, job.arguments)  # type: ignore[arg-type]
            actions = [Action(word, again, icon="play_arrow", weight="main")]
    heading(title(job.kind), *actions, note=job.id)
    took = (job.updated_at - job.started_at).total_seconds()
    facts(
        (
            ("Started", f"{when(job.started_at)} by {job.by or 'somebody'}"),
            *([] if job.alive else [("Took", duration(took))]),
            ("With", " ".join(job.arguments) or "the project's settings"),
        )
    )
    if not job.alive:
        _ending(job)
    await Live(view, job, lambda job: ui.navigate.reload()).load()
    await _log(view, job)


def _ending(job: jobs.Job) -> None:
    """Say how a job ended, and lead to what it made."""
    words, kind = state(job.state)
    notice(f"{words.capitalize()}. {_last_word(job)}", kind)
    made = {
        "adapter": "/runs/{}",
        "search": "/runs/{}",
        "evaluation": "/evaluations/{}",
        "dataset": "/data/{}",
    }
    links = [(name, job.result.get(name)) for name in made]
    with ui.row().classes("gap-4"):
        for name, found in links:
            if isinstance(found, str) and job.state == jobs.DONE:
                ui.link(f"Open the {name} {found}", made[name].format(found))
        if job.kind == "plan" and job.result:
            ui.link("Open the plan", "/plan")


async def _log(view: View, job: jobs.Job) -> None:
    lines = await view.call(jobs.tail, view.context, job.id, 80)
    if not lines:
        return
    with ui.element("details").classes("tt-card"):
        text("summary", "The end of its log")
        text("pre", "\n".join(lines), "tt-passage tt-mono").props('tabindex="0"')


async def _show_adapter(view: View, one: watch.Trained) -> None:
    meta = one.meta
    actions = [Action("All runs", "/runs", icon="list")]
    if view.can("engineer") and not any(kind == "evaluation" for kind, _ in one.used_by):
        evaluate = starting(view, "evaluate", (one.hash[:12],))
        actions.append(Action("Evaluate it", evaluate, icon="play_arrow", weight="main"))
    heading(
        f"Adapter {one.hash[:12]}",
        *actions,
        note=str(meta.get("stopped") or meta.get("summary") or ""),
    )
    points = await view.call(watch.history, one)
    curve = watch.curve_of(points)
    releases, models = await view.call(_released, view.context)
    with card("Loss"):
        if curve.train or curve.validation:
            line(series(curve), name="Loss by step", unit="nats")
        else:
            empty("The points of this run are not kept here.")
    with grid("20rem"):
        with card("The run"):
            facts(_run_facts(one, models))
        with card("Label coverage"):
            _coverage(one)
        with card("Where it stands in the project"):
            _relatives(one, releases)
    rejected = (meta.get("coverage") or {}).get("rejected") or {}
    if rejected:
        with card("Rows that could not be trained on"):
            shown = list(rejected.items())[:_REJECTED]
            plain_table(("row", "why"), shown, name="Rows that could not be trained on")
            if len(rejected) > _REJECTED:
                text("p", f"and {len(rejected) - _REJECTED:,} more", "tt-muted")
    with ui.element("details").classes("tt-card"):
        text("summary", "Every setting it was trained with")
        recipe = meta.get("recipe") or {}
        plain_table(("setting", "value"), list(recipe.items()), name="Settings")


def _released(ctx: Context) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names of the releases by short hash, and of their base models by setting."""
    rows = list_releases(ctx.store)
    bases = [manifest_of(row).base for row in rows]
    return {row.id[:12]: row.name for row in rows}, {base.spec: base.name for base in bases}


def _run_facts(one: watch.Trained, models: Mapping[str, str]) -> list[tuple[str, object]]:
    meta = one.meta
    planned = meta.get("planned_seconds")
    kept = (meta.get("interpolation") or {}).get("share")
    return [
        ("Made", when(one.created_at)),
        ("Base model", models.get(str(meta.get("model")), meta.get("model"))),
        ("Method", meta.get("method")),
        ("Steps", f"{meta.get('steps', '–')}, best at {meta.get('best_step', '–')}"),
        ("Why it ended", meta.get("stopped") or "–"),
        ("Took", f"{duration(meta.get('seconds'))}; planned {duration(planned)}"),
        ("Peak memory", f"{number(meta.get('peak_memory_mb'), 0)} MB"),
        ("Trained weights", number(meta.get("trainable"))),
        ("Change kept", percent(kept, 0)),
    ]


def _coverage(one: watch.Trained) -> None:
    found = one.meta.get("coverage") or {}
    if not found:
        empty("This run kept no label coverage.")
        return
    facts(
        (
            ("Rows", number(found.get("rows"))),
            ("Tokens", number(found.get("tokens"))),
            ("Learned tokens", number(found.get("labelled"))),
            ("Longest row", count(found.get("longest") or 0, "token")),
            ("Context cut", count(len(found.get("shortened") or ()), "row")),
            ("Left out", count(len(found.get("rejected") or {}), "row")),
        )
    )
    for dataset in one.datasets[:1]:
        ui.link("See it token by token", f"/data/{dataset}/tokens")


def _relatives(one: watch.Trained, releases: Mapping[str, str]) -> None:
    for dataset in one.datasets:
        ui.link(f"Trained on dataset {dataset}", f"/data/{dataset}")
    if not one.used_by:
        text("p", "It is not evaluated yet.", "tt-muted")
    for kind, digest in one.used_by:
        name = releases.get(digest, digest)
        called = f"{_USERS.get(kind, kind.capitalize())} {name}"
        paths = {
            "evaluation": f"/evaluations/{digest}",
            "adapter": run_path(digest),
            "release": f"/releases/{quote(name, safe='')}",
        }
        if kind in paths:
            ui.link(called, paths[kind])
        else:
            text("span", called)


async def _show_search(view: View, one: watch.Trained) -> None:
    from tutelage.workflows.training.search_report import fragment, trial_rows

    data = await view.call(watch.search_data, one)
    heading(f"Search {one.hash[:12]}", Action("All runs", "/runs", icon="list"))
    take = bool(one.meta.get("take"))
    notice(str(one.meta.get("reason", "")), "good" if take else "info")
    with ui.row():
        chip("better settings" if take else "keep the plan", "good" if take else "idle")
        text("span", f"made {ago(one.created_at)}", "tt-muted")
    if take:
        with card("Put this into tutelage.yaml"):
            text("pre", fragment(dict(one.meta.get("overrides") or {})), "tt-passage tt-mono")
    if data:
        with card("Trials, the lowest validation loss first"):
            header, rows = trial_rows(data)
            plain_table(header, rows, name="Trials")


PAGES = (
    Page("/runs", "Runs", show_list, _ROLES, "Build", "model_training", "n"),
    Page("/runs/{run}", "Run", show_one, _ROLES),
)
