"""A project whose engine is the fake backend, with a stable release and, if asked, a candidate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tutelage.core.workspace import atomic_write
from tutelage.release.bundle import BaseRef, OutputRef, ReleaseManifest, create_release
from tutelage.release.deployments import ensure_deployment, start_rollout
from tutelage.release.rollout import RolloutPlan
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context, open_context

PROMPT = "Name the colour family of the thing."


def gateway_project(
    root: Path, backend_url: str, *, prompt: str = PROMPT, **deploy: Any
) -> Context:
    """Return an opened project that serves `colours` from the backend's model `base`."""
    settings = {
        "name": "colours",
        "task": "classification",
        "model": "demo",
        "prompt": prompt,
        "output": {"field": "family", "labels": ["warm", "cold"]},
        "deploy": {
            "engine": "remote",
            "port": 0,
            "endpoint": {"base_url": backend_url, "model": "base"},
            **deploy,
        },
    }
    root.mkdir(parents=True, exist_ok=True)
    atomic_write(root / "tutelage.yaml", yaml.safe_dump(settings).encode())
    ctx = open_context(root)
    ensure_deployment(ctx.store, "colours", make_release(ctx, prompt).id)
    return ctx


def make_release(ctx: Context, prompt: str) -> ReleaseRow:
    """Return a release that differs from others by its prompt alone."""
    output = OutputRef(field="family", labels=("warm", "cold"))
    manifest = ReleaseManifest(
        kind="base",
        base=BaseRef(spec="demo", name="demo", digest="0" * 64),
        prompt=prompt,
        output=output,
        specials=("<secret_token>",),
    )
    return create_release(ctx.store, ctx.workspace, manifest, project="colours")


def begin_rollout(ctx: Context, steps: tuple[float, ...] = (50, 100), **plan: Any) -> str:
    """Start a rollout of a candidate; return its id."""
    candidate = make_release(ctx, "Candidate: name the colour family.")
    asked = RolloutPlan(steps, **{"min_requests": 10, "min_total": 20, **plan})
    return start_rollout(ctx.store, "colours", candidate.id, asked).id
