"""Mining at scale and its worth: seconds and memory on a log, and what its queue finds.

scale: a project with 2,000 rows of Banking77 and a log of `--records` requests (texts of Banking77
with a few words changed, so that most differ; a tenth of the answers wrong, 5 % rated), then one
`mine` in a process of its own. worth: 30 intents with 10 rows each are known, 70 are asked about;
a logistic regression on the rows answers. Each month 1,500 requests come, 40 are labelled: those
that `mine` ranks first, as many at random, or (not with --quick) those that `data suggest` takes
from production. Counted are the wrong answers among the labelled,
and the accuracy on Banking77's test rows once all months' labels are learnt.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FILL = ["again", "now", "today", "please", "maybe", "actually", "somehow", "still", "really"]
MONTHS, A_MONTH, LABELS = 4, 1500, 40
ARMS = ("mined", "random", "suggested")
_COLUMNS = (
    "id", "deployment", "release", "arm", "user", "key_name", "split", "group_key", "messages",
    "response", "finish_reason", "status", "latency_ms", "prompt_tokens", "completion_tokens",
    "checks", "at",
)  # fmt: skip
Row = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="50,000 records, one seed")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", choices=("scale", "worth", "all"), default="all")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)  # the child's project
    options = parser.parse_args()
    if options.look:
        print(json.dumps(look(options.look)))
        return
    records = 50_000 if options.quick else options.records
    rows: list[dict[str, Any]] = []
    headline: dict[str, float] = {}
    if options.part != "worth":
        found = scale(options.data, records)
        rows.append({"part": "scale", **found})
        headline |= {"records": records, "seconds": found["seconds"], "peak_mb": found["peak_mb"]}
    if options.part != "scale":
        for seed in range(1 if options.quick else options.seeds):
            for how in ("mined", "random") if options.quick else ARMS:
                rows.append({"part": "worth", "seed": seed, **worth(options.data, how, seed)})
        headline |= compared([row for row in rows if row["part"] == "worth"])
    report = {"name": "mine", "machine": common.machine(), "rows": rows, "headline": headline}
    if options.json:
        print(json.dumps(report))
        return
    for part in ("scale", "worth"):
        own = [row for row in rows if row["part"] == part]
        if own:
            print(common.table(own) + "\n")
    print(json.dumps(headline))


def load(folder: Path, name: str) -> list[Row]:
    """Return (text, intent) of a file of Banking77."""
    with (folder / name).open(encoding="utf-8", newline="") as stream:
        return [(row["text"].strip(), row["category"]) for row in csv.DictReader(stream)]


def project(root: Path, rows: list[Row], labels: list[str]) -> Any:
    """Return the context of a new project whose dataset is `rows`."""
    from tutelage.workflows.context import open_context

    (root / "data").mkdir(parents=True, exist_ok=True)
    listed = "\n".join(f"  - {label}" for label in labels)
    (root / "tutelage.yaml").write_text(
        "name: bank\ntask: classification\nmodel: demo\nprompt: Name the intent.\n"
        f"output:\n labels:\n{listed}\n"
        "data:\n sources: [data/*.jsonl]\n columns: {input: text, output: label}\n"
        " quality: {embedder: tfidf}\n",
        encoding="utf-8",
    )
    write_rows(root, "start", rows)
    return open_context(root)


def write_rows(root: Path, name: str, rows: list[Row]) -> None:
    """Write rows as a sources file of a project."""
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (root / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def record(number: int, text: str, answer: str, at: datetime, split: str) -> tuple[Any, ...]:
    """Return one row of the log."""
    messages = json.dumps([{"role": "user", "content": text}])
    return (
        f"rec_{number:024x}", "bank", "r" * 64, "stable", f"user-{number % 997}", None, split,
        "0" * 64, messages, answer, "stop", 200, 12.0, 20, 4, "{}",
        at.strftime("%Y-%m-%d %H:%M:%S.%f"),
    )  # fmt: skip


def write_log(root: Path, records: Iterator[tuple[Any, ...]], rated: list[Row]) -> None:
    """Write records and ratings straight into the project's store."""
    base = sqlite3.connect(root / ".tutelage" / "store.db")
    marks = ", ".join("?" * len(_COLUMNS))
    named = ", ".join(f'"{name}"' for name in _COLUMNS)
    base.executemany(f"INSERT INTO records ({named}) VALUES ({marks})", records)
    base.executemany(
        "INSERT INTO signals (key, record, kind, explicit, value, author, at) "
        "VALUES (?, ?, 'rating', 1, ?, 'user', ?)",
        [(f"key-{name}", name, json.dumps({"value": float(value)}), "2026-01-01 00:00:00.000000")
         for name, value in rated],
    )  # fmt: skip
    base.commit()
    base.close()


def scale(folder: Path, records: int) -> dict[str, Any]:
    """Return seconds and memory of one look at so many records."""
    from tutelage.workflows.curate import curate

    rows = load(folder, "train.csv")
    random.Random(7).shuffle(rows)
    labels = sorted({label for _, label in rows})
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        ctx = project(root, rows[:2000], labels)
        curate(ctx)
        ctx.store.close()
        rated: list[Row] = []
        started = time.perf_counter()
        write_log(root, traffic(rows, labels, records, rated), rated)
        print(f"{records:,} records written in {time.perf_counter() - started:.0f} s",
              file=sys.stderr)  # fmt: skip
        found = common.child(__file__, ["--look", str(root)], threads=2)
    return {"records": records, **found}


def traffic(
    rows: list[Row], labels: list[str], records: int, rated: list[Row]
) -> Iterator[tuple[Any, ...]]:
    """Yield records; `rated` gets the ratings on the way."""
    rng = random.Random(11)
    for number in range(records):
        text, label = rows[rng.randrange(len(rows))]
        words = text.split()
        for _ in range(2):
            words.insert(rng.randrange(len(words) + 1), rng.choice(FILL))
        wrong = rng.random() < 0.1
        answer = rng.choice(labels) if wrong else label
        split = "train" if rng.random() < 0.7 else "test"
        if rng.random() < 0.05:
            rated.append((f"rec_{number:024x}", "0" if wrong != (rng.random() < 0.1) else "1"))
        yield record(number, " ".join(words), answer, BEGIN + timedelta(seconds=number), split)


def look(root: Path) -> dict[str, Any]:
    """Return what one look in this process took."""
    from tutelage.workflows.context import open_context
    from tutelage.workflows.feedback.mine import mine

    ctx = open_context(root)
    started, cpu = time.perf_counter(), time.process_time()
    found = mine(ctx, budget=100)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mb": round(common.peak_memory_mb()),
        "texts": found.texts,
        "wanted": found.wanted,
        "queued": len(found.rows),
        "clusters": len(found.clusters),
    }


def worth(folder: Path, how: str, seed: int) -> dict[str, Any]:
    """Return what labels of one arm found and taught, month after month."""
    from tutelage.workflows.curate import curate
    from tutelage.workflows.data.learning import suggest
    from tutelage.workflows.feedback.mine import mine

    rng = random.Random(seed)
    rows, test = load(folder, "train.csv"), load(folder, "test.csv")
    rng.shuffle(rows)
    labels = sorted({label for _, label in rows})
    rng.shuffle(labels)
    asked, known = labels[:70], labels[:30]
    start = [row for label in known for row in [r for r in rows if r[1] == label][:10]]
    pool = [row for row in rows if row[1] in asked and row not in set(start)]
    truth = dict(pool)
    test = [row for row in test if row[1] in asked]
    learnt, wrong_asked, wrong_all = list(start), 0, 0
    said_of: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        ctx = project(root, start, labels)
        for month in range(MONTHS):
            curate(ctx)
            requests = pool[month * A_MONTH : (month + 1) * A_MONTH]
            answers = answer(learnt, [text for text, _ in requests])
            begin = BEGIN + timedelta(days=30 * month)
            log: list[tuple[Any, ...]] = []
            rated: list[Row] = []
            for number, ((text, label), said) in enumerate(zip(requests, answers, strict=True)):
                place = month * A_MONTH + number
                log.append(record(place, text, said, begin + timedelta(minutes=number), "train"))
                if rng.random() < 0.05:
                    praised = (said == label) != (rng.random() < 0.1)
                    rated.append((str(log[-1][0]), "1" if praised else "0"))
            write_log(root, iter(log), rated)
            pairs = zip(requests, answers, strict=True)
            said_of |= {text: said for (text, _), said in pairs}
            texts_of_month = [text for text, _ in requests]
            if how == "mined":
                found = mine(ctx, budget=LABELS, since=begin, now=begin + timedelta(days=30),
                             held_out=0.0, seed=seed)  # fmt: skip
                chosen = [row.text for row in found.rows]
            elif how == "suggested":
                fresh = suggest(ctx, "production", LABELS, output=None, seed=seed).rows
                chosen = [row.text for row in fresh]
            else:
                chosen = rng.sample(sorted(texts_of_month), LABELS)
            wrong_asked += sum(said_of[text] != truth[text] for text in chosen)
            wrong_all += sum(said_of[text] != truth[text] for text in texts_of_month)
            learnt += [(text, truth[text]) for text in chosen]
            write_rows(root, f"month-{month}", [(text, truth[text]) for text in chosen])
        ctx.store.close()
    final = answer(learnt, [text for text, _ in test])
    right = sum(a == label for a, (_, label) in zip(final, test, strict=True))
    return {
        "how": how,
        "labels": MONTHS * LABELS,
        "wrong_labelled": round(wrong_asked / (MONTHS * LABELS), 3),
        "wrong_asked": round(wrong_all / (MONTHS * A_MONTH), 3),
        "intents": len({label for _, label in learnt}),
        "accuracy": round(right / len(test), 4),
    }


def answer(rows: list[Row], texts: list[str]) -> list[str]:
    """Return what a logistic regression on the rows answers."""
    from tutelage.data.linear import fit_linear
    from tutelage.inference.word_space import fit_word_space

    own = [text for text, _ in rows]
    space = fit_word_space([*own, *texts], 256)
    return fit_linear(space.project(own), [label for _, label in rows]).predict(
        space.project(texts)
    )


def compared(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the means of both arms side by side."""

    def mean(how: str, key: str) -> float:
        return float(np.mean([row[key] for row in rows if row["how"] == how]))

    return {
        "found_vs_random": round(mean("mined", "wrong_labelled") / mean("random", "wrong_labelled"),
                                 2),
        "accuracy_gain": round(mean("mined", "accuracy") - mean("random", "accuracy"), 4),
    }  # fmt: skip


if __name__ == "__main__":
    main()
