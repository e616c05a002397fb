"""Make releases: the evaluated adapter's, if the evidence carries it, and the bare base model's.

No torch: what a release needs of the model is read from its files.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError, ReleaseRefused
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.data.version import load_version
from tutelage.inference.base import Decoding
from tutelage.inference.models import locate_model
from tutelage.inference.specials import special_spellings
from tutelage.release import bundle, card, prompts
from tutelage.release.deployments import deployments, route
from tutelage.release.lineage import Node, lineage, render
from tutelage.release.prompt_moves import record_published
from tutelage.store.base import Store
from tutelage.workflows.context import Context, StageOutcome, find_artifact, last_output, run_stage
from tutelage.workflows.evaluation.evaluate_candidates import named_artifact, of_artifact
from tutelage.workflows.release.prompt import whoami
from tutelage.workflows.release.registry import catch_up
from tutelage.workflows.release.release_card import about_base, gather, kind_of, newest_evaluation

GOLDEN_COUNT = 5
KINDS: dict[str, bundle.Kind] = {"base": "base", "tuned": "tuned", "imported": "imported"}
_GOLDEN = "golden.json"  # in an evaluation's folder
_BYTES_PER_TOKEN = 2  # fewer than any tokenizer needs for prose or JSON: errs to the long side


def release(
    ctx: Context,
    dataset: Artifact,
    adapter: Artifact | None,
    evaluation: Artifact | None,
    *,
    force: bool = False,
) -> StageOutcome:
    """Return the release of an evaluated adapter, made once for the same inputs.

    Raises ReleaseRefused unless the evaluation is of this adapter with the prompt and base model
    in force and its verdict is pass; `force` releases all the same, and the verdict is kept.
    """
    if adapter is None:
        return base_release(ctx)
    ctx.tell_prompt("release")
    if evaluation is not None and adapter.hash not in evaluation.parents:
        evaluation = None  # of another adapter: it says nothing about this one
    evaluation = evaluation or newest_evaluation(ctx, adapter)
    if not force:
        _require_evidence(ctx, adapter, evaluation)
    inputs = {
        "adapter": adapter.hash,
        "dataset": dataset.hash,
        "evaluation": evaluation.hash if evaluation else None,
        "settings": _settings(ctx),
    }

    def work() -> Artifact:
        return _make(ctx, _manifest(ctx, dataset, adapter, evaluation))

    outcome = run_stage(ctx, "release", inputs, work)
    if not outcome.skipped:
        ctx.emit(Event("release", "done", f"release {outcome.artifact.meta['name']}"))
    return outcome


def create(ctx: Context, adapter: str | None = None, *, force: bool = False) -> StageOutcome:
    """Release what was trained last, or the adapter whose id starts so, imported ones too.

    Raises as `release` does, and DataError if there is no such adapter.
    """
    from tutelage.workflows.outputs import require_output

    dataset = require_output(ctx, "curate")
    if adapter is None:
        return release(ctx, dataset, require_output(ctx, "train"), None, force=force)
    found = named_artifact(ctx, adapter)
    if found is None:
        raise DataError(
            f"there is no adapter {adapter!r}",
            fix="Type the digits that `tutelage train` or `tutelage release import` printed",
        )
    return release(ctx, dataset, found, None, force=force)


def base_release(ctx: Context) -> StageOutcome:
    """Return the release of the base model with the project's prompt and no adapter."""
    dataset = last_output(ctx, "curate")
    inputs = {"settings": _settings(ctx), "dataset": dataset.hash if dataset else None}
    return run_stage(
        ctx, "base_release", inputs, lambda: _make(ctx, _manifest(ctx, dataset, None, None))
    )


def releases(ctx: Context) -> list[dict[str, Any]]:
    """Return every release as plain data, newest first; `serves` says what it answers now."""
    serves = _serving(ctx.store)
    return [
        {
            "name": row.name,
            "id": row.id,
            "kind": row.kind,
            "serves": serves.get(row.id, ""),
            "registry_version": row.registry_version,
            "created_at": row.created_at.isoformat(timespec="seconds"),
        }
        for row in reversed(bundle.list_releases(ctx.store))
    ]


def describe(ctx: Context, name: str) -> dict[str, Any]:
    """Return what a release is made of and where it comes from; `text` is for people."""
    row = bundle.get_release(ctx.store, name)
    manifest = bundle.manifest_of(row)
    known = find_artifact(ctx.store, row.id) is not None
    tree = lineage(ctx.store, row.id) if known else Node(row.id, "release", row.path)
    text_of = ctx.workspace.home / row.path / card.CARD
    adapter = manifest.adapter
    facts = {
        "release": row.name,
        "id": row.id,
        "kind": row.kind,
        "serves": _serving(ctx.store).get(row.id, "nothing"),
        "base": f"{manifest.base.name} ({manifest.base.digest[:12]})",
        "adapter": f"{adapter.hash[:12]} in {adapter.path}" if adapter else "none",
        "prompt": f"{manifest.prompt_hash[:12]}" if manifest.prompt else "none",
        "decoding": f"temperature {manifest.decoding.temperature:g}, "
        f"at most {manifest.decoding.max_tokens} tokens",
        "golden": "1 prompt" if len(manifest.golden) == 1 else f"{len(manifest.golden)} prompts",
        "registry": f"version {row.registry_version}" if row.registry_version else "none",
    }
    lines = [f"{key:<10}{value}" for key, value in facts.items()]
    text = "\n".join([*lines, "", "made from", render(tree)])
    written = text_of.read_text(encoding="utf-8") if text_of.is_file() else None
    return {
        **facts, "manifest": row.manifest, "lineage": tree.as_dict(), "text": text, "card": written,
    }  # fmt: skip


def answer_tokens(answers: list[str]) -> int | None:
    """Return the most tokens an answer may take: half again the longest one, and a margin.

    Tokens are estimated from UTF-8 bytes, two a token, which errs to the long side.
    """
    if not answers:
        return None
    longest = max(len(text.encode()) for text in answers) / _BYTES_PER_TOKEN
    return math.ceil((longest * 1.5 + 16) / 16) * 16


def _settings(ctx: Context) -> dict[str, Any]:
    config = ctx.config
    return {
        "model": locate_model(config.model, ctx.workspace.root).digest,
        "prompt": config.prompt,
        "output": config.output.model_dump(mode="json"),
        "max_tokens": [config.evaluate.max_new_tokens, config.deploy.max_tokens],
    }


def _require_evidence(ctx: Context, adapter: Artifact, evaluation: Artifact | None) -> None:
    if evaluation is None:
        raise ReleaseRefused(
            "this adapter has not been evaluated",
            enough=False,
            fix=f"Run `tutelage evaluate {adapter.short}` first, or release anyway with --force",
        )
    asked = (evaluation.meta.get("candidate") or {}).get("key")
    source = locate_model(ctx.config.model, ctx.workspace.root)
    if asked is not None and asked != of_artifact(ctx, adapter, source).key:
        raise ReleaseRefused(
            "this adapter was evaluated with another prompt or base model than those in force",
            enough=False,
            fix=f"Run `tutelage evaluate {adapter.short}` again, or release anyway with --force",
        )
    verdict = str(evaluation.meta.get("verdict"))
    if verdict == "pass":
        return
    why = str(evaluation.meta.get("sentence") or "").strip().rstrip(".")
    said = "not enough evidence" if verdict == "not_enough_evidence" else verdict
    raise ReleaseRefused(
        f"the evaluation's verdict is {said}{f': {why}' if why else ''}",
        enough=verdict != "not_enough_evidence",
        fix="Look at the report, improve the data, or release anyway with --force",
    )


def _manifest(
    ctx: Context, dataset: Artifact | None, adapter: Artifact | None, evaluation: Artifact | None
) -> bundle.ReleaseManifest:
    config = ctx.config
    source = locate_model(config.model, ctx.workspace.root)
    version = load_version(ctx.path_of(dataset)) if dataset else None
    train = version.rows("train") if version else []
    limit = config.evaluate.max_new_tokens or answer_tokens([r.answer for r in train if r.answer])
    output = config.output
    prompt = config.prompt.strip()
    reference = None
    if adapter is not None:
        folder = ctx.path_of(adapter)
        reference = bundle.AdapterRef(
            hash=adapter.hash, path=adapter.path, files=bundle.adapter_files(folder)
        )
    golden: tuple[bundle.Golden, ...] = ()
    if evaluation is not None and version is not None:
        golden = golden_prompts(ctx.path_of(evaluation), version.rows("test"))
    tuned = adapter is not None
    return bundle.ReleaseManifest(
        kind=KINDS[kind_of(adapter)],
        base=bundle.BaseRef(spec=source.spec, name=source.name, digest=source.digest),
        adapter=reference,
        prompt=prompt,
        prompt_hash=prompts.prompt_hash(prompt),
        decoding=Decoding(
            max_tokens=min(limit or config.deploy.max_tokens, config.deploy.max_tokens)
        ),
        output=bundle.OutputRef(
            field=output.field,
            labels=tuple(output.labels or ()),
            json_schema=output.json_schema or output.format().schema(),
        ),
        specials=special_spellings(source),
        golden=golden,
        dataset=dataset.hash if dataset and tuned else None,
        evaluation=evaluation.hash if evaluation else None,
    )


def golden_prompts(evaluation: Path, test: list[Example]) -> tuple[bundle.Golden, ...]:
    """Return the prompts that an evaluation kept as a release's self-check, at most five.

    Raises DataError if the evaluation's file can't be read.
    """
    file = evaluation / _GOLDEN
    if not file.is_file():
        return ()
    reference = {row.id: row.answer for row in test}
    try:
        return tuple(
            bundle.Golden(
                id=row["id"],
                messages=tuple(
                    {key: value for key, value in turn.items() if value is not None}
                    for turn in row["messages"]
                ),
                expected=row["expected"],
                reference=reference.get(row["id"]),
            )
            for row in json.loads(file.read_text(encoding="utf-8"))[:GOLDEN_COUNT]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the evaluation's golden prompts can't be read",
            where=str(file),
            fix="Run `tutelage evaluate` again",
        ) from error


def _make(ctx: Context, manifest: bundle.ReleaseManifest) -> Artifact:
    if manifest.prompt:
        record_published(ctx.store, manifest.prompt, author=whoami())
    row = bundle.create_release(
        ctx.store, ctx.workspace, manifest, project=ctx.config.name,
        readme=lambda name: _card(ctx, manifest, name),
    )  # fmt: skip
    bundle.verify_release(ctx.workspace, row)
    if manifest.kind != "base":
        catch_up(ctx)
        row = bundle.get_release(ctx.store, row.id)
    facts = {"verdict": _verdict(ctx, manifest), "registry_version": row.registry_version}
    return bundle.release_artifact(row, facts)


def _card(ctx: Context, manifest: bundle.ReleaseManifest, name: str) -> str:
    """Return the release's model card."""
    adapter = find_artifact(ctx.store, manifest.adapter.hash) if manifest.adapter else None
    base = about_base(locate_model(manifest.base.spec, ctx.workspace.root))
    return card.render(
        gather(
            ctx, name, base, adapter=adapter, prompt=manifest.prompt,
            evaluation=manifest.evaluation, release=manifest.id,
        )
    )  # fmt: skip


def _verdict(ctx: Context, manifest: bundle.ReleaseManifest) -> str:
    found = find_artifact(ctx.store, manifest.evaluation) if manifest.evaluation else None
    return str(found.meta.get("verdict")) if found else "none"


def _serving(store: Store) -> dict[str, str]:
    found: dict[str, str] = {}
    for deployment in deployments(store):
        now = route(store, deployment.name)
        found[now.stable] = f"{deployment.name}: stable"
        if now.canary:
            found[now.canary] = f"{deployment.name}: canary, {now.weight:g} %"
    return found
