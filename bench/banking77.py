"""What curation finds in real rows with planted faults, and what it costs: Banking77, 10,003 rows.

Plants exact and near duplicates, flipped labels, outliers, refusals and identifiers with a seed
(tests/planted.py), runs the commands a user would run, each in a process of its own, and counts
what their answers hold. `--quick` is one seed; without it three.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from tests.planted import Planted, plant, read_banking77

import common

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
CONFIG = """\
name: banking
task: classification
model: demo
prompt: Name the intent of the customer's question.
data: {sources: [data/rows.csv], columns: {input: text, output: category}}
"""
COMMANDS = {
    "check": ["check"],
    "split": ["split"],
    "dedup": ["dedup", "--show", "100000", "--kind", "near"],
    "label errors": ["label-errors", "--top", "150"],
    "outliers": ["outliers", "--top", "100"],
    "report": ["report"],
}
TOP_FLIPS, TOP_OUTLIERS = 150, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="one seed, not three")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the real rows are not at {DATA.parent.name}/data beside the checkout")
    rows = [measure(seed) for seed in ([1] if options.quick else [1, 2, 3])]
    report = {
        "name": "banking77",
        "machine": common.machine(),
        "rows": rows,
        "headline": {
            "seconds": common.median([row["seconds"] for row in rows]),
            "peak_mb": max(row["peak_mb"] for row in rows),
            **{key: min(row[key] for row in rows) for key in FOUND},
        },
    }
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(rows))
    print(report["headline"])


FOUND = ("exact", "near", "near_precision", "flips", "outliers", "refusals", "identifiers")


def measure(seed: int) -> dict[str, Any]:
    """Return one row of the table: the share of each kind that was found, seconds and memory."""
    strangers = (DATA / "general" / "wiki_sentences.txt").read_text("utf-8").splitlines()
    planted = plant(read_banking77(DATA), seed, strangers)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "data").mkdir()
        (project / "tutelage.yaml").write_text(CONFIG)
        lines = write(planted, project / "data" / "rows.csv")
        answers, costs = run(project)
        found = count(planted, lines, answers, version_folder(project))
    seconds = {f"{name}_s": round(wall, 1) for name, (wall, _) in costs.items()}
    return {
        "seed": seed,
        **{key: round(value, 3) for key, value in found.items()},
        **seconds,
        "seconds": round(sum(wall for wall, _ in costs.values()), 1),
        "peak_mb": round(max(peak for _, peak in costs.values())),
    }


def write(planted: Planted, path: Path) -> list[int]:
    """Write the rows and return the line each begins on."""
    planted.write_csv(path)
    lines, at = [], 2
    for text, label in planted.rows:
        lines.append(at)
        at += 1 + text.count("\n") + label.count("\n")
    return lines


def run(project: Path) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """Run every command; return its JSON answer, and its (seconds, peak MB)."""
    answers, costs = {}, {}
    for name, arguments in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            peak = Path(folder) / "peak"
            command = [sys.executable, "-c", _CHILD, str(peak), "data", *arguments]
            started = time.perf_counter()
            done = subprocess.run(
                [*command, "--project", str(project), "--json"],
                capture_output=True, text=True, env=os.environ | common.QUIET,
            )  # fmt: skip
            wall = time.perf_counter() - started
            if done.returncode not in (0, 2):
                ending = f"{name} ended with {done.returncode}"
                raise RuntimeError(f"{ending}: {done.stderr[-800:]}")
            costs[name] = (wall, float(peak.read_text()))
        answers[name] = json.loads(done.stdout.splitlines()[0])
    return answers, costs


# A child's ru_maxrss starts at what its parent held when it forked; VmHWM is its own.
_CHILD = """
import atexit, sys
from pathlib import Path

peak = Path(sys.argv.pop(1))

def tell():
    lines = Path("/proc/self/status").read_text().splitlines()
    peak.write_text(next(str(int(x.split()[1]) / 1024) for x in lines if x.startswith("VmHWM")))

atexit.register(tell)
from tutelage.cli.main import main

main()
"""


def version_folder(project: Path) -> Path:
    """Return the folder of the one dataset version."""
    (folder,) = (project / ".tutelage" / "artifacts" / "datasets").iterdir()
    return folder


def line_of(source: str) -> int:
    """Return the line in a place like data/rows.csv:12."""
    found = re.search(r":(\d+)$", source)
    return int(found[1]) if found else -1


def count(
    planted: Planted, lines: list[int], answers: dict[str, Any], folder: Path
) -> dict[str, float]:
    """Return the share of every planted kind that was found."""
    row_at = {line: row for row, line in enumerate(lines)}
    dropped = _rows(folder / "dropped.jsonl")
    quarantined = _rows(folder / "quarantine.jsonl")
    copies = {row_at.get(r["line"]) for r in dropped if r["finding"] == "D4-E01"}
    exact = sum(one in copies or two in copies for one, two in planted.exact.items())
    findings = _findings(folder)
    refused = {row_at.get(r["line"]) for r in quarantined} | {
        row_at.get(line) for line in findings("D2-C03")
    }
    marked = {row_at.get(line) for line in findings("D7-")}
    near, precision = _near(planted, row_at, answers["dedup"])
    flips = _listed(answers["label errors"]["label_errors"], row_at, TOP_FLIPS)
    strange = _listed(answers["outliers"]["outliers"], row_at, TOP_OUTLIERS)
    left = {row_at.get(r["line"]) for r in quarantined}
    return {
        "exact": exact / len(planted.exact),
        "near": near,
        "near_precision": precision,
        "flips": len(flips & set(planted.flips)) / len(planted.flips),
        "outliers": len((strange | left) & planted.outliers) / len(planted.outliers),
        "refusals": len(refused & planted.refusals) / len(planted.refusals),
        "identifiers": len(marked & set(planted.identifiers)) / len(planted.identifiers),
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _findings(folder: Path) -> Any:
    """Return a function: the lines of all findings whose id starts so."""
    rows = _rows(folder / "findings.jsonl")

    def lines(prefix: str) -> set[int]:
        return {line_of(row["where"]) for row in rows if row["finding"].startswith(prefix)}

    return lines


def _near(planted: Planted, row_at: dict[int, int], answer: dict[str, Any]) -> tuple[float, float]:
    """Return recall of planted pairs, and the share of neighbours in clusters that are alike.

    A pair of a cluster's first row and another counts as right if it was planted, or if
    Levenshtein's similarity or the Jaccard index of their words reaches 0.8.
    """
    from rapidfuzz.distance import Levenshtein

    cluster_of: dict[int, str] = {}
    right = wrong = 0
    for cluster in answer["clusters"]:
        members = [(row_at.get(line_of(m["source"]), -1), m["input"]) for m in cluster["members"]]
        for member in cluster["members"]:
            for place in (member["source"], *member["copies"]):
                cluster_of[row_at.get(line_of(place), -1)] = cluster["id"]
        for row, text in members[1:]:
            best = max(
                (
                    _alike(text, other, Levenshtein)
                    or planted.near.get(row) == at
                    or planted.near.get(at) == row
                )
                for at, other in members
                if at != row
            )
            right, wrong = right + best, wrong + (not best)
    pairs = [(a, b) for a, b in planted.near.items()]
    found = sum(a in cluster_of and cluster_of.get(a) == cluster_of.get(b) for a, b in pairs)
    return found / len(pairs), right / max(1, right + wrong)


def _alike(one: str, two: str, levenshtein: Any) -> bool:
    one, two = " ".join(one.lower().split()), " ".join(two.lower().split())
    left, right = ({w.strip(".,?!'\"") for w in text.split()} for text in (one, two))
    close = levenshtein.normalized_similarity(one, two) >= 0.8
    return bool(close or len(left & right) >= 0.8 * len(left | right))


def _listed(rows: list[dict[str, Any]], row_at: dict[int, int], top: int) -> set[int]:
    """Return the rows that a ranking's answer lists first."""
    return {row_at.get(line_of(row["where"]), -1) for row in rows[:top]}


if __name__ == "__main__":
    main()
