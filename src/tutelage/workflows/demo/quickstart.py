"""The whole loop once, on the demo project: raw rows in, a proven release serving, feedback in.

Each step is the workflow its own command runs; only the demo's traffic is made up here, from
real descriptions that are in no split.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.artifact import Artifact
from tutelage.core.errors import EnvironmentProblem
from tutelage.core.events import Emit, Event
from tutelage.core.example import normalise
from tutelage.data.version import load_version
from tutelage.release.rollout import ACTIVE
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.demo.demo import demo_rows, write_demo
from tutelage.workflows.memory import PeakMemory
from tutelage.workflows.run import RunSummary, run
from tutelage.workflows.serving.traffic import Reply, give_feedback, send

_BATCH = 12  # requests between two looks at the rollout
_MOST_REQUESTS = 900  # the demo's traffic ends here whatever the rollout says
_FEEDBACK = 30  # answers an expert looks at


@dataclass
class Quickstart:
    """What the demo did. `rollout` is promoted, rolled_back or running."""

    summary: RunSummary
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    rollout: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the one JSON object of `tutelage quickstart --json`."""
        data = self.summary.as_dict()
        data["seconds"] = {name: round(value, 2) for name, value in self.seconds.items()}
        data["peak_memory_mb"] = round(self.peak_memory_mb)
        data["rollout"] = self.rollout
        data["learned"] = self.learned
        return data


def quickstart(directory: Path, emit: Emit, *, port: int = 8321) -> Quickstart:
    """Make the demo project in `directory` and run the loop on it; run again, it goes on."""
    with PeakMemory() as memory:
        clock = _Clock()
        count = write_demo(directory, port=port)
        ctx = open_context(directory, emit)
        emit(Event("project", "note", "ICD-10-CM chapter coding: a diagnosis in, its chapter out"))
        emit(
            Event("project", "note", f"{count} real rows (CMS, public domain) in {directory}/data")
        )
        emit(Event("project", "done", "model SmolLM2-135M-Instruct, from the package index"))
        clock.lap("project")
        summary = run(ctx)
        result = Quickstart(summary, {**clock.laps, **summary.seconds})
        clock.restart()
        if summary.release is not None:
            _serve_and_learn(ctx, summary, summary.release.artifact, result, clock)
        ctx.store.close()
    result.peak_memory_mb = memory.peak_mb
    return result


class _Clock:
    """Laps of wall time, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def restart(self) -> None:
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def _serve_and_learn(
    ctx: Context, summary: RunSummary, release: Artifact, result: Quickstart, clock: _Clock
) -> None:
    from tutelage.workflows.release import rollout as rollouts
    from tutelage.workflows.release.registry import catch_up
    from tutelage.workflows.release.release import base_release
    from tutelage.workflows.serving.serve import Serving

    base = base_release(ctx)
    traffic = _Traffic(ctx, summary.dataset.artifact)
    with Serving(ctx) as serving:
        ctx.emit(
            Event("serve", "done", f"{base.artifact.meta['name']} answers at {serving.base_url}/v1")
        )
        clock.lap("serve")
        if rollouts.status(ctx)["stable"] != release.meta["name"]:
            rollouts.start(ctx, release.meta["name"])
        replies = _drive(ctx, serving.base_url, traffic, lambda: rollouts.status(ctx))
        catch_up(ctx)
        result.rollout = _outcome(rollouts.status(ctx))
        clock.lap("rollout")
        result.learned = _learn(ctx, serving.base_url, traffic, replies)
        clock.lap("learn")
    result.seconds.update({k: v for k, v in clock.laps.items() if k != "project"})


def _outcome(status: dict[str, Any]) -> dict[str, Any]:
    """Return what the last screen says of the rollout."""
    rollout = status["rollout"] or {}
    return {
        "state": rollout.get("state"),
        "candidate": rollout.get("candidate"),
        "requests": rollout.get("requests", {}).get("total"),
        "sentence": status["sentence"],
    }


class _Traffic:
    """Descriptions that are in no split of the dataset, with the chapter an expert would say."""

    def __init__(self, ctx: Context, dataset: Artifact) -> None:
        version = load_version(ctx.path_of(dataset))
        known = {
            normalise(row.input_text)
            for split in ("train", "validation", "test")
            for row in version.rows(split)
        }
        rows = demo_rows(per_chapter=60, seed=11)
        fresh = {text: chapter for text, chapter in rows if normalise(text) not in known}
        self.truth = fresh
        self._texts = list(fresh)
        random.Random(3).shuffle(self._texts)
        self._next = 0

    def take(self, count: int) -> list[str]:
        """Return the next `count` descriptions, starting over at the end."""
        picked = [self._texts[(self._next + i) % len(self._texts)] for i in range(count)]
        self._next += count
        return picked


def _drive(
    ctx: Context, base_url: str, traffic: _Traffic, status: Callable[[], dict[str, Any]]
) -> list[Reply]:
    """Send traffic until the rollout ends; return the replies."""
    replies: list[Reply] = []
    seen_step = 0.0
    while len(replies) < _MOST_REQUESTS:
        state = status()
        rollout = state.get("rollout")
        if rollout is None or rollout["state"] not in ACTIVE:
            break
        if rollout["state"] == "running" and rollout["weight"] != seen_step:
            seen_step = rollout["weight"]
            ctx.emit(
                Event(
                    "rollout",
                    "note",
                    f"{seen_step:g} % of the traffic goes to {rollout['candidate']}",
                )
            )
        fresh = send(base_url, ctx.config.name, traffic.take(_BATCH))
        replies += fresh
        if all(reply.status >= 500 for reply in fresh):
            raise EnvironmentProblem(
                "the engine answers no request",
                where=base_url,
                fix="Look at .tutelage/logs/engine.log and run the command again",
            )
        ctx.emit(
            Event(
                "rollout",
                "progress",
                f"{seen_step:g} % canary, {len(replies)} requests",
                done=rollout["progress"], total=1.0)
        )  # fmt: skip
    final = status()
    ctx.emit(Event("rollout", "done", final["sentence"]))
    return replies


def _learn(ctx: Context, base_url: str, traffic: _Traffic, replies: list[Reply]) -> dict[str, Any]:
    """Let an expert look at some answers: right ones are rated, wrong ones are corrected."""
    from tutelage.workflows.status import loop_status

    output = ctx.config.output.format()
    looked = replies[-_FEEDBACK:] or send(base_url, ctx.config.name, traffic.take(_FEEDBACK))
    notes: list[dict[str, Any]] = []
    for reply in looked:
        truth = traffic.truth[reply.text]
        right = output.parse(reply.answer).label == truth
        note: dict[str, Any] = {"response_id": reply.record, "rating": 1 if right else 0}
        if not right:
            note["edit"] = output.render(truth)
        notes.append(note)
    kept = give_feedback(base_url, notes)
    edits = sum("edit" in note for note in notes)
    ctx.emit(
        Event("learn", "note", f"{kept} answers looked at: {kept - edits} right, {edits} corrected")
    )
    status = loop_status(ctx)
    ctx.emit(Event("learn", "done", status["next"]))
    return {"feedback": kept, "edits": edits, **status["learning"]}
