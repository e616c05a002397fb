"""`tutelage release import`: take in a model that was tuned elsewhere, as an adapter artifact.

A PEFT adapter, a merged model folder or a GGUF file is checked against the project's base model
(import_checks.py), copied under its hash and marked as imported. From then on it is
evaluated on the same rows and released by the same gate as what is trained here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tutelage.core.artifact import MANIFEST, Artifact, describe, hash_files
from tutelage.core.errors import DataError, ModelError
from tutelage.core.events import Event
from tutelage.core.workspace import atomic_write, named_dir
from tutelage.inference.gguf_header import read_header
from tutelage.inference.models import ModelSource, locate_model, weight_files
from tutelage.inference.tuned import ADAPTER, INFO, tuned_files
from tutelage.workflows.context import Context, StageOutcome, find_artifact, register
from tutelage.workflows.release.import_checks import Findings, check_adapter, check_model

STAGE, IMPORTED = "import", "imported"
_LONGEST_NAME = 80
_OF_MODEL = ("config.json", "generation_config.json", "model.safetensors.index.json", INFO)


def import_model(ctx: Context, path: Path, name: str | None = None) -> Artifact:
    """Return the artifact of a model tuned elsewhere; the same files twice are one artifact.

    `path` is a folder with a PEFT adapter or a whole model in safetensors, or a .gguf file.
    Raises ModelError, with what to do, if it is not safe to read or does not fit the base model.
    """
    name = _name(name or path.stem)
    base = locate_model(ctx.config.model, ctx.workspace.root)
    ctx.emit(Event(STAGE, "start", f"{path.name} against {base.name}"))
    folder, form = _folder(path)
    base_folder = _prepared(base)
    if form == "adapter":
        found, files = check_adapter(folder, base_folder, base.digest), _adapter_files(folder)
    else:
        found, files = check_model(folder, base_folder), _model_files(folder)
    for note in found.notes:
        ctx.emit(Event(STAGE, "note", note))
    artifact = _keep(ctx, folder, files, _meta(ctx, name, form, found))
    ctx.emit(Event(STAGE, "done", f"{name} is the {form} {artifact.short}"))
    return artifact


def evaluate_imported(ctx: Context, artifact: Artifact) -> StageOutcome:
    """Evaluate what was imported on the newest dataset version, beside the baselines."""
    from tutelage.workflows.evaluation.evaluate import evaluate
    from tutelage.workflows.outputs import require_output

    return evaluate(ctx, require_output(ctx, "curate"), artifact)


def _folder(path: Path) -> tuple[Path, str]:
    """Return the folder that holds what `path` names in safetensors: (folder, adapter or model)."""
    path = path.expanduser()
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(
                "the file is no .gguf model", where=str(path),
                fix="Name a folder with safetensors, or a .gguf file",
            )  # fmt: skip
        source = locate_model(str(path.resolve()))
        if read_header(path).metadata.get("general.type") == "adapter":
            raise ModelError(
                "the file is a GGUF LoRA, which can't be turned back", where=str(path),
                fix="Import the PEFT folder that it was made from",
            )  # fmt: skip
        return _prepared(source), "model"
    if not path.is_dir():
        raise DataError(
            "there is no such folder or file", where=str(path),
            fix="Name a PEFT adapter's folder, a model folder, or a .gguf file",
        )  # fmt: skip
    if (path / ADAPTER[0]).is_file():
        return path, "adapter"
    return locate_model(str(path.resolve())).path, "model"


def _prepared(source: ModelSource) -> Path:
    """Return the source as a folder of safetensors; a GGUF is converted once."""
    if source.kind != "gguf":
        return source.path
    from tutelage.inference.transformers_prepare import prepare

    return prepare(source)


def _adapter_files(folder: Path) -> list[str]:
    return [name for name in (*ADAPTER, INFO) if (folder / name).is_file()]


def _model_files(folder: Path) -> list[str]:
    plain = [name for name in _OF_MODEL if (folder / name).is_file()]
    return [*plain, *(file.name for file in weight_files(folder))]


def _meta(ctx: Context, name: str, form: str, found: Findings) -> dict[str, Any]:
    return {
        "origin": IMPORTED,
        "name": name,
        "form": form,
        "model": ctx.config.model,
        "method": IMPORTED,
        "summary": f"imported {form} {name}",
        **found.facts,
    }


def _keep(ctx: Context, folder: Path, files: list[str], meta: dict[str, Any]) -> Artifact:
    """Copy the files to a folder named by their hash and register it."""
    digests: list[str] = []

    def fill(target: Path) -> str:
        for name in files:
            shutil.copyfile(folder / name, target / name)
        digests.append(hash_files(target, tuned_files(target)))
        return digests[0][:12]

    target = named_dir(ctx.workspace.artifacts / "adapters", fill)
    digest = digests[0]
    known = find_artifact(ctx.store, digest)
    if known is not None:
        return known
    artifact = describe("adapter", digest, ctx.workspace.relative(target), meta=meta)
    if not (target / MANIFEST).exists():
        atomic_write(target / MANIFEST, artifact.model_dump_json(indent=2).encode())
    return register(ctx.store, artifact)


def _name(name: str) -> str:
    plain = " ".join(name.split())
    if not plain or len(plain) > _LONGEST_NAME or not plain.isprintable():
        raise DataError(
            f"{name[:40]!r} is no name for a model",
            fix=f"Name it with --name, in at most {_LONGEST_NAME} characters",
        )
    return plain
