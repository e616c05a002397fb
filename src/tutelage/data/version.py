"""Immutable dataset versions on disk: writing one, loading one, reading its rows.

A version is a folder named by its content. It does not decide what goes in: curation does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tutelage.core.artifact import MANIFEST, content_hash, hash_file, library_versions, utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.core.workspace import atomic_write, named_dir

CLUSTERS = "clusters.json"
DROPPED = "dropped.jsonl"
QUARANTINE = "quarantine.jsonl"
ERASED = "erased"  # in the manifest of a version whose rows are gone: when, and what replaced it
ERASED_NOTE = "erased.json"  # in another folder that lost rows of a forgotten user
FINDINGS = "findings.jsonl"  # every finding with its file, line and example id; not in the hash


@dataclass(frozen=True)
class DatasetVersion:
    """One frozen data set. `hash` is 64 hex digits; `manifest` is manifest.json as read.

    `splits` are those it may show; the files of the others are not opened.
    """

    hash: str
    directory: Path
    manifest: dict[str, Any]
    splits: tuple[SplitName, ...] = SPLITS

    def rows(self, split: SplitName) -> list[Example]:
        """Return the examples of one split, in the order they were imported."""
        self._allow(split)
        return list(self._rows[split])

    def stream(self, split: SplitName) -> Iterator[Example]:
        """Yield the examples of one split without holding them all."""
        self._allow(split)
        with (self.directory / f"{split}.jsonl").open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield Example.model_validate_json(line)

    def besides(self, known: Container[str]) -> list[Example]:
        """Return the rows whose ids are not `known`, without reading the others whole."""
        found = []
        for split in self.splits:
            with (self.directory / f"{split}.jsonl").open(encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    if line[:8] != '{"id": "' or line[8:32] not in known:
                        row = Example.model_validate_json(line)
                        if row.id not in known:
                            found.append(row)
        return found

    def all_rows(self) -> list[Example]:
        """Return the examples of all splits: train, then validation, then test."""
        return [example for split in self.splits for example in self._rows[split]]

    def cluster_of(self, example_id: str) -> str:
        """Return the near-duplicate or group cluster of an example; its own id if it has none."""
        return self.clusters.get(example_id, example_id)

    @cached_property
    def clusters(self) -> dict[str, str]:
        """Cluster name by example id, for every row of the version."""
        loaded: dict[str, str] = json.loads((self.directory / CLUSTERS).read_text("utf-8"))
        return loaded

    @cached_property
    def _rows(self) -> dict[SplitName, list[Example]]:
        return {split: _read_rows(self.directory / f"{split}.jsonl") for split in self.splits}

    def _allow(self, split: SplitName) -> None:
        """Raise DataError unless this view shows `split`."""
        if split not in self.splits:
            raise DataError(
                f"the {split} split is closed to what chooses settings",
                where=str(self.directory),
                fix="Report this: a setting must never be chosen by the rows that judge it",
            )


@dataclass(frozen=True)
class VersionDraft:
    """What a version will hold. `dropped` and `quarantine` are JSON rows, each with a reason."""

    splits: Mapping[SplitName, list[Example]]
    clusters: Mapping[str, str]
    dropped: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


Render = Callable[[dict[str, Any]], Mapping[str, str]]


def write_version(
    folder: Path, draft: VersionDraft, render: Render | None = None
) -> DatasetVersion:
    """Write `draft` under `folder`, named by the first 12 digits of its hash, and load it.

    `render(manifest)` returns more files by name (reports); they do not count in the hash. Rows
    are written one by one, so that no more than one line of text is held at once.
    """

    def fill(target: Path) -> str:
        files = {name: _write(target / name, lines) for name, lines in _files(draft).items()}
        manifest: dict[str, Any] = {
            "kind": "dataset",
            "hash": content_hash(files),
            "rows_hash": content_hash([files[f"{split}.jsonl"] for split in SPLITS]),
            "counts": {split: len(draft.splits[split]) for split in SPLITS},
            "versions": library_versions(),
            "created_at": utc_now().isoformat(),
            **draft.meta,
        }
        for name, text in (render(manifest) if render else {}).items():
            files[name] = _write(target / name, [text])
        manifest["files"] = dict(sorted(files.items()))
        _write(target / MANIFEST, [json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"])
        return str(manifest["hash"][:12])

    return load_version(named_dir(folder, fill))


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a version; raise DataError if there is none that can be read."""
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if not (isinstance(manifest["files"], dict) and isinstance(manifest["hash"], str)):
            raise TypeError("files or hash of another type")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "this is not a dataset version (no readable manifest.json)",
            where=str(directory),
            fix="Run `tutelage run` to make it again",
        ) from error
    return manifest


def load_version(directory: Path, splits: tuple[SplitName, ...] = SPLITS) -> DatasetVersion:
    """Return the version in `directory`; raise DataError if a file is missing or was changed.

    With `splits`, the rows of the others can't be read from it and their files are not opened.
    """
    manifest = read_manifest(directory)
    if ERASED in manifest:
        raise DataError(
            f"rows of this version were erased on {str(manifest[ERASED]['at'])[:10]}, and it was "
            "replaced",
            where=str(directory),
            fix=f"Use the version {str(manifest[ERASED]['replaced_by'])[:12]}",
        )
    files, digest = manifest["files"], manifest["hash"]
    for name in [*(f"{split}.jsonl" for split in splits), CLUSTERS]:
        path = directory / name
        if not path.is_file() or hash_file(path) != files.get(name):
            raise DataError(
                f"{name} is missing or was changed after the version was frozen",
                where=str(directory),
                fix="Delete the folder and run `tutelage run` to make it again",
            )
    return DatasetVersion(digest, directory, manifest, splits)


def bury_version(directory: Path, replaced_by: str, rows: int) -> None:
    """Delete a version's files; its manifest stays as a tombstone that names the one after it.

    `rows` is how many rows had to go. Interrupted, it can be called again.
    """
    manifest = read_manifest(directory)
    kept = ("kind", "hash", "rows_hash", "counts", "created_at", "parents", "project")
    stone = {name: manifest[name] for name in kept if name in manifest}
    told = {"at": utc_now().isoformat(), "replaced_by": replaced_by, "rows": rows}
    stone |= {"files": {}, ERASED: manifest.get(ERASED, told)}
    atomic_write(directory / MANIFEST, (json.dumps(stone, indent=2) + "\n").encode())
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        elif path.name != MANIFEST:
            path.unlink()


def is_buried(directory: Path) -> bool:
    """Return whether a folder is the tombstone of a version whose rows were erased."""
    try:
        return ERASED in json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def row_text(example: Example) -> str:
    """Return one line of JSON for an example: its fields and its id."""
    data = example.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({"id": example.id, **data}, ensure_ascii=False)


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the rows as JSON lines."""
    return "".join(_lines(rows))


def _files(draft: VersionDraft) -> dict[str, Iterable[str]]:
    """Return the lines of every file that counts in the hash, by name."""

    def rows(split: SplitName) -> Iterator[str]:
        return (row_text(example) + "\n" for example in draft.splits[split])

    return {
        **{f"{split}.jsonl": rows(split) for split in SPLITS},
        CLUSTERS: [json.dumps(dict(sorted(draft.clusters.items())), indent=0) + "\n"],
        DROPPED: _lines(draft.dropped),
        QUARANTINE: _lines(draft.quarantine),
    }


def _lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def _write(path: Path, lines: Iterable[str]) -> str:
    """Write the lines and return the SHA-256 of the file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for line in lines:
            data = line.encode()
            digest.update(data)
            stream.write(data)
    return digest.hexdigest()


def _read_rows(path: Path) -> list[Example]:
    with path.open(encoding="utf-8", newline="\n") as stream:
        return [Example.model_validate_json(line) for line in stream]
