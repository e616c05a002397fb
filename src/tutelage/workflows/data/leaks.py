"""What leaks: the certificate of the newest version, two files, or benchmarks against train rows.

Nothing is changed here; curation leaves out what leaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message
from tutelage.data.benchmarks import find_matches, read_benchmark
from tutelage.data.leakage import LeakCertificate, leak_certificate
from tutelage.data.version import load_version, read_manifest
from tutelage.workflows.context import Context
from tutelage.workflows.outputs import require_output


def between_files(train: Path, test: Path, semantic: str | None = None) -> LeakCertificate:
    """Return the certificate of two files: .txt with a text a line, .jsonl or .csv with rows.

    Raises DataError if a file can't be read or holds no text.
    """
    return leak_certificate(_texts(train), _texts(test), semantic=semantic)


def of_version(ctx: Context) -> dict[str, Any]:
    """Return what the newest version's manifest certifies: its hash, and a count a pair of sides.

    Raises DataError if there is no version yet.
    """
    artifact = require_output(ctx, "curate")
    manifest = read_manifest(ctx.path_of(artifact))
    leaks = manifest.get("leaks") or {"train-test": manifest.get("leak")}
    return {"dataset": artifact.short, "leaks": leaks}


def benchmarks(
    paths: Sequence[Path], *, ctx: Context | None = None, train: Path | None = None
) -> dict[str, Any]:
    """Return the training rows that a benchmark holds: of `train`, or of the newest version.

    Gives rows, texts, counts by exact, near and overlap, and the matches, each with the row's
    place and id, how it matches, and the place in the benchmark. Raises DataError if a file can't
    be read.
    """
    texts = [item for path in paths for item in read_benchmark(path)]
    rows = _train_rows(ctx, train)
    found = find_matches(rows, texts)
    counts = Counter(match.how for match in found)
    return {
        "rows": len(rows),
        "texts": len(texts),
        "matches": len(found),
        **{how: counts[how] for how in ("exact", "near", "overlap")},
        "found": [
            {
                "row": rows[match.row].origin.source,
                "id": rows[match.row].id if train is None else None,
                "input": rows[match.row].input_text,
                "how": match.how,
                "benchmark": match.place,
                "reason": match.sentence,
            }
            for match in found
        ],
    }


def _texts(path: Path) -> list[str]:
    """Return one text a line of .txt (an empty line is one too), or the inputs of rows."""
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json", ".csv", ".tsv"):
        return [item.text for item in read_benchmark(path, answers=False)]
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path), fix="Save it as UTF-8") from error
    lines = text.removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def _train_rows(ctx: Context | None, train: Path | None) -> list[Example]:
    if train is not None:
        return [
            Example(
                messages=(Message(role="user", content=item.text),),
                origin={"source": item.place},  # type: ignore[arg-type]
            )
            for item in read_benchmark(train)
        ]
    if ctx is None:
        raise DataError("no training rows were named", fix="Name a file, or a project")
    return load_version(ctx.path_of(require_output(ctx, "curate"))).rows("train")
