"""What every workflow needs: the project's places, settings, store and listener; and stages.

A stage is a function that returns an Artifact. It is skipped when the hash of its inputs is the
one it last finished with and its output is still on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.config import Project as Settings
from tutelage.core.config_file import load_config
from tutelage.core.events import Emit, Event, silent
from tutelage.core.workspace import Workspace, find_project
from tutelage.release.prompts import InForce, in_force
from tutelage.store.artifacts import ArtifactRow, ParentRow, StageRow
from tutelage.store.base import Store, open_store


@dataclass(frozen=True)
class Context:
    """One opened project. `config.prompt` is the prompt in force, which `prompt` tells about."""

    workspace: Workspace
    config: Settings
    store: Store
    emit: Emit = silent
    prompt: InForce | None = None
    told: set[str] = field(default_factory=set)  # notes that are given once

    def path_of(self, artifact: Artifact) -> Path:
        """Return the folder (or file) of an artifact."""
        return self.workspace.home / artifact.path

    def tell_prompt(self, stage: str) -> None:
        """Say once which prompt is in force, where it is not simply tutelage.yaml's."""
        if self.prompt is not None and self.prompt.told and self.prompt.told not in self.told:
            self.told.add(self.prompt.told)
            self.emit(Event(stage, "note", self.prompt.told))


@dataclass(frozen=True)
class StageOutcome:
    """What a stage gave: its artifact, whether it was skipped, and how long it took."""

    name: str
    artifact: Artifact
    skipped: bool
    seconds: float


def open_context(directory: Path, emit: Emit = silent) -> Context:
    """Open the project in `directory`: settings checked, folders made, store migrated.

    A prompt that was published in the store takes the place of the one in tutelage.yaml
    (release/prompts.py, in_force).
    """
    workspace = find_project(directory)
    config = load_config(workspace.config_path)
    workspace.create()
    store = open_store(workspace.store_url)
    prompt = in_force(store, config.prompt)
    if prompt.text != config.prompt:
        config = config.model_copy(update={"prompt": prompt.text})
    return Context(workspace, config, store, emit, prompt)


def reread(ctx: Context) -> Context:
    """Return the project with its settings and the prompt in force as they are now.

    It is `ctx` itself if neither changed. Raises ConfigError if tutelage.yaml can't be used.
    """
    config = load_config(ctx.workspace.config_path)
    prompt = in_force(ctx.store, config.prompt)
    if prompt.text != config.prompt:
        config = config.model_copy(update={"prompt": prompt.text})
    if config == ctx.config and prompt == ctx.prompt:
        return ctx
    return replace(ctx, config=config, prompt=prompt)


def register(store: Store, artifact: Artifact) -> Artifact:
    """Keep a row for `artifact` and its parents; the same hash twice is one row."""
    with store.begin() as session:
        if session.get(ArtifactRow, artifact.hash) is None:
            fields = artifact.model_dump(exclude={"parents"})
            session.add(ArtifactRow(**fields))
            session.flush()
            for parent in set(artifact.parents):
                session.add(ParentRow(child=artifact.hash, parent=parent))
    return artifact


def find_artifact(store: Store, digest: str) -> Artifact | None:
    """Return the registered artifact with this full hash, or None."""
    with store.session() as session:
        row = session.get(ArtifactRow, digest)
        if row is None:
            return None
        parents = session.query(ParentRow.parent).filter(ParentRow.child == digest).all()
        return Artifact(
            kind=row.kind,
            hash=row.hash,
            path=row.path,
            parents=tuple(p[0] for p in parents),
            seed=row.seed,
            versions=row.versions,
            meta=row.meta,
            created_at=row.created_at,
        )


def made_from(store: Store, artifact: Artifact | None, kind: str = "dataset") -> Artifact | None:
    """Return the parent of this kind, or None. Parents have no order: never take one by place."""
    parents = (find_artifact(store, parent) for parent in (artifact.parents if artifact else ()))
    return next((found for found in parents if found is not None and found.kind == kind), None)


def last_output(ctx: Context, stage: str) -> Artifact | None:
    """Return what `stage` last finished with, or None."""
    with ctx.store.session() as session:
        row = session.get(StageRow, stage)
    return find_artifact(ctx.store, row.output) if row else None


def run_stage(
    ctx: Context, name: str, inputs: Mapping[str, Any], work: Callable[[], Artifact]
) -> StageOutcome:
    """Run `work` unless the stage last finished with the same `inputs`; record the result."""
    digest = content_hash({"stage": name, "inputs": inputs})
    if "prompt" in inputs:
        ctx.tell_prompt(name)
    with ctx.store.session() as session:
        row = session.get(StageRow, name)
    if row is not None and row.input_hash == digest:
        artifact = find_artifact(ctx.store, row.output)
        if artifact is not None and ctx.path_of(artifact).exists():
            ctx.emit(Event(name, "done", "unchanged, kept", data={"skipped": True}))
            return StageOutcome(name, artifact, True, 0.0)
    started = time.monotonic()
    artifact = register(ctx.store, work())
    seconds = time.monotonic() - started
    with ctx.store.begin() as session:
        session.merge(
            StageRow(stage=name, input_hash=digest, output=artifact.hash, seconds=seconds)
        )
    return StageOutcome(name, artifact, False, seconds)
