"""Export a release or an adapter as files for other programs; a broken export is never left behind.

The reference is transformers with base and adapter. What is exported must answer the golden
prompts as it does (inference/parity.py); else the files are removed and ReleaseRefused says where
they differ.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import (
    DataError,
    EnvironmentProblem,
    ModelError,
    ReleaseRefused,
    did_you_mean,
)
from tutelage.core.events import Event
from tutelage.core.example import Message
from tutelage.core.workspace import atomic_dir
from tutelage.inference.gguf_header import read_header
from tutelage.inference.gguf_model import check_writable
from tutelage.inference.gguf_vocab import PROBES
from tutelage.inference.lora_gguf import check_convertible
from tutelage.inference.models import ModelSource
from tutelage.inference.parity import LIMITS, Parity, Reference, compare
from tutelage.inference.tuned import tuned_files
from tutelage.workflows.context import Context
from tutelage.workflows.release.export_source import Wanted, choose, find

if TYPE_CHECKING:
    from tutelage.training.export import Export

STAGE = "export"
PROMPTS = 16  # compared unless told otherwise
SHOWN = 3  # prompts that a refusal shows side by side
FORMATS = ("adapter", "merged", "gguf", "gguf-adapter")
DTYPES = ("auto", "f32", "f16", "bf16", "q8_0")
_MERGED = ("f32", "f16", "bf16")
_FILE_TYPES = {0: "f32", 1: "f16", 7: "q8_0", 32: "bf16"}  # general.file_type


class ExportRefused(ReleaseRefused):
    """The files do not answer as what was trained. `parity` is the whole comparison."""

    def __init__(self, parity: Parity) -> None:
        lines = [line for broken in parity.broken[:SHOWN] for line in broken.lines()]
        super().__init__(
            "\n".join([f"{parity.form} is not what was trained: {parity.problem}", *lines]),
            fix="Nothing was written; export in another format or with more bits (--dtype f32), "
            "and report it if that fails too",
        )
        self.parity = parity

    def as_dict(self) -> dict[str, Any]:
        """Return the error for `--json`, with the comparison."""
        return {**super().as_dict(), "parity": self.parity.as_dict()}


@dataclass(frozen=True)
class Exported:
    """What lies in `folder`. `parity` is None where files were copied byte for byte."""

    folder: Path
    format: str
    dtype: str | None
    files: dict[str, str]  # SHA-256 by name
    size_bytes: int
    parity: Parity | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        values = dict(vars(self)) | {"folder": str(self.folder), "parity": _said(self.parity)}
        return values | {"seconds": round(self.seconds, 1)}


def export(
    ctx: Context,
    what: str | None = None,
    format: str = "adapter",
    out: Path | None = None,
    *,
    dtype: str = "auto",
    prompts: int = PROMPTS,
) -> Exported:
    """Write a release or an adapter into the new folder `out` and return what lies there.

    `format` is one of FORMATS, `dtype` one of DTYPES. Without `out` it is NAME-FORMAT in the
    current folder.
    `what` is a release's name or id, or the start of an adapter's hash; None takes the newest
    release, or else the newest adapter. `dtype` is that of the weights, `auto` the base's own.
    Raises ExportRefused (exit 1) if the files answer the golden prompts otherwise, ModelError if
    the format can't hold this model, DataError if `out` is taken or `what` is unknown.
    """
    started = time.monotonic()
    _check(format, dtype, prompts)
    found = find(ctx, what)
    out = (out or Path(f"{found.name}-{format}")).expanduser().absolute()
    _check_free(out)
    _check_format(found, format)
    ctx.emit(Event(STAGE, "start", f"{found.name} as {format}"))
    done: list[tuple[Parity | None, dict[str, str], str | None]] = []

    def fill(folder: Path) -> None:
        job = _Job(ctx, found, folder, prompts)
        parity, stored = job.write(format, dtype)
        from tutelage.workflows.release.export_card import write_card

        facts = found.facts | {"name": found.name, "format": format, "dtype": stored}
        facts |= {"prompt": found.prompt, "parity": _said(parity)}
        done.append((parity, write_card(ctx, found, folder, facts), stored))

    if out.is_dir():
        out.rmdir()
    atomic_dir(out, fill)
    parity, files, stored = done[0]
    size = sum((out / name).stat().st_size for name in files)
    ctx.emit(Event(STAGE, "done", f"{out.name}: {size / 2**20:.1f} MB"))
    return Exported(out, format, stored, files, size, parity, time.monotonic() - started)


@dataclass(frozen=True)
class _Job:
    """One export into the folder being made."""

    ctx: Context
    what: Wanted
    folder: Path
    prompts: int

    def write(self, format: str, dtype: str) -> tuple[Parity | None, str | None]:
        """Write the files, compare, and return the comparison and the type of the weights."""
        if format == "adapter":
            self._adapter()
            return None, None
        from tutelage.training.export import Export, Subject, base_dtype

        subject = Subject(self.what.base, self.what.tuned)
        stored = base_dtype(subject.source) if dtype == "auto" else dtype
        self._tell(f"loading {self.what.base.name}")
        loaded = Export(subject)
        self._require_room(loaded, format, stored)
        references, skipped = self._reference(loaded)
        if format == "gguf-adapter" and subject.adapter:
            loaded.close()
            stored = "f16"
            parity = self._gguf_adapter(subject.base, subject.adapter, references)
        elif format == "merged":
            parity = self._merged(loaded, stored, references)
        else:
            parity = self._gguf(loaded, stored, references)
        return self._require(replace(parity, skipped=skipped)), stored

    def _reference(self, loaded: Export) -> tuple[list[Reference], int]:
        """Return the greedy answers of base and adapter to the golden prompts that the model has
        room for, and how many it has none for."""
        chosen = choose(self.what, self.prompts)
        self._tell(f"{len(chosen)} reference answers")
        found = loaded.reference(chosen, max_tokens=self.what.max_tokens)
        return found, len(chosen) - len(found)

    def _run(self, model: Path, lora: Path | None, kind: str, along: Sequence[Reference]) -> Parity:
        """Return how llama.cpp answers with these files."""
        from tutelage.inference.gguf_runner import run_gguf

        name = f"{(lora or model).name} in llama.cpp"
        self._tell(f"comparing {name}")
        room = max((len(r.prompt_ids) + len(r.tokens) for r in along), default=0)
        with run_gguf(model, lora, context=-(-(room + 16) // 256) * 256) as runner:
            return compare(name, along, runner.follow(along), LIMITS[kind])

    def _adapter(self) -> None:
        if self.what.tuned is not None:
            source = self.what.tuned.folder
            for name in tuned_files(source):
                shutil.copyfile(source / name, self.folder / name)

    def _merged(self, loaded: Export, dtype: str, along: Sequence[Reference]) -> Parity:
        from tutelage.training.export import follow_folder

        self._tell("merging")
        loaded.save_merged(self.folder, dtype)
        self._tell("comparing the merged model")
        chosen = [_turns(r) for r in along]
        followed = follow_folder(self.folder, chosen, along)
        return compare("the merged model", along, followed, LIMITS[dtype])

    def _gguf(self, loaded: Export, dtype: str, along: Sequence[Reference]) -> Parity:
        from tutelage.inference.gguf_model import write_from_folder, write_from_template

        self._tell("merging")
        merged = self.folder / "merged"
        loaded.save_merged(merged, _between(dtype))
        target = self.folder / f"{self.what.name}-{dtype}.gguf"
        self._tell(f"writing {target.name}")
        base = self.what.base
        if base.kind == "gguf":
            write_from_template(merged, base.path, target, dtype=dtype)
        else:
            write_from_folder(merged, target, dtype=dtype, name=self.what.name)
            along = [*along, *loaded.cuts(PROBES)]  # the tokenizer was written here, too
        shutil.rmtree(merged)
        return self._run(target, None, dtype, along)

    def _gguf_adapter(
        self, source: ModelSource, adapter: Path, along: Sequence[Reference]
    ) -> Parity:
        from tutelage.inference.gguf_model import write_from_folder
        from tutelage.inference.lora_gguf import convert
        from tutelage.training.export import Export, Subject

        target = self.folder / f"{self.what.name}-lora.gguf"
        base, kind = source.path, "f16"
        scratch = self.folder / "base"
        if source.kind == "gguf":
            kind = _stored(base)
        else:  # served on a GGUF of the base, which is made here to check with
            Export(Subject(source)).save_merged(scratch, "f32")
            base = scratch / "base.gguf"
            write_from_folder(scratch, base, dtype="f32", name=source.name)
        convert(adapter, read_header(base), target)
        parity = self._run(base, target, kind, along)
        shutil.rmtree(scratch, ignore_errors=True)
        return parity

    def _require_room(self, loaded: Export, format: str, dtype: str) -> None:
        """Raise EnvironmentProblem if the disk can't hold what will be written."""
        needed = loaded.size_bytes(dtype if format == "merged" else "f32")
        if format == "gguf":  # the merged folder and the file lie there together for a while
            needed = loaded.size_bytes(dtype) + loaded.size_bytes(_between(dtype))
        if format == "gguf-adapter" and self.what.base.kind == "gguf":
            needed = 0
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise EnvironmentProblem(
                f"the export needs {needed / 2**30:.1f} GiB of disk, {free / 2**30:.1f} are free",
                where=str(self.folder.parent),
                fix="Free some space, or name a folder on another disk with --out",
            )

    def _require(self, parity: Parity) -> Parity:
        self._tell(parity.sentence())
        if parity.problem:
            raise ExportRefused(parity)
        return parity

    def _tell(self, text: str) -> None:
        self.ctx.emit(Event(STAGE, "note", text))


def _check(format: str, dtype: str, prompts: int) -> None:
    """Raise DataError for an option that is wrong by itself or beside another."""
    for kind, word, known in (("format", format, FORMATS), ("dtype", dtype, DTYPES)):
        if word not in known:
            hint = did_you_mean(word, known)
            raise DataError(f"there is no {kind} {word!r}", fix=f"{hint}Known: {', '.join(known)}")
    if format in ("adapter", "gguf-adapter") and dtype != "auto":
        raise DataError(f"an export as {format} takes no dtype", fix="Leave --dtype out")
    if format == "merged" and dtype == "q8_0":
        raise DataError("safetensors hold no q8_0", fix="Use --dtype f16, or --format gguf")
    if prompts < 1:
        raise DataError("at least one prompt must be compared", fix="Raise --prompts")


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError("the folder is not empty", where=str(out), fix="Name a new one with --out")


def _check_format(what: Wanted, format: str) -> None:
    """Raise ModelError if `format` can't hold this model, before anything is loaded."""
    tuned = what.tuned
    if tuned is not None and tuned.answerer and format != "adapter":
        raise ModelError(
            f"it answers by {tuned.answerer}, not by writing text, so it has no {format} form",
            where=what.name,
            fix="Use --format adapter",
        )
    if format in ("adapter", "gguf-adapter") and (tuned is None or tuned.kind == "model"):
        have = "is the base model alone" if tuned is None else "is a whole model, no adapter"
        raise ModelError(f"{what.name} {have}", fix="Use --format merged or --format gguf")
    if format == "gguf-adapter" and tuned is not None:
        check_convertible(tuned.folder)
    if format.startswith("gguf"):
        check_writable(what.base)


def _between(dtype: str) -> str:
    """Return how weights are kept on their way into a GGUF of `dtype`."""
    return dtype if dtype in _MERGED else "f32"


def _turns(reference: Reference) -> tuple[Message, ...]:
    return tuple(Message(**turn) for turn in reference.messages)


def _stored(model: Path) -> str:
    """Return how the weights of a GGUF file are kept, as a key of LIMITS."""
    return _FILE_TYPES.get(
        int(read_header(model).metadata.get("general.file_type", -1)), "quantised"
    )


def _said(parity: Parity | None) -> dict[str, Any] | None:
    return {**parity.as_dict(), "sentence": parity.sentence()} if parity else None
