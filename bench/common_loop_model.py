"""The fast parts of bench/loop.py's turns: a linear head in place of a language model.

What they do not replace is the product's own: mining, the label queue, the data set, the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.artifact import Artifact, content_hash, describe
from tutelage.core.errors import DataError
from tutelage.core.workspace import atomic_write
from tutelage.data.linear import LinearModel, fit_linear
from tutelage.data.version import load_version
from tutelage.inference.base import Decoding
from tutelage.release.bundle import BaseRef, OutputRef, ReleaseManifest
from tutelage.release.deployments import ensure_deployment, last_rollout, route, start_rollout
from tutelage.release.prompts import prompt_hash
from tutelage.release.rollout import ACTIVE
from tutelage.release.strategies.base import plan_of
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context, find_artifact, register
from tutelage.workflows.feedback.mine_queue import mine_and_give
from tutelage.workflows.improve import improve_gate
from tutelage.workflows.improve import improve_steps as real
from tutelage.workflows.improve.improve import Parts
from tutelage.workflows.improve.improve_turns import Move, Turn


class Heads:
    """The heads that were trained, by the id of their release."""

    def __init__(self, ctx: Context, vectors: NDArray[np.float32], where: dict[str, int]) -> None:
        self.ctx, self.vectors, self.where = ctx, vectors, where
        self.models: dict[str, LinearModel] = {}
        self.datasets: dict[str, str] = {}
        self._answers: dict[str, list[str]] = {}

    def first(self, dataset: Artifact) -> None:
        """Train the first release and deploy it."""
        release = self.release(dataset)
        ensure_deployment(self.ctx.store, self.ctx.config.name, release)

    def train(self, dataset: Artifact) -> LinearModel:
        """Return a head fitted on what a version may be learnt from.

        Validation rows are trained on too: they say when to stop, and nothing is stopped here.
        """
        version = load_version(self.ctx.path_of(dataset))
        rows = [*version.rows("train"), *version.rows("validation")]
        places = [self.where[row.input_text] for row in rows]
        return fit_linear(self.vectors[places], [str(row.label) for row in rows])

    def release(self, dataset: Artifact) -> str:
        """Release the head of a version; the same version is one release."""
        name = content_hash(["head", dataset.hash])
        if name not in self.models:
            model = self.train(dataset)
            self.models[name], self.datasets[name] = model, dataset.hash
            self._answers[name] = model.predict(self.vectors)
            with self.ctx.store.begin() as session:
                session.add(
                    ReleaseRow(
                        id=name,
                        name=f"head-{len(self.models)}",
                        kind="tuned",
                        manifest=self._manifest(dataset.hash),
                        path="",
                    )
                )  # fmt: skip
        return name

    def _manifest(self, dataset: str) -> dict[str, Any]:
        base = BaseRef(spec="demo", name="a linear head on MiniLM's vectors", digest="0" * 64)
        prompt = self.ctx.config.prompt
        made = ReleaseManifest(
            kind="tuned", base=base, prompt=prompt, prompt_hash=prompt_hash(prompt),
            decoding=Decoding(max_tokens=16), output=OutputRef(field="intent"), dataset=dataset,
        )  # fmt: skip
        return made.model_dump(mode="json")

    def predict(self, release: str, row: int) -> str:
        """Return what a release answers to a text."""
        return self._answers[release][row]


def parts(heads: Heads, now: Callable[[], datetime]) -> Parts:
    """Return the work of every state."""

    def mine(ctx: Context, turn: Turn) -> Move:
        try:
            given = mine_and_give(ctx, ["oracle"], ctx.config.improve.review.count, now=now())
        except DataError as error:
            return Move("dataset", f"nobody is asked: {error.what}")
        return Move("review", f"{given['items']} given out", {"batch": given["batch"]})

    def review(ctx: Context, turn: Turn) -> Move:
        counts = real.answers(ctx, str(turn.facts["batch"]))
        left = counts["open"] + counts["leased"]
        if not left or now() - turn.since >= timedelta(days=20):
            return Move("dataset", f"{counts['done']} answers, {left} open")
        return Move("review", "answers are awaited", waits="the oracle answers")

    return {"mine": mine, "review": review, "dataset": real.dataset, "start": _start,
            **_served(heads, now)}  # fmt: skip


def _start(ctx: Context, turn: Turn) -> Move:
    return Move("train", "a head is fitted anew")


def _served(heads: Heads, now: Callable[[], datetime]) -> dict[str, Any]:
    def train(ctx: Context, turn: Turn) -> Move:
        dataset = _dataset(ctx, turn)
        digest = heads.release(dataset)
        path = ctx.workspace.artifact_dir("adapters", digest)
        atomic_write(path / "manifest.json", b"{}")
        register(ctx.store, describe("adapter", digest, ctx.workspace.relative(path)))
        return Move("gate", "trained", {"adapter": digest})

    def gate(ctx: Context, turn: Turn) -> Move:
        parts = compare(heads, ctx, _dataset(ctx, turn), str(turn.facts["adapter"]))
        outcome, told = improve_gate.conclude("pass", "", parts)
        if outcome == "fail":
            return Move("kept", told)
        return Move("release", told if outcome == "pass" else f"live traffic shall decide: {told}")

    def release(ctx: Context, turn: Turn) -> Move:
        digest = str(turn.facts["adapter"])
        if route(ctx.store, ctx.config.name).stable == digest:
            return Move("kept", "nothing has changed")
        return Move("canary", "released", {"release": digest[:12], "release_id": digest})

    def canary(ctx: Context, turn: Turn) -> Move:
        found = last_rollout(ctx.store, ctx.config.name)
        if found is None or found.candidate != turn.facts["release_id"]:
            plan = plan_of(ctx.config.deploy, "canary")
            start_rollout(ctx.store, ctx.config.name, str(turn.facts["release_id"]), plan)
            found = last_rollout(ctx.store, ctx.config.name)
        assert found is not None
        if found.state in ACTIVE:
            return Move("canary", found.state, {"rollout": found.id}, waits="live traffic decides")
        if found.state == "promoted":
            real.answer_drift(ctx, turn, now())
            return Move("done", "promoted")
        return Move("kept", found.state)

    return {"train": train, "gate": gate, "release": release, "canary": canary}


def compare(
    heads: Heads, ctx: Context, dataset: Artifact, candidate: str
) -> list[improve_gate.Part]:
    """Return how the candidate stands against stable on old and on new test rows."""
    stable = route(ctx.store, ctx.config.name).stable
    before = find_artifact(ctx.store, heads.datasets[stable])
    assert before is not None
    known = {row.id for row in load_version(ctx.path_of(before)).rows("test")}
    version = load_version(ctx.path_of(dataset))
    test = version.rows("test")
    scores = [
        {row.id: float(heads.predict(name, heads.where[row.input_text]) == row.label)
         for row in test}
        for name in (candidate, stable)
    ]  # fmt: skip
    margin = ctx.config.evaluate.guards.stable
    found = []
    for name, old in (("old", True), ("new", False)):
        ids = [row.id for row in test if (row.id in known) is old]
        clusters = [version.cluster_of(i) for i in ids]
        found.append(improve_gate.compare(name, ids, scores[0], scores[1], margin, clusters))
    return found


def _dataset(ctx: Context, turn: Turn) -> Artifact:
    found = find_artifact(ctx.store, str(turn.facts["dataset"]))
    assert found is not None
    return found
