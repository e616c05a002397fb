"""Finds what is to be exported, and the prompts it is compared on; exports nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tutelage.core.artifact import Artifact, canonical
from tutelage.core.errors import DataError, ModelError
from tutelage.core.example import Example, Message
from tutelage.data.version import load_version
from tutelage.inference.base import Decoding
from tutelage.inference.chat import conversation
from tutelage.inference.models import ModelSource, locate_model
from tutelage.inference.specials import special_spellings
from tutelage.inference.tuned import Tuned, read_tuned
from tutelage.release import bundle
from tutelage.store.artifacts import ArtifactRow
from tutelage.workflows.context import Context, find_artifact, last_output, made_from
from tutelage.workflows.outputs import require_output
from tutelage.workflows.release.release import golden_prompts
from tutelage.workflows.release.release_card import newest_evaluation

MAX_TOKENS = 64  # of an answer that is compared
_GENERAL = (
    "What is the capital of France?", "Name three colours.", "What is 12 times 12?",
    "Write one sentence about the sea.",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What was asked for: names and hashes for the card, and where its parts lie."""

    name: str
    base: ModelSource
    tuned: Tuned | None
    prompt: str
    golden: tuple[bundle.Golden, ...] = ()
    test: list[Example] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    max_tokens: int = MAX_TOKENS
    adapter: Artifact | None = None
    evaluation: str | None = None  # its hash
    release: str | None = None  # its id


def find(ctx: Context, what: str | None) -> Wanted:
    """Return the release or adapter that `what` names; None is the newest.

    Raises DataError if there is none, ModelError if its files or its base are not what they were.
    """
    if what is None:
        tuned = [row for row in bundle.list_releases(ctx.store) if row.kind != "base"]
        if tuned:
            return _of_release(ctx, tuned[-1].id)
        return of_adapter(ctx, require_output(ctx, "train"))
    adapter = _adapter(ctx, what)
    if adapter is not None:
        return of_adapter(ctx, adapter)
    try:
        name = bundle.get_release(ctx.store, what).id
    except DataError as error:
        raise DataError(f"{error.what}, nor one adapter of that name", fix=error.fix) from error
    return _of_release(ctx, name)


def _adapter(ctx: Context, prefix: str) -> Artifact | None:
    """Return the one adapter whose hash starts with these hex digits (4 or more), or None."""
    if len(prefix) < 4 or set(prefix) - set("0123456789abcdef"):
        return None
    with ctx.store.session() as session:
        query = session.query(ArtifactRow.hash).filter(ArtifactRow.kind == "adapter")
        found = [row[0] for row in query.filter(ArtifactRow.hash.startswith(prefix)).limit(2)]
    return find_artifact(ctx.store, found[0]) if len(found) == 1 else None


def _of_release(ctx: Context, name: str) -> Wanted:
    row = bundle.get_release(ctx.store, name)
    bundle.verify_release(ctx.workspace, row)
    manifest = bundle.manifest_of(row)
    base = locate_model(manifest.base.spec, ctx.workspace.root)
    if base.digest != manifest.base.digest:
        raise ModelError(
            f"the base model {manifest.base.spec!r} is not the one that was released",
            where=row.name,
            fix=f"Put back the model whose SHA-256 is {manifest.base.digest[:12]}…",
        )
    folder = bundle.adapter_path(ctx.workspace, row)
    artifact = find_artifact(ctx.store, manifest.adapter.hash) if manifest.adapter else None
    facts = _facts(ctx, base, artifact) | {"release": row.id}
    if manifest.dataset:
        facts["dataset"] = manifest.dataset
    return Wanted(
        name=row.name,
        base=base,
        tuned=read_tuned(folder) if folder else None,
        prompt=manifest.prompt,
        golden=manifest.golden,
        test=_test_rows(ctx, manifest.dataset),
        facts=facts,
        max_tokens=min(manifest.decoding.max_tokens, MAX_TOKENS),
        adapter=artifact,
        evaluation=manifest.evaluation,
        release=row.id,
    )


def of_adapter(ctx: Context, adapter: Artifact) -> Wanted:
    """Return an adapter with the project's prompt and, if it was evaluated, its golden rows."""
    base = locate_model(str(adapter.meta.get("model") or ctx.config.model), ctx.workspace.root)
    facts = _facts(ctx, base, adapter)
    test = _test_rows(ctx, facts.get("dataset"))
    evaluation = newest_evaluation(ctx, adapter)
    golden: tuple[bundle.Golden, ...] = ()
    if evaluation is not None:
        golden = golden_prompts(ctx.path_of(evaluation), test)
    return Wanted(
        name=f"{ctx.config.name}-{adapter.short}",
        base=base,
        tuned=read_tuned(ctx.path_of(adapter)),
        prompt=ctx.config.prompt.strip(),
        golden=golden,
        test=test,
        facts=facts,
        max_tokens=min(ctx.config.evaluate.max_new_tokens or Decoding().max_tokens, MAX_TOKENS),
        adapter=adapter,
        evaluation=evaluation.hash if evaluation else None,
    )


def _facts(ctx: Context, base: ModelSource, adapter: Artifact | None) -> dict[str, Any]:
    """Return what is known of where the model comes from, without paths."""
    about = {"name": base.name, "digest": base.digest}
    if base.kind == "hub":
        about["hub"] = base.spec
    facts: dict[str, Any] = {"base": about}
    if adapter is not None:
        facts |= {"adapter": adapter.hash, "recipe": adapter.meta.get("recipe")}
        dataset = made_from(ctx.store, adapter)
        if dataset is not None:
            facts["dataset"] = dataset.hash
    return facts


def _test_rows(ctx: Context, dataset: str | None) -> list[Example]:
    artifact = find_artifact(ctx.store, dataset) if dataset else last_output(ctx, "curate")
    if artifact is None or not ctx.path_of(artifact).exists():
        return []
    return list(load_version(ctx.path_of(artifact)).rows("test"))


def choose(what: Wanted, count: int) -> list[tuple[Message, ...]]:
    """Return the golden prompts, then test rows, then general questions: `count`, or all."""
    specials = special_spellings(what.base)
    rows = [tuple(Message(**turn) for turn in golden.messages) for golden in what.golden]
    rows += [row.context for row in what.test if not row.is_text and row.context]
    if not rows:
        rows = [(Message(role="user", content=text),) for text in _GENERAL]
    chosen: dict[bytes, tuple[Message, ...]] = {}
    for row in rows:
        turns = conversation(row, what.prompt, specials)
        chosen.setdefault(canonical([turn.model_dump() for turn in turns]), turns)
    return list(chosen.values())[:count]
