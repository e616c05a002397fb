"""Does the default gate stop a model that was trained on wrong labels? On Banking77, end to end.

Two adapters of the demo model are trained on the same rows: one on the labels as they are, one on
labels of which every tenth is another intent. The first is released and serves; the second is then
evaluated beside it by the default criteria, and has to fail. The data lies in ../shared/data.

A long run: two trainings and two evaluations. `--quick` takes ten intents, 30 rows of each.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

FLIPPED = 0.10  # share of train labels that are another intent
VALIDATION = 0.15  # share of the train file's rows that says when to stop
PROMPT = "Which intent does the customer have? Answer with its name alone."


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="ten intents, --each rows of each")
    parser.add_argument("--each", type=int, default=30, help="rows of an intent in a quick run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=3000, help="rows of the train file, at most")
    parser.add_argument("--test", type=int, default=1000, help="rows of the test file, at most")
    parser.add_argument("--model", default="demo", help="hub id, folder or .gguf file")
    parser.add_argument("--keep", type=Path, help="work in this folder; a run that stopped goes on")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="gate-"))
    try:
        rows = measure(folder, options)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    report = {
        "name": "gate",
        "machine": common.machine(),
        "rows": rows,
        "headline": {"flipped_failed": int("not worse than stable" in rows[1]["fails"])},
    }
    print(json.dumps(report) if options.json else common.table(rows))
    if not options.json:
        print(report["headline"])


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row a candidate: its accuracy, what the gate says of it, and the verdict."""
    from tutelage.core.artifact import describe
    from tutelage.core.events import Event
    from tutelage.data.version import VersionDraft, write_version
    from tutelage.release.deployments import ensure_deployment
    from tutelage.workflows.context import open_context, register
    from tutelage.workflows.evaluation.evaluate import evaluate
    from tutelage.workflows.release.release import release
    from tutelage.workflows.training.train import train

    def tell(event: Event) -> None:
        if event.kind in ("start", "note", "warning", "done"):
            print(f"{event.stage}: {event.message}", file=sys.stderr)

    splits = banking(options)
    labels = sorted({row.label for row in splits["train"]})
    write_project(folder, labels, options.model)
    ctx = open_context(folder, tell)
    wrong = flipped(splits["train"], labels, options.seed)
    share = sum(a.label != b.label for a, b in zip(splits["train"], wrong, strict=True))
    datasets = []
    for train_rows in (splits["train"], wrong):
        sides = {**splits, "train": train_rows}
        clusters = {row.id: row.id for rows in sides.values() for row in rows}
        version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(sides, clusters))
        path = ctx.workspace.relative(version.directory)
        datasets.append(register(ctx.store, describe("dataset", version.hash, path)))
    clean = train(ctx, datasets[0]).artifact
    first = evaluate(ctx, datasets[0], clean).artifact
    stable = release(ctx, datasets[0], clean, first, force=True).artifact
    ensure_deployment(ctx.store, ctx.config.name, stable.hash)
    noisy = train(ctx, datasets[1]).artifact
    second = evaluate(ctx, datasets[0], noisy).artifact
    return [
        told("labels as they are", 0.0, first),
        told("every tenth is wrong", share / len(wrong), second),
    ]


def banking(options: argparse.Namespace) -> dict[str, list[Any]]:
    """Return train, validation and test rows of Banking77, labels spread evenly."""
    from common_cases import INTENTS, _read_csv

    draw = random.Random(options.seed)
    kept = set(INTENTS) if options.quick else None
    files = {}
    for name, most in (("train", options.rows), ("test", options.test)):
        by_label: dict[str, list[str]] = defaultdict(list)
        for row in _read_csv(f"banking77/{name}.csv"):
            if kept is None or row["category"] in kept:
                by_label[row["category"]].append(row["text"])
        limit = options.each if options.quick else -(-most // len(by_label))
        pairs = [
            (text, label)
            for label, texts in sorted(by_label.items())
            for text in draw.sample(texts, min(limit, len(texts)))
        ]
        draw.shuffle(pairs)
        files[name] = [row_of(text, label) for text, label in pairs]
    aside = round(VALIDATION * len(files["train"]))
    return {
        "train": files["train"][aside:],
        "validation": files["train"][:aside],
        "test": files["test"],
    }


def row_of(text: str, label: str) -> Any:
    """Return one row whose answer is its label."""
    from common_cases import example

    return example(text, label, label)


def flipped(rows: list[Any], labels: list[str], seed: int) -> list[Any]:
    """Return the rows with FLIPPED of the labels put to another intent."""
    draw = random.Random(seed)
    chosen = set(draw.sample(range(len(rows)), round(FLIPPED * len(rows))))
    return [
        row_of(row.input_text, draw.choice([name for name in labels if name != row.label]))
        if number in chosen
        else row
        for number, row in enumerate(rows)
    ]


def write_project(folder: Path, labels: list[str], model: str) -> None:
    """Write the settings: everything but the task is the default."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "name": "banking", "task": "classification", "model": model, "prompt": PROMPT,
        "output": {"labels": labels}, "train": {"force": True, "tracker": "none"},
    }  # fmt: skip
    (folder / "tutelage.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def told(name: str, wrong: float, evaluation: Any) -> dict[str, Any]:
    """Return what the evaluation says: accuracy, verdict, and what it fails."""
    against = [c["name"] for c in evaluation.meta["criteria"] if c["outcome"] == "fail"]
    beside = [c["sentence"] for c in evaluation.meta["criteria"] if "stable" in c["name"]]
    return {
        "candidate": name,
        "labels_wrong": round(wrong, 3),
        "accuracy": round(evaluation.meta["primary"]["tuned"], 3),
        "verdict": evaluation.meta["verdict"],
        "fails": ", ".join(against),
        "beside_stable": "".join(beside),
    }


if __name__ == "__main__":
    main()
