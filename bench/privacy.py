"""Identifiers: how many planted and real ones are found, how many plain rows are flagged, CPU.

`planted` counts identifiers that tests/planted.py puts into Banking77 rows (20 seeds) and that
are gone after redaction. `names` counts the first and last names that people marked in
Restaurant8k's test turns and that are covered by a span. `flagged` rows hold no identifier as
far as anybody marked one: of Banking77 none is planted, of ICD-10-CM's descriptions none is one.
Dialogues (MTS-Dialog) are only counted: nobody has marked their identifiers.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEEDS = 20


def main() -> None:
    """Parse the arguments and print the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds instead of 20")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    from tests import planted

    bank = planted.read_banking77(DATA)
    texts = [text for text, _ in bank]
    rows = [
        flagged("Banking77 train", texts),
        flagged("Banking77 test", [t for t, _ in planted.read_banking77(DATA, "test.csv")]),
        flagged("ICD-10-CM descriptions", _icd()),
        flagged("MTS-Dialog train", _dialogues()),
        recall(bank, 2 if asked.quick else SEEDS),
        names(),
        curation(texts),
    ]
    result: dict[str, Any] = {
        "name": "privacy",
        "machine": common.machine(),
        "rows": rows,
        "headline": {
            "planted_recall": rows[4]["share"],
            "name_recall": rows[5]["share"],
            "bank_flagged": rows[0]["share"],
            "cpu_s_10k": rows[0]["cpu_s"],
        },
    }
    print(json.dumps(result) if asked.json else common.table(rows))


def flagged(what: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return how many texts hold a span, and the spans by kind."""
    from tutelage.data.privacy.detect import detect

    detect("Dr. Kumar, 512-44-9812")  # the lists are read once
    started = time.process_time()
    found = [detect(text) for text in texts]
    spent = time.process_time() - started
    kinds = Counter(span.kind for spans in found for span in spans)
    count = sum(bool(spans) for spans in found)
    return _row(f"flagged: {what}", count, len(texts), spent, dict(kinds.most_common()))


def recall(bank: Sequence[tuple[str, str]], seeds: int) -> dict[str, Any]:
    """Return how many planted identifiers are gone after redaction."""
    from tests import planted

    from tutelage.data.privacy.detect import redact_text

    gone = total = 0
    started = time.process_time()
    for seed in range(seeds):
        rows = planted.plant(bank, seed)
        for at, identifier in rows.identifiers.items():
            total += 1
            gone += identifier not in redact_text(rows.rows[at][0])
    return _row(f"found: planted, {seeds} seeds", gone, total, time.process_time() - started, {})


def names() -> dict[str, Any]:
    """Return how many of the names that people marked are covered by a span."""
    from tutelage.data.privacy.detect import detect

    turns = json.loads((DATA / "restaurant8k" / "test.json").read_text(encoding="utf-8"))
    covered = total = 0
    started = time.process_time()
    for turn in turns:
        marked = [label for label in turn.get("labels", []) if label["slot"].endswith("_name")]
        if not marked:
            continue
        spans = [s for s in detect(turn["userInput"]["text"]) if s.kind == "name"]
        places = {i for span in spans for i in range(span.start, span.end)}
        for label in marked:
            span = label["valueSpan"]
            total += 1
            covered += places.issuperset(range(span.get("startIndex", 0), span["endIndex"]))
    spent = time.process_time() - started
    return _row("found: names of Restaurant8k test", covered, total, spent, {})


def curation(texts: Sequence[str]) -> dict[str, Any]:
    """Return what curation's step costs in mode flag."""
    from tutelage.core.example import Example, Message
    from tutelage.data.privacy.step import PrivacyStep

    rows = [Example(messages=(Message(role="user", content=text),)) for text in texts]
    step = PrivacyStep("flag")
    started = time.process_time()
    step.run(rows)
    spent = time.process_time() - started
    return _row("curation's step, mode flag", step.summary.rows, len(rows), spent, {})


def _row(what: str, count: int, of: int, seconds: float, kinds: dict[str, int]) -> dict[str, Any]:
    said = ", ".join(f"{kind} {number}" for kind, number in kinds.items())
    share = round(count / of, 4)
    return {"what": what, "count": count, "of": of, "share": share,
            "cpu_s": round(seconds, 2), "kinds": said}  # fmt: skip


def _dialogues() -> list[str]:
    csv.field_size_limit(10**8)
    path = DATA / "mts-dialog" / "MTS-Dialog-TrainingSet.csv"
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [f"{row['dialogue']}\n{row['section_text']}" for row in csv.DictReader(stream)]


def _icd() -> list[str]:
    import simple_icd_10_cm as icd

    return [str(icd.get_description(code)) for code in icd.get_all_codes()]


if __name__ == "__main__":
    main()
