"""A process that works on a turn with fast parts and kills itself at a named place.

It dies before a state's work, after it, or half-way through the training. What the parts do is
written to files, so that doing it twice would show.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tutelage.core.artifact import Artifact, content_hash, describe
from tutelage.core.workspace import atomic_write
from tutelage.workflows.context import Context, open_context, register, run_stage
from tutelage.workflows.improve import improve_steps as real
from tutelage.workflows.improve.improve import Parts, Work, improve
from tutelage.workflows.improve.improve_turns import Move, Turn

FAST = ("start", "train", "gate", "release", "canary")


def parts(die_in: str = "", when: str = "") -> Parts:
    """Return the real work up to the data set, and stand-ins for what needs a model."""
    fast = {"start": _start, "train": _train(when if die_in == "train" else ""), "gate": _gate,
            "release": _release, "canary": _canary}  # fmt: skip
    made: dict[str, Work] = {**real.steps(), **fast}
    if die_in and when != "half":
        made[die_in] = _dying(made[die_in], when)
    return made


def _dying(work: Work, when: str) -> Work:
    def run(ctx: Context, turn: Turn) -> Move:
        if when == "after":
            work(ctx, turn)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    return run


def _note(ctx: Context, text: str) -> None:
    with (ctx.workspace.root / "done.txt").open("a") as file:
        file.write(text + "\n")


def _start(ctx: Context, turn: Turn) -> Move:
    return Move("train", "from the base model: a stand-in", {"start": None})


def _train(when: str) -> Work:
    """Return a training of four steps, each with a checkpoint, as the real one has."""

    def run(ctx: Context, turn: Turn) -> Move:
        dataset = str(turn.facts["dataset"])
        folder = ctx.workspace.runs / f"fake-{dataset[:12]}"

        def work() -> Artifact:
            at = folder / "step.txt"
            for step in range(int(at.read_text()) if at.exists() else 0, 4):
                if when == "half" and step == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                _note(ctx, f"step {step} of {dataset[:12]}")
                atomic_write(at, str(step + 1).encode())
            digest = content_hash(["adapter", dataset])
            path = ctx.workspace.artifact_dir("adapters", digest)
            atomic_write(path / "weights.txt", b"4")
            return register(ctx.store, describe("adapter", digest, ctx.workspace.relative(path)))

        made = run_stage(ctx, "train", {"dataset": dataset}, work)
        return Move("gate", "trained", {"adapter": made.artifact.hash})

    return run


def _gate(ctx: Context, turn: Turn) -> Move:
    return Move("release", "better", {"evaluation": "e" * 64})


def _release(ctx: Context, turn: Turn) -> Move:
    return Move("canary", "released", {"release": "colours-v2"})


def _canary(ctx: Context, turn: Turn) -> Move:
    return Move("done", "promoted")


def work(project: str, state: str, moment: str) -> None:
    """Begin the project's turn, or go on with it, and die at the place that is named."""
    improve(open_context(Path(project)), parts=parts(state, moment))
