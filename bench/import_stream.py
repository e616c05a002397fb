"""Import a large generated file and report megabytes a second and peak memory.

A child process runs `import_files` as the command line does, so that its peak memory is its own.
The rows are chats of about a kilobyte; --list writes one JSON list instead of lines, --csv a
table. Time is processor time (user and system), which a busy machine does not lengthen.

    python bench/import_stream.py --gb 5
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import child, machine

_WORDS = ("claim", "patient", "invoice", "refund", "ward", "policy", "sensor", "letter", "total",
          "morning", "doctor", "branch", "card", "north", "review", "open", "river")  # fmt: skip


def row(number: int) -> dict[str, Any]:
    """Return one chat of about a kilobyte; no two are the same."""
    start = number % len(_WORDS)
    words = " ".join(_WORDS[(start + i * 5) % len(_WORDS)] for i in range(60))
    return {
        "id": number,
        "messages": [
            {"role": "system", "content": "You answer letters about insurance claims."},
            {"role": "user", "content": f"Case {number}: {words}?"},
            {"role": "assistant", "content": f"On case {number}: {words}.", "weight": 1},
        ],
        "source": f"desk-{number % 97}",
    }


def generate(path: Path, size: int, layout: str) -> int:
    """Write rows until the file has `size` bytes; return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        if layout == "list":
            stream.write("[")
        if layout == "csv":
            stream.write("question,output,document_log_id,tokens\n")
        while stream.tell() < size:
            part = []
            for _ in range(2000):
                count += 1
                made = row(count)
                if layout == "csv":
                    asked, told = (turn["content"] for turn in made["messages"][1:])
                    part.append(f'"{asked}","{told}",{count},60\n')
                else:
                    comma = ", " if layout == "list" and count > 1 else ""
                    part.append(comma + json.dumps(made) + ("" if layout == "list" else "\n"))
            stream.write("".join(part))
        if layout == "list":
            stream.write("]")
    return count


def work(source: Path, target: Path) -> dict[str, Any]:
    """Import one file in this process and return its figures."""
    from tutelage.workflows.data.files import import_files

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    done = import_files([str(source)], target)
    seconds = time.process_time() - processor
    megabytes = source.stat().st_size / 1e6
    return {
        "rows": done.rows,
        "rejected": done.rejected,
        "megabytes": round(megabytes),
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "mb_per_cpu_second": round(megabytes / seconds, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "start_mb": round(before / 1024),
    }


def main() -> None:
    """Generate, import in a child, print a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=1.0, help="size of the file")
    parser.add_argument("--quick", action="store_true", help="0.1 GB")
    parser.add_argument("--list", action="store_true", help="one JSON list")
    parser.add_argument("--csv", action="store_true", help="a CSV of logs")
    parser.add_argument("--json", action="store_true", help="one JSON object alone")
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        json.dump(work(*options.work), sys.stdout)
        return
    size = int((0.1 if options.quick else options.gb) * 1e9)
    layout = "list" if options.list else "csv" if options.csv else "lines"
    ending = {"list": "json", "csv": "csv", "lines": "jsonl"}[layout]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, target = Path(folder) / f"rows.{ending}", Path(folder) / "out.jsonl"
        made = generate(source, size, layout)
        found = child(__file__, ["--work", str(source), str(target)], threads=1)
        if found["rows"] != made:
            raise SystemExit(f"{made} rows were written and {found['rows']} imported")
        found["layout"] = layout
        os.sync()
    report = {
        "name": "import_stream",
        "machine": machine(),
        "rows": [found],
        "headline": {"mb_per_cpu_second": found["mb_per_cpu_second"], "peak_mb": found["peak_mb"]},
    }
    if options.json:
        print(json.dumps(report))
        return
    for key, value in found.items():
        print(f"{key:<18} {value:>12}")


if __name__ == "__main__":
    main()
