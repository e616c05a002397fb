"""Rows out: a dataset version, or any file that can be read, as OpenAI JSON lines, CSV, Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.artifact import MANIFEST
from tutelage.core.errors import ConfigError, DataError, did_you_mean
from tutelage.core.events import Emit, Event, silent
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.readers.base import Rejected, Tally, nothing_usable, read_file
from tutelage.data.version import DatasetVersion, load_version
from tutelage.data.writers.files import write_csv, write_jsonl, write_parquet
from tutelage.data.writers.rows import Row, is_pair, is_plain, openai_row, table_row
from tutelage.inference.chat import with_prompt
from tutelage.workflows.context import Context, last_output
from tutelage.workflows.data.files import Reading

STAGE = "export"
FORMATS = ("openai", "csv", "parquet")
_ENDINGS = {".jsonl": "openai", ".json": "openai", ".ndjson": "openai", ".csv": "csv",
            ".parquet": "parquet", ".pq": "parquet"}  # fmt: skip
_SUFFIX = {"openai": ".jsonl", "csv": ".csv", "parquet": ".parquet"}
_SPLIT = "split"
_EVERY = 2000  # rows between two progress events
Examples = Callable[[], Iterable[tuple[Example, SplitName | None]]]


@dataclass(frozen=True)
class Export:
    """How rows are written.

    `format` unset: by the output's ending. `splits` unset: all. `prompt` is put before rows
    without a system message. `bare` keeps only what a fine-tuning job takes.
    """

    format: str | None = None
    splits: tuple[SplitName, ...] | None = None
    prompt: str = ""
    bare: bool = False
    force: bool = False


@dataclass(frozen=True)
class Exported:
    """What an export wrote: rows by file, and the rows of a source file that can't be used."""

    source: str
    format: str
    files: dict[str, int]
    unusable: int = 0
    first: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return {**self.__dict__, "rows": sum(self.files.values())}


def export_version(
    ctx: Context, output: Path, how: Export | None = None, version: str | None = None
) -> Exported:
    """Write a dataset version (unset: the newest) to `output`.

    JSON lines get one file a split, named by it; tables a column `split`. Raises DataError if
    there is no such version, or a file is there and not `force`.
    """
    how = how or Export()
    found = find_version(ctx, version)
    splits = tuple(known_split(split) for split in how.splits or SPLITS)
    chosen = format_of(output, how.format)

    def rows(of: tuple[SplitName, ...] = splits) -> Iterator[tuple[Example, SplitName | None]]:
        for split in of:
            for example in found.stream(split):
                yield example, split

    total = sum(found.manifest["counts"][split] for split in splits)
    job = _Writing(chosen, how, ctx.emit, total)
    if chosen != "openai":
        target = _file_for(output, f"{ctx.config.name}-{found.hash[:12]}", chosen)
        files = {str(target): job.table(target, rows, mark=len(splits) > 1)}
    else:
        targets = split_files(output, splits)
        job.check(targets.values())
        files = {
            str(target): job.lines(target, lambda split=split: rows((split,)))  # type: ignore[misc]
            for split, target in targets.items()
            if found.manifest["counts"][split]
        }
    job.finish(sum(files.values()))
    return Exported(found.hash[:12], chosen, files)


def export_file(
    source: Path,
    output: Path,
    how: Export | None = None,
    reading: Reading | None = None,
    emit: Emit = silent,
) -> Exported:
    """Write the usable rows of a file or folder to `output`; nothing is cleaned or left out.

    Raises DataError if no row can be used. The others are counted, and the first is named.
    """
    how, reading = how or Export(), reading or Reading()
    if how.splits:
        raise ConfigError("only dataset versions have splits", fix="Leave --split away")
    chosen = format_of(output, how.format)
    left: list[Rejected] = []

    def rows() -> Iterator[tuple[Example, SplitName | None]]:
        left.clear()
        for path in reading.files(source, []):
            shaper = reading.shaper(path)
            for item in read_file(path, shaper, Tally(str(path)), reading.encoding):
                if isinstance(item, Example):
                    yield item, None
                else:
                    left.append(item)

    job = _Writing(chosen, how, emit, None)
    target = _file_for(output, source.stem, chosen)
    if next(iter(rows()), None) is None:
        raise nothing_usable(next(iter(left), None), len(left), [str(source)])
    write = job.lines if chosen == "openai" else job.table
    count = write(target, rows)
    job.finish(count)
    first = f"{left[0].source}: {left[0].reason}" if left else None
    return Exported(str(source), chosen, {str(target): count}, len(left), first)


class _Writing:
    """One export under way."""

    def __init__(self, format: str, how: Export, emit: Emit, total: int | None) -> None:
        self._format = format
        self._how = how
        self._emit = emit
        self._total = total
        self._done = 0

    def check(self, targets: Iterable[Path]) -> None:
        """Raise DataError if a target is there and must not be replaced."""
        there = next((path for path in targets if path.exists()), None)
        if there is not None and not self._how.force:
            raise DataError(
                "the file is there already",
                where=str(there),
                fix="Name another one, or replace it with --force",
            )

    def lines(self, target: Path, examples: Examples) -> int:
        """Write JSON lines; return how many."""
        self.check([target])
        found = self._told(examples())
        return write_jsonl(target, (openai_row(row, bare=self._how.bare) for row, _ in found))

    def table(self, target: Path, examples: Examples, *, mark: bool = False) -> int:
        """Write CSV or Parquet; `mark` adds the split as a column. Return the rows."""
        self.check([target])
        plain = all(is_pair(row) or row.is_text or is_plain(row) for row, _ in examples())

        def rows() -> Iterator[Row]:
            for row, split in self._told(examples()):
                yield self._marked(table_row(row, plain=plain), split if mark else None)

        self._total = self._total * 2 if self._total else None  # columns first, then rows
        return (write_csv if self._format == "csv" else write_parquet)(target, rows)

    @staticmethod
    def _marked(row: Row, split: SplitName | None) -> Row:
        if split is None:
            return row
        name = _SPLIT if _SPLIT not in row else f"tutelage_{_SPLIT}"
        return {**row, name: split}

    def _told(
        self, examples: Iterable[tuple[Example, SplitName | None]]
    ) -> Iterator[tuple[Example, SplitName | None]]:
        for example, split in examples:
            self._done += 1
            if self._done % _EVERY == 0:
                self._emit(Event(STAGE, "progress", "", self._done, self._total))
            yield with_prompt(example, self._how.prompt), split

    def finish(self, rows: int) -> None:
        """Say that it is done, if anybody was told how far it was."""
        if self._done >= _EVERY:
            self._emit(Event(STAGE, "done", f"{rows:,} rows"))


def format_of(output: Path, named: str | None) -> str:
    """Return the format to write: the one named, or by the ending of the output."""
    chosen = named or _ENDINGS.get(output.suffix.lower(), "" if output.suffix else "openai")
    if chosen in FORMATS:
        return chosen
    hint = did_you_mean(chosen, FORMATS) if chosen else ""
    raise ConfigError(
        f"{named!r} is not a format to write" if named else f"{output.suffix} names no format",
        fix=f"{hint}Use --format {', '.join(FORMATS)}",
    )


def split_files(output: Path, splits: tuple[SplitName, ...]) -> dict[SplitName, Path]:
    """Return the file of each split: DIR/train.jsonl, or NAME.train.jsonl beside each other.

    One split alone is written to the output itself.
    """
    if _is_folder(output):
        return {split: output / f"{split}.jsonl" for split in splits}
    if len(splits) == 1:
        return {splits[0]: output}
    return {split: output.with_name(f"{output.stem}.{split}{output.suffix}") for split in splits}


def _is_folder(path: Path) -> bool:
    return path.is_dir() or not path.suffix


def _file_for(output: Path, name: str, format: str) -> Path:
    return output / f"{name}{_SUFFIX[format]}" if _is_folder(output) else output


def known_split(name: str) -> SplitName:
    """Return a split's name; raise ConfigError with the known ones."""
    known = next((split for split in SPLITS if split == name), None)
    if known is None:
        hint = did_you_mean(name, SPLITS)
        raise ConfigError(f"{name!r} is no split", fix=f"{hint}Known: {', '.join(SPLITS)}")
    return known


def find_version(ctx: Context, name: str | None) -> DatasetVersion:
    """Return the version whose hash begins with `name`, or the newest one."""
    if name is None:
        artifact = last_output(ctx, "curate")
        if artifact is None or not ctx.path_of(artifact).exists():
            raise DataError(
                "there is no dataset version yet",
                where=str(ctx.workspace.root),
                fix="Run `tutelage data split` first",
            )
        return load_version(ctx.path_of(artifact))
    folder = ctx.workspace.artifacts / "datasets"
    known = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    found = [path for path in known if path.name.startswith(name[:12])]
    if len(found) != 1 or len(name) < 4:
        shown = ", ".join(path.name for path in known[:6]) or "none yet"
        raise DataError(
            f"{name!r} is neither a file nor one dataset version",
            where=str(ctx.workspace.root),
            fix=f"Give a path, or at least four digits of one of: {shown}",
        )
    return load_version(found[0])
