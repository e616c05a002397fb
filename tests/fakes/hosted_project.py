"""A project with a frozen dataset version and a hosted section, for a `JobsServer`."""

from __future__ import annotations

import json

from tests.fakes.jobs_server import JobsServer

from tutelage.core.artifact import Artifact, describe
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, write_version
from tutelage.workflows.context import Context, register

CONFIG = """\
name: colours
task: classification
model: demo
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
data: {sources: [data/*]}
train: {method: hosted, seed: 3}
hosted: {kind: %s, base_url: "%s", model: small-1, api_key_env: JOBS_KEY%s}
"""
DEPLOYMENT = (
    ', deployment: {subscription: sub-1, resource_group: rg, account: acc, management_url: "%s"}'
)


def config(server: JobsServer, more: str = "") -> str:
    """Return tutelage.yaml for a server; `more` ends the hosted section."""
    if not server.service.azure:
        return CONFIG % ("openai", f"{server.url}/v1", more)
    return CONFIG % ("azure", server.url, DEPLOYMENT % server.url + more)


def row(index: int) -> Example:
    """Return a row about a thing."""
    label = "warm" if index % 2 else "cold"
    turns = (
        Message(role="user", content=f"thing number {index}"),
        Message(role="assistant", content=json.dumps({"family": label})),
    )
    return Example(messages=turns, label=label)


def freeze(
    ctx: Context, train: list[Example], validation: list[Example], test: list[Example]
) -> Artifact:
    """Write and register a dataset version with these splits."""
    splits = {"train": train, "validation": validation, "test": test}
    draft = VersionDraft(splits, {}, meta={"parents": []})  # type: ignore[arg-type]
    made = write_version(ctx.workspace.artifacts / "datasets", draft)
    path = ctx.workspace.relative(made.directory)
    return register(ctx.store, describe("dataset", made.hash, path))


def usual(ctx: Context) -> Artifact:
    """Freeze 12 train, 4 validation and 6 test rows."""
    rows = [row(index) for index in range(22)]
    return freeze(ctx, rows[:12], rows[12:16], rows[16:])
