"""What the leak certificate finds: Banking77's official split, and our split of the same rows.

The official files are compared as they are, by letters and by meaning; then all rows of both files
go through `curate`, and every pair of its sides is certified.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
CONFIG = """\
name: bank
task: classification
model: demo
data: {sources: [data/*.csv], columns: {input: text, output: category}}
"""


def main() -> None:
    """Parse the arguments and print the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without embeddings of a model")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = [official(None), official("tfidf")]
    if not asked.quick:
        rows.append(official("minilm"))
    rows += ours()
    result: dict[str, Any] = {
        "name": "leaks",
        "machine": common.machine(),
        "rows": rows,
        "headline": {
            "official_near": rows[0]["near"],
            "ours_near": sum(row["near"] for row in rows if row["what"].startswith("ours")),
        },
    }
    print(json.dumps(result) if asked.json else common.table(rows))


def official(semantic: str | None) -> dict[str, Any]:
    """Return what the certificate says of the files as they were published."""
    from tutelage import leak_certificate

    started = time.process_time()
    found = leak_certificate(train=_texts("train.csv"), test=_texts("test.csv"), semantic=semantic)
    spent = time.process_time() - started
    return _row("official test in train", found.as_dict(), round(spent, 1))


def ours() -> list[dict[str, Any]]:
    """Return what the manifest of our version certifies, a row a pair of sides."""
    import tutelage

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "data").mkdir()
        (root / "tutelage.yaml").write_text(CONFIG, encoding="utf-8")
        for name in ("train.csv", "test.csv"):
            (root / "data" / name).write_bytes((DATA / name).read_bytes())
        started = time.process_time()
        project = tutelage.open(root)
        leaks = project.curate().meta["leaks"]
        spent = round(time.process_time() - started, 1)
        project.close()
    return [_row(f"ours, {name}", leak, spent) for name, leak in leaks.items()]


def _row(what: str, leak: dict[str, Any], spent: float) -> dict[str, Any]:
    return {
        "what": what,
        "rows": leak["train_rows"],
        "against": leak["test_rows"],
        "exact": leak["exact"],
        "near": leak["near"],
        "semantic": "" if leak["semantic"] is None else leak["semantic"],
        "embedder": leak["embedder"] or "",
        "cpu_seconds": spent,
    }


def _texts(name: str) -> list[str]:
    with (DATA / name).open(newline="", encoding="utf-8") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


if __name__ == "__main__":
    main()
