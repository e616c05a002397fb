"""Identifiers in a project: curation's step, files redacted and restored, where key and vault lie.

The vault lies in .tutelage/privacy and is useless without the key, which lies outside.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from tutelage.core import plugins
from tutelage.core.errors import ConfigError, DataError, did_you_mean
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_write
from tutelage.data.findings import Finding
from tutelage.data.pipeline import PipelineResult, Step
from tutelage.data.privacy.detect import Detector
from tutelage.data.privacy.files import (
    FileResult,
    read_text,
    redact_file_text,
    restore_file_text,
    to_bytes,
)
from tutelage.data.privacy.keys import key_path, load_key, make_key
from tutelage.data.privacy.kinds import KINDS, chosen
from tutelage.data.privacy.masks import Masks, hidden_findings
from tutelage.data.privacy.pseudonyms import Dates, Pseudonyms
from tutelage.data.privacy.step import PrivacyStep
from tutelage.data.privacy.vault import Vault, VaultFile, locked
from tutelage.data.readers.base import Rejected
from tutelage.data.readers.files import find_files, shown
from tutelage.data.repairs import Repair
from tutelage.workflows.context import Context

_STAGE = "privacy"


@dataclass(frozen=True)
class FileReport:
    """One file that was redacted (or would be): where it went and what was found in it."""

    source: Path
    output: Path | None
    rows: int  # rows with an identifier
    counts: dict[str, int]  # identifiers by kind
    examples: list[tuple[str, str]]  # (kind, surroundings with the pseudonym)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "file": str(self.source),
            "output": str(self.output) if self.output else None,
            "rows": self.rows,
            "found": self.counts,
            "examples": [{"kind": kind, "text": text} for kind, text in self.examples],
        }


def privacy_steps(ctx: Context, *, keep: bool = False) -> list[PrivacyStep]:
    """Return curation's step as the settings ask, none if they say off.

    `keep`: new pseudonyms are written to the vault; otherwise they are only drawn.
    """
    settings = ctx.config.data.privacy
    if settings.mode == "off":
        return []
    return [
        PrivacyStep(
            settings.mode,
            kinds_of(ctx),
            ctx.config.output.format(),
            lambda: opened(ctx, keep=keep),
            detector(ctx),
        )
    ]


def redacted_rows(ctx: Context, rows: Sequence[Example]) -> list[Example]:
    """Return rows as curation keeps them: with pseudonyms if mode is redact, else as they are.

    For rows that are stored without going through curation: experts' items, production's records.
    """
    if ctx.config.data.privacy.mode != "redact" or not rows:
        return list(rows)
    (step,) = privacy_steps(ctx, keep=True)
    return step.run(rows).kept


def kinds_of(ctx: Context) -> frozenset[str]:
    """Return the kinds to look for; raise ConfigError for one that there is not."""
    names = ctx.config.data.privacy.kinds
    unknown = next((name for name in names or () if name not in KINDS), None)
    if unknown is not None:
        hint = did_you_mean(unknown, KINDS)
        raise ConfigError(
            f"data.privacy.kinds: {unknown!r} is no kind of identifier",
            where=str(ctx.workspace.config_path),
            fix=f"{hint}Known: {', '.join(KINDS)}",
        )
    return chosen(names)


def detector(ctx: Context) -> Detector:
    """Return what looks for identifiers: the rules, or a plug-in of tutelage.detectors."""
    return _detector(ctx.config.data.privacy.detector)


@cache
def _detector(name: str) -> Detector:
    found: Detector = plugins.load("detectors", name)()
    return found


def masks(ctx: Context) -> Masks | None:
    """Return what hides identifiers in rows that can't be read; None unless mode is redact."""
    if ctx.config.data.privacy.mode != "redact":
        return None
    data = ctx.config.data
    always = [name for name in (data.columns.group, data.splits.group) if name]
    return Masks(kinds_of(ctx), always, detector(ctx))


def concealer(ctx: Context) -> Callable[[Rejected], Rejected]:
    """Return what hides the identifiers of a row that can't be used, if mode is redact."""
    hide = masks(ctx)
    return hide.reject if hide else _as_it_is


def _as_it_is(item: Rejected) -> Rejected:
    return item


def hidden_lines(ctx: Context, lines: Sequence[str]) -> list[str]:
    """Return lines about the sources without identifiers, if mode is redact.

    A table without a header has identifiers for the names of its columns.
    """
    hide = masks(ctx)
    return [hide.mask(line) for line in lines] if hide else list(lines)


def step_of(chosen: Sequence[Step]) -> PrivacyStep | None:
    """Return the privacy step among curation's steps, if it is there."""
    return next((step for step in chosen if isinstance(step, PrivacyStep)), None)


def tell(ctx: Context, step: PrivacyStep | None, result: PipelineResult) -> None:
    """Add what redaction means for the whole set, and hide what earlier steps said of rows."""
    if step is None or step.mode != "redact":
        return
    result.findings = hidden_findings(result.findings, step.renamed)
    settings = ctx.config.data
    if settings.splits.time and settings.privacy.dates == "year" and "date" in kinds_of(ctx):
        result.findings.append(Finding("D7-X02", "data.splits.time is set"))
    old = older_versions(ctx)
    if old:
        result.findings.append(Finding("D7-X03", f"{len(old)}: {', '.join(old[:5])}"))


def hidden_repairs(ctx: Context, repairs: Sequence[Repair]) -> list[Repair]:
    """Return repairs whose values hold pseudonyms instead of identifiers, if mode is redact."""
    if ctx.config.data.privacy.mode != "redact" or not any(repair.value for repair in repairs):
        return list(repairs)
    group = ctx.config.data.columns.group or ctx.config.data.splits.group
    with opened(ctx, keep=True) as pseudonyms:

        def hidden(repair: Repair) -> Repair:
            suffix = ".jsonl" if repair.action == "line" else ".txt"
            value = redact_file_text(repair.value, suffix, pseudonyms, group).text
            return replace(repair, value=value, reason=pseudonyms.redact(repair.reason).text)

        return [hidden(repair) for repair in repairs]


def vault_path(ctx: Context) -> Path:
    """Return where the encrypted pseudonyms of the project lie."""
    return ctx.workspace.home / "privacy" / "vault.bin"


def key_file(ctx: Context, named: Path | None = None) -> Path:
    """Return where the project's key lies; raise ConfigError if that is inside the project."""
    return key_path(ctx.config.name, ctx.workspace.root, named or ctx.config.data.privacy.key)


def log_redactor(ctx: Context) -> Callable[[str], str]:
    """Return what is done to texts before they are logged. `[NAME]` in a log is not undone."""
    if not ctx.config.deploy.redact:
        return str
    from tutelage.data.privacy.detect import redact_text

    return partial(redact_text, kinds=kinds_of(ctx))


@contextlib.contextmanager
def opened(
    ctx: Context,
    *,
    keep: bool,
    key: Path | None = None,
    dates: Dates | None = None,
    escape: bool = False,
) -> Iterator[Pseudonyms]:
    """Open the project's pseudonyms; with `keep` the vault is locked, and saved at the end.

    The first time a key is drawn and the vault founded. Raises DataError without the right key.
    """
    path, place = vault_path(ctx), key_file(ctx, key)
    settings = ctx.config.data.privacy
    with locked(path) if keep or not path.exists() else contextlib.nullcontext():
        if path.exists():
            file = VaultFile.open(path, load_key(place))
        else:
            fresh = not place.exists()
            file = VaultFile.open(path, make_key(place))
            file.save()
            if fresh:
                told = f"the key of the pseudonyms is {place}; without it nothing is restored"
                ctx.emit(Event(_STAGE, "note", told))
        pseudonyms = Pseudonyms(
            file.vault,
            kinds_of(ctx),
            dates or settings.dates,
            escape=escape,
            find=detector(ctx),
        )
        before = file.vault.size
        yield pseudonyms
        if keep and file.vault.size != before:
            file.save()


def older_versions(ctx: Context) -> list[str]:
    """Return the dataset versions on disk whose rows were not redacted, by their short names."""
    import json

    found = []
    for manifest in sorted((ctx.workspace.artifacts / "datasets").glob("*/manifest.json")):
        try:
            said = json.loads(manifest.read_text(encoding="utf-8")).get("privacy") or {}
        except (OSError, ValueError):
            said = {}
        if said.get("mode") != "redact":
            found.append(manifest.parent.name)
    return found


def redact_file(
    ctx: Context,
    source: Path,
    output: Path | None = None,
    *,
    dates: Dates | None = None,
    key: Path | None = None,
    dry_run: bool = False,
) -> FileReport:
    """Write a copy of `source` with pseudonyms; `dry_run` only says what would be replaced.

    Without `output` a source of the project goes to redacted/, another file to
    `NAME.redacted.ENDING` beside it, and must not be there yet. Raises DataError if the file
    can't be read, or the output is the source.
    """
    text, encoding = read_text(source)
    if dry_run:
        looked = Pseudonyms(Vault.passing(), kinds_of(ctx), dates or "year", find=detector(ctx))
        return _report(source, None, _work(ctx, text, source, looked))
    target = _checked(source, output or _copy_of(ctx, source), output is not None)
    with opened(ctx, keep=True, key=key, dates=dates, escape=True) as pseudonyms:
        result = _work(ctx, text, source, pseudonyms)
    atomic_write(target, to_bytes(result.text, encoding))
    return _report(source, target, result)


def redact_sources(
    ctx: Context,
    folder: Path | None = None,
    *,
    dates: Dates | None = None,
    key: Path | None = None,
    dry_run: bool = False,
) -> list[FileReport]:
    """Redact every source file of the project into `folder` (default: redacted/), same names."""
    root = ctx.workspace.root
    target = folder or root / "redacted"
    reports = []
    for source in find_files(root, ctx.config.data.sources, [], ctx.config.task):
        copy = target / shown(source, root).lstrip("/")
        reports.append(redact_file(ctx, source, copy, dates=dates, key=key, dry_run=dry_run))
    return reports


def restore_file(
    ctx: Context, source: Path, output: Path | None = None, *, key: Path | None = None
) -> dict[str, Any]:
    """Write a copy of `source` with the identifiers back: {file, output, restored, unknown}.

    Raises DataError if the project has no pseudonyms or the key is another one.
    """
    text, encoding = read_text(source)
    target = _restored_place(ctx, source, output)
    if not vault_path(ctx).exists():
        raise DataError(
            "this project has no pseudonyms, so there is nothing to restore with",
            where=str(ctx.workspace.root),
            fix="Name the project whose rows were redacted with --project",
        )
    with opened(ctx, keep=False, key=key) as pseudonyms:
        known, unknown = pseudonyms.count(text)
        done = restore_file_text(text, source.suffix, pseudonyms)
    atomic_write(target, to_bytes(done, encoding))
    target.chmod(0o600)
    return {
        "file": str(source),
        "output": str(target),
        "restored": known,
        "unknown": unknown,
    }


def _work(ctx: Context, text: str, source: Path, pseudonyms: Pseudonyms) -> FileResult:
    data = ctx.config.data

    def tick(done: int, total: int) -> None:
        ctx.emit(Event(_STAGE, "progress", source.name, done=done, total=total))

    group = data.columns.group or data.splits.group
    result = redact_file_text(text, source.suffix, pseudonyms, group, tick)
    ctx.emit(Event(_STAGE, "done", f"{source.name}: {sum(result.counts.values()):,} identifiers"))
    return result


def _report(source: Path, output: Path | None, result: FileResult) -> FileReport:
    counts: Counter[str] = result.counts
    return FileReport(source, output, result.rows, dict(counts.most_common()), result.examples)


def _copy_of(ctx: Context, source: Path) -> Path:
    """Return where a redacted copy goes: redacted/ in the project, else beside the source.

    Beside a source of the project it would be read as one more source.
    """
    root, own = ctx.workspace.root.resolve(), source.resolve()
    if own.is_relative_to(root):
        return root / "redacted" / own.relative_to(root)
    return source.with_name(f"{source.stem}.redacted{source.suffix}")


def _restored_place(ctx: Context, source: Path, output: Path | None) -> Path:
    """Return where a restored copy goes; raise DataError if identifiers would lie in .tutelage."""
    if output is None and source.resolve().is_relative_to(ctx.workspace.root.resolve()):
        raise DataError(
            "a restored copy does not belong in the project unasked",
            where=str(source),
            fix="Say where it shall lie with --output",
        )
    target = output or source.with_name(f"{source.stem}.restored{source.suffix}")
    if target.resolve().is_relative_to(ctx.workspace.home.resolve()):
        raise DataError(
            "identifiers may not lie in .tutelage again",
            where=str(target),
            fix="Name another place with --output",
        )
    return _checked(source, target, output is not None)


def _checked(source: Path, target: Path, named: bool) -> Path:
    """Return the target; an existing file is only replaced where it was named."""
    if target.resolve() == source.resolve():
        raise DataError(
            "the copy would replace the file itself",
            where=str(source),
            fix="Name another file with --output",
        )
    if target.is_dir():
        raise DataError("this is a folder", where=str(target), fix="Name a file with --output")
    if target.exists() and not named:
        raise DataError(
            "the copy is there already",
            where=str(target),
            fix="Name it with --output to replace it, or delete it",
        )
    return target
