"""How often the watch over drift errs, how soon it sees a change, and what a million records cost.

- watch: simulated years on Banking77 rows: 10 intents, 10 known rows each, then requests drawn
  from all rows of the intents. `alarms` counts the false ones of years in which nothing changes.
  Else a change comes at a random request of the second tenth of the stream; `found` counts the
  alarms within 500 requests of it, `after` is the median number of requests until the alarm.
- million: a project with so many logged requests of four weeks; seconds and memory of a check of
  the last two weeks against those before, and of a watch that catches up with all, at most
  `drift.a_day` a day, each in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

import common
from tutelage.feedback.drift.watch import DriftWatch, Item
from tutelage.inference.tfidf_embed import TfidfEmbedder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
ALPHA, YEAR, WITHIN = 0.05, 20_000, 500
Rows = dict[str, list[str]]
Draw = Callable[[np.random.Generator], tuple[str, str]]  # a request and the label it is given


def banking_rows() -> Rows:
    """Return the texts of each intent."""
    found: Rows = {}
    for name in ("train.csv", "test.csv"):
        with (DATA / name).open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found.setdefault(row["category"], []).append(row["text"])
    return found


def draw_from(rows: Rows, intents: Sequence[str], weights: Sequence[float] | None = None) -> Draw:
    """Return what draws a request of the intents; another intent is given a known label."""
    shares = None if weights is None else np.array(weights) / sum(weights)

    def draw(rng: np.random.Generator) -> tuple[str, str]:
        intent = intents[int(rng.choice(len(intents), p=shares))]
        label = intent if intent in intents[:10] else intents[int(rng.integers(10))]
        return rows[intent][int(rng.integers(len(rows[intent])))], label

    return draw


def rephrased(draw: Draw, share: float) -> Draw:
    """Return the same requests, a share of them said in another way, as by another channel."""

    def other(rng: np.random.Generator) -> tuple[str, str]:
        text, label = draw(rng)
        if rng.random() >= share:
            return text, label
        return f"Hi team, quick one from the mobile app: {text.rstrip('?.! ')}, thanks", label

    return other


def changes(rows: Rows, intents: Sequence[str]) -> dict[str, Draw]:
    """Return the kinds of change, by name."""
    usual = draw_from(rows, intents[:10])
    return {
        "a new intent, 1 request in 11": draw_from(rows, intents[:11]),
        "a new intent, 1 request in 5": draw_from(rows, intents[:11], [1.0] * 10 + [2.5]),
        "1 request in 4 said another way": rephrased(usual, 0.25),
        "two intents of ten double": draw_from(rows, intents[:10], [2.0] * 2 + [1.0] * 8),
        "half of all from one intent": draw_from(rows, intents[:10], [9.0] + [1.0] * 9),
    }


def run_watch(
    known: Sequence[str], usual: Draw, other: Draw | None, at: int, total: int, seed: int
) -> int | None:
    """Return the request at which the alarm came, from 1; None without one."""
    rng = np.random.default_rng(seed)
    embedder = TfidfEmbedder(128)
    reference = [Item(f"row:{i}", text) for i, text in enumerate(known)]
    watch = DriftWatch(embedder.embed, alpha=ALPHA, seed=seed, reference=reference)
    for place in range(total):
        text, label = (other if other is not None and place >= at else usual)(rng)
        item = Item(str(place), text, f"{place:09d}", label=label)
        if watch.add(item) is not None:
            return place + 1
        if rng.random() < 0.05:  # one in twenty is rated, one rating in ten is wrong
            score = float(rng.random() < 0.8)
            if watch.add_score(score, item.id, item.at) is not None:
                return place + 1
    return None


def watch_rows(years: int, runs: int, year: int) -> list[dict[str, Any]]:
    """Return false alarms in years without a change, then what is found of each change."""
    rows = banking_rows()
    names = sorted(rows)
    found: list[dict[str, Any]] = []

    def intents_of(seed: int) -> tuple[list[str], list[str]]:
        rng = np.random.default_rng(10_000 + seed)
        intents = [names[int(i)] for i in rng.permutation(len(names))[:11]]
        known = [t for name in intents[:10] for t in rng.choice(rows[name], 10, replace=False)]
        return intents, known

    started = time.perf_counter()
    alarms = 0
    for seed in range(years):
        intents, known = intents_of(seed)
        alarms += run_watch(known, draw_from(rows, intents[:10]), None, 0, year, seed) is not None
    found.append(_row("none", years, alarms, 0, [], started))
    for kind in changes(rows, intents_of(0)[0]):
        false, within, delays = 0, 0, []
        started = time.perf_counter()
        for seed in range(runs):
            intents, known = intents_of(seed)
            at = int(np.random.default_rng(seed).integers(year // 10, year // 5))
            other = changes(rows, intents)[kind]
            alarm = run_watch(known, draw_from(rows, intents[:10]), other, at, at + 2_000, seed)
            false += alarm is not None and alarm <= at
            if alarm is not None and alarm > at:
                delays.append(alarm - at)
                within += alarm - at <= WITHIN
        found.append(_row(kind, runs, false, within, delays, started))
    return found


def _row(
    kind: str, runs: int, alarms: int, found: int, delays: Sequence[int], started: float
) -> dict[str, Any]:
    return {
        "table": "watch",
        "change": kind,
        "runs": runs,
        "alarms": alarms,
        "found": found,
        "after": int(statistics.median(delays)) if delays else "",
        "seconds_a_run": round((time.perf_counter() - started) / max(1, runs), 1),
    }


_LINES = (
    "card payment refund transfer account balance limit pending cash withdrawal fee exchange rate "
    "app login password reset identity verify delivery arrive lost stolen freeze virtual top-up "
    "cheque salary statement merchant currency abroad wrong declined twice help please today"
)
WORDS = _LINES.split()
CONFIG = """\
name: big
task: classification
model: demo
output: {field: topic, labels: [a, b, c, d]}
"""


def fill(root: Path, records: int) -> None:
    """Make a project with so many logged requests of four weeks, one in fifty rated."""
    import sqlite3

    from tutelage.workflows.context import open_context

    root.mkdir(parents=True, exist_ok=True)
    (root / "tutelage.yaml").write_text(CONFIG, encoding="utf-8")
    ctx = open_context(root)
    ctx.store.close()
    rng = np.random.default_rng(7)
    span = 28 * 86_400
    end = int(time.time()) - 3_600
    base = sqlite3.connect(root / ".tutelage" / "store.db")
    with base:
        base.executemany(
            "INSERT INTO records (id, deployment, release, arm, user, key_name, split, group_key, "
            "messages, response, finish_reason, status, latency_ms, prompt_tokens, "
            "completion_tokens, checks, at) VALUES (?, 'big', 'r', 'stable', ?, ?, 'train', 'g', "
            "?, ?, 'stop', 200, 5.0, 20, 4, '{}', ?)",
            (_record(rng, place, end - span + place * span // records) for place in range(records)),
        )
        base.executemany(
            "INSERT INTO signals (key, record, kind, explicit, value, at) "
            "VALUES (?, ?, 'rating', 1, ?, ?)",
            (
                (f"s{place}", f"rec-{place:08d}", json.dumps({"value": float(place % 5 > 0)}),
                 "2026-01-01 00:00:00.000000")
                for place in range(0, records, 50)
            ),
        )  # fmt: skip
    base.close()


def _record(rng: np.random.Generator, place: int, at: int) -> tuple[str, ...]:
    text = " ".join(WORDS[int(i)] for i in rng.integers(0, len(WORDS), int(rng.integers(6, 14))))
    when = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime(at))
    messages = json.dumps([{"role": "user", "content": text}])
    answer = json.dumps({"topic": "abcd"[int(rng.integers(4))]})
    key = f"key{int(rng.integers(5))}"
    return (f"rec-{place:08d}", f"u{int(rng.integers(records_users(place)))}", key, messages,
            answer, when)  # fmt: skip


def records_users(place: int) -> int:
    """Return how many users there are by then: a tenth as many as requests, at least 1,000."""
    return max(1_000, place // 10)


def work(what: str, root: Path) -> dict[str, Any]:
    """Do one thing over all records, in this process, and return what it took."""
    from tutelage.core.artifact import utc_now
    from tutelage.workflows.context import open_context
    from tutelage.workflows.feedback.drift import accept, check_traffic
    from tutelage.workflows.feedback.drift_watch import look

    ctx = open_context(root)
    started = time.perf_counter()
    row: dict[str, Any] = {"table": "million", "work": what}
    if what == "check":
        accept(ctx, since="28d", now=utc_now() - timedelta(days=14))
        found = check_traffic(ctx, against="accepted", since="14d", keep=False)
        row |= {"records": sum(found.rows), "moved": found.moved}
    else:
        (stands,) = look(ctx)
        row |= {"records": stands["looked_at"], "moved": stands["moved"]}
    row["seconds"] = round(time.perf_counter() - started, 1)
    row["memory_mb"] = round(common.peak_memory_mb())
    return row


def million_rows(records: int) -> list[dict[str, Any]]:
    """Return what a check of all records and a watch over them take."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "big"
        fill(root, records)
        return [
            common.child(__file__, ["--worker", what, str(root)], threads=2)
            for what in ("look", "check")
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--records", type=int, help="logged requests [1,000,000; quick 100,000]")
    parser.add_argument("--only", choices=("watch", "million"), help="one table alone")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker[0], Path(options.worker[1]))))
        return
    rows: list[dict[str, Any]] = []
    if options.only != "million":
        if not DATA.is_dir():
            raise SystemExit("the real rows are not at shared/data/banking77 beside the checkout")
        rows += watch_rows(2, 4, 6_000) if options.quick else watch_rows(20, 20, YEAR)
    if options.only != "watch":
        rows += million_rows(options.records or (100_000 if options.quick else 1_000_000))
    quiet = [row for row in rows if row.get("change") == "none"]
    moved = [row for row in rows if row.get("change", "none") != "none"]
    big = [row for row in rows if row["table"] == "million"]
    report = {
        "name": "drift",
        "machine": common.machine(),
        "rows": rows,
        "headline": {
            "false_alarms": sum(row["alarms"] for row in quiet),
            "found": sum(row["found"] for row in moved),
            "planted": sum(row["runs"] for row in moved),
            "seconds": max((row["seconds"] for row in big), default=None),
            "memory_mb": max((row["memory_mb"] for row in big), default=None),
        },
    }
    if options.json:
        print(json.dumps(report))
        return
    for name in ("watch", "million"):
        part = [row for row in rows if row["table"] == name]
        if part:
            print(common.table(part), end="\n\n")


if __name__ == "__main__":
    main()
