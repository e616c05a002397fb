"""Find the source files, pick a reader for each, and tell text from binary and its encoding."""

from __future__ import annotations

import functools
import glob
import json
from pathlib import Path

from tutelage.core import plugins
from tutelage.core.config import Task
from tutelage.core.errors import DataError
from tutelage.data.readers.base import Reader

_HEAD_BYTES = 65536
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1b"))
_BINARY_SHARE = 0.02  # of control characters among the first bytes
_BINARY_LEAST = 8  # such characters
_BRING = "Bring .jsonl, .json, .csv, .tsv, .parquet or .arrow files"
_TEXT_ONLY = "documents are read as raw text, and only where the task is text"


def find_files(
    root: Path, patterns: list[str], notes: list[str], task: Task = "generation"
) -> list[Path]:
    """Return the files to read, in name order; what a wildcard matched in vain is noted.

    A folder that is named is read with all that is in it, and a data set of the `datasets`
    library by its own list of files. Raises DataError if a file that is named is not there, or
    if nothing is: what a wildcard stands for, such as what experts will answer, may come later.
    """
    found = find_by_pattern(root, patterns, notes, task)
    return [file for files in found.values() for file in files]


def find_by_pattern(
    root: Path, patterns: list[str], notes: list[str], task: Task = "generation"
) -> dict[str, list[Path]]:
    """Return what `find_files` does, by the first pattern that matched each file."""
    chosen: dict[str, list[Path]] = {}
    seen: set[Path] = set()
    for pattern in patterns:
        wild = glob.has_magic(pattern)
        names = sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
        if not names and wild and len(patterns) > 1:
            notes.append(f"no file matches {pattern!r} yet")
            continue
        if not names:
            raise _nothing(root, pattern)
        mine = chosen.setdefault(pattern, [])
        for name in names:
            path = root / name
            inside = _inside(path, wild) if path.is_dir() else [path]
            several = wild or path.is_dir()
            mine += [
                file
                for file in inside
                if file not in seen and _takes(file, root, several, task, notes)
            ]
            seen.update(mine)
        if not mine and not any((root / name) in seen for name in names):
            why = f"; {notes[-1]}" if notes else ""
            raise DataError(
                f"no file that matches {pattern!r} can be read{why}",
                where=", ".join(names[:3]),
                fix=_BRING,
            )
    if patterns and not chosen:
        raise _nothing(root, patterns[0])
    return chosen


def files_of(path: Path, task: Task, notes: list[str]) -> list[Path]:
    """Return the files that one path names: itself, or what is in a folder.

    Raises DataError if there is nothing, or no reader takes it.
    """
    if not path.exists():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    if not path.is_dir():
        _takes(path, Path(), False, task, notes)
        return [path]
    found = [file for file in _inside(path, False) if _takes(file, Path(), True, task, notes)]
    if not found:
        raise DataError("no file in the folder can be read", where=str(path), fix=_BRING)
    return found


def _nothing(root: Path, pattern: str) -> DataError:
    if pattern.startswith("hf:"):
        return DataError(
            "a data set of the hub is imported first, so that its rows stay the same",
            where=pattern,
            fix=f"Run `tutelage data import {pattern}`",
        )
    return DataError(
        f"no file matches {pattern!r}",
        where=str(root),
        fix="Put your rows there, or correct data.sources in tutelage.yaml",
    )


def _inside(folder: Path, wild: bool) -> list[Path]:
    """Return the files of a folder: a saved data set's own, or all that are not hidden."""
    if (folder / "dataset_dict.json").is_file():
        try:
            splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _broken_dataset(folder, "dataset_dict.json") from error
        return [file for split in splits for file in _inside(folder / str(split), wild)]
    if (folder / "state.json").is_file():
        try:
            state = json.loads((folder / "state.json").read_text("utf-8"))
            return [folder / str(entry["filename"]) for entry in state["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _broken_dataset(folder, "state.json") from error
    if wild:
        return []
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]


def _broken_dataset(folder: Path, name: str) -> DataError:
    return DataError(
        f"{name} of the saved data set can't be read",
        where=str(folder),
        fix="Save the data set again with save_to_disk",
    )


def _takes(path: Path, root: Path, several: bool, task: Task, notes: list[str]) -> bool:
    name = shown(path, root)
    if not path.exists():
        raise DataError("the file or link points to nothing", where=name, fix="Correct the link")
    reader = reader_for(path)
    if reader is None:
        why = f"no reader for {path.suffix or 'files without an ending'}"
    elif is_documents(reader) and task != "text":
        why = _TEXT_ONLY
    else:
        return True
    if several:
        notes.append(f"{name}: skipped, {why}")
        return False
    raise DataError(
        f"there is {why}" if reader is None else why,
        where=name,
        fix=_BRING if reader is None else "Set task: text in tutelage.yaml, or bring rows",
    )


def shown(path: Path, root: Path) -> str:
    """Return a path as people write it: relative to the project where it lies in it."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file; raise DataError if it can't be opened."""
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(
            f"the file can't be opened ({error.strerror})",
            where=str(path),
            fix="Check its permissions",
        ) from error


@functools.cache
def _readers() -> tuple[type[Reader], ...]:
    return tuple(plugins.load("readers", name) for name in sorted(plugins.available("readers")))


def reader_for(path: Path) -> Reader | None:
    """Return the first reader, by name, that takes the file, or None."""
    head = head_of(path)
    return next((one for kind in _readers() if (one := kind()).accepts(path, head)), None)


def is_documents(reader: Reader) -> bool:
    """Return whether a reader gives raw text (`raw_text = True`), not rows."""
    return bool(getattr(reader, "raw_text", False))


def encoding_of(head: bytes) -> str | None:
    """Return the encoding of a text by its byte-order mark or zero bytes; None if it is binary."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    if b"\0" not in head:
        return "utf-8"
    sample = head[: len(head) // 2 * 2]
    for half, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = sample[half::2].count(0), sample[1 - half :: 2].count(0)
        if zeros > 0.4 * len(sample) / 2 and others == 0:
            return encoding
    odd = len(head) - len(head.translate(None, _CONTROL))
    return None if odd > max(_BINARY_LEAST, _BINARY_SHARE * len(head)) else "utf-8"
