"""What the checks of live traffic cost, and what the watch over drift sees and how often it errs.

- cost: microseconds of one thread a request, both sides checked, by what the texts are like and
  what is on. A label is what a classifier answers, a reply what an assistant does.
- stream: microseconds of a streamed reply under blocking checks, a piece at a time.
- drift: golden rows and live values drawn at random; a run counts as found when any of its live
  values raises the alarm. `same`: nothing changed, so every alarm is false.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import common
from tutelage.core.config_guards import LiveGuards
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat
from tutelage.serving.guards.base import ActiveGuard, GuardContext, build_guards
from tutelage.serving.guards.checking import Checking, Holdback
from tutelage.serving.guards.drift import LabelSeries, NumberSeries, Watch
from tutelage.serving.guards.monitor import Sight
from tutelage.serving.guards.window import Window

RUN_LENGTH, SERIES, INDEX = 10_000, 5, 0.1  # the defaults, with all five series watched
LABELS = OutputFormat("topic", ("billing", "card", "cash", "other"))
NOTE = "I was charged twice for one payment on 3 May and would like the second one back, please. "
REPLY = "Thank you for telling us. The second payment was cancelled and is back within five days. "
SETTINGS: dict[str, dict[str, Any]] = {
    "off": {"schema": "off", "content": "off", "statistics": "off"},
    "as it comes": {},
    "statistics off": {"statistics": "off"},
    "identifiers in requests too": {"content": {"request": {"pii": "flag"}}},
    "names, places, dates, e-mail and phone in requests too": {
        "content": {
            "request": {"pii": "flag"},
            "kinds": ["name", "place", "date", "email", "phone"],
        }
    },
    "everything blocks": {"schema": "block", "content": "block", "statistics": "block"},
}
TEXTS: dict[str, tuple[str, str, OutputFormat]] = {
    "85 characters, a label": (NOTE, '{"topic": "card"}', LABELS),
    "85 characters, a reply of 520": (NOTE, REPLY * 6, OutputFormat()),
    "1,700 characters, a reply of 520": (NOTE * 20, REPLY * 6, OutputFormat()),
}


def guards_for(name: str, output: OutputFormat) -> tuple[ActiveGuard, ...]:
    """Return the guards of a setting, with a golden window of texts like those that are sent."""
    answers = [LABELS.render("card"), LABELS.render("cash")] * 50
    replies = [REPLY * (1 + i % 8) for i in range(100)]
    window = Window.of(
        [NOTE * (1 + i % 24) for i in range(100)], answers if output.field else replies, output
    )
    context = GuardContext(output, output.schema(), ("<|im_start|>", "<|im_end|>"), window=window)
    return build_guards(LiveGuards.model_validate(SETTINGS[name]), context)


def microseconds(work: Callable[[], object], seconds: float) -> float:
    """Return the median over ten rounds of the processor time that one call takes."""
    work()
    started = time.process_time()
    work()
    times = max(1, int(seconds / 10 / max(1e-6, time.process_time() - started)))
    rounds = []
    for _ in range(10):
        started = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - started) / times * 1e6)
    return float(np.median(rounds))


def cost_rows(seconds: float) -> list[dict[str, Any]]:
    """Return what each setting costs a request."""
    rows = []
    for name in SETTINGS:
        row: dict[str, Any] = {"table": "cost", "checks": name}
        for texts, (request, answer, output) in TEXTS.items():
            guards = guards_for(name, output)
            asked = (Message(role="user", content=request),)

            def work() -> None:
                checking = Checking(guards, asked, _unheard)  # noqa: B023 - called here alone
                checking.request_now()
                checking.answer_now(answer, "stop")  # noqa: B023

            row[texts] = round(microseconds(work, seconds), 1)
        rows.append(row)
    asked = (Message(role="user", content=NOTE),)
    kept = microseconds(lambda: Sight.of(asked, REPLY, labels=False), seconds)
    rows.append({"table": "cost", "checks": "kept for the watch over drift",
                 next(iter(TEXTS)): round(kept, 1)})  # fmt: skip
    return rows


def stream_rows(seconds: float) -> list[dict[str, Any]]:
    """Return what a reply of 2,080 characters costs that comes in pieces of 5."""
    asked = (Message(role="user", content=NOTE),)
    pieces = [(REPLY * 24)[i : i + 5] for i in range(0, 24 * len(REPLY), 5)]
    rows = []
    for name in ("as it comes", "everything blocks", "identifiers block"):
        SETTINGS.setdefault("identifiers block", {"content": {"answer": {"pii": "block"}}})
        guards = guards_for(name, OutputFormat())
        if name == "everything blocks":
            guards = tuple(guard for guard in guards if guard.name == "content")
        late = 0

        def work() -> None:
            nonlocal late
            checking = Checking(guards, asked, _unheard)  # noqa: B023
            hold = Holdback(guards, checking)  # noqa: B023
            sent = late = 0
            for i, piece in enumerate(pieces):
                sent += len(hold.push(piece)[0])
                late = max(late, (i + 1) * 5 - sent)
            checking.answer_now(REPLY * 24, "stop")
            hold.rest()

        cost = microseconds(work, seconds)
        each = round(cost / len(pieces), 2)
        rows.append(
            {
                "table": "stream",
                "checks": name,
                "us_a_stream": round(cost),
                "us_a_piece": each,
                "characters_late": late,
            }
        )
    return rows


def _unheard(name: str, action: str) -> None:
    return None


def drift_rows(runs: int, same: int, values: int, seed: int) -> list[dict[str, Any]]:
    """Return what the watch finds of lengths and labels that change by so much."""
    rows = []
    for golden in (50, 200, 500):
        for shift in (0.0, 0.5, 1.0):
            count = runs if shift else same
            found = [_length_run(golden, shift, values, seed + i) for i in range(count)]
            change = f"lengths x {np.exp(0.5 * shift):.2f}" if shift else "same lengths"
            rows.append(_drift_row(golden, change, found, values))
        for shift in (0.0, 0.2, 0.4):
            count = runs if shift else same
            found = [_label_run(golden, shift, values, seed + i) for i in range(count)]
            change = f"a label from 25 to {25 + 75 * shift:.0f} %" if shift else "same labels"
            rows.append(_drift_row(golden, change, found, values))
    return rows


def _drift_row(golden: int, change: str, found: list[int | None], values: int) -> dict[str, Any]:
    hits = [place for place in found if place is not None]
    return {
        "table": "drift",
        "golden_rows": golden,
        "change": change,
        "runs": len(found),
        "alarm_%": round(100 * len(hits) / len(found), 1),
        "after_median": float(np.median(hits)) if hits else "",
        "values": values,
    }


def _watch(series: NumberSeries | LabelSeries) -> Watch:
    return Watch("bench", series, float(RUN_LENGTH * SERIES), INDEX)


def _length_run(golden: int, shift: float, values: int, seed: int) -> int | None:
    """Return after how many values the alarm came: log-normal lengths, moved by `shift` sigma."""
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.normal(5, 0.5, golden)).astype(int).tolist()
    live = np.exp(rng.normal(5 + 0.5 * shift, 0.5, values)).astype(int).tolist()
    return _first(_watch(NumberSeries(rows, rng, 200)), live)


def _label_run(golden: int, shift: float, values: int, seed: int) -> int | None:
    """Return after how many values the alarm came: four labels, one of them `shift` likelier."""
    rng = np.random.default_rng(seed)
    shares = np.full(4, 0.25)
    moved = shares * (1 - shift)
    moved[0] += shift
    rows = Counter(map(str, rng.choice(4, golden, p=shares)))
    live = [str(label) for label in rng.choice(4, values, p=moved)]
    return _first(_watch(LabelSeries(rows, rng, 200)), live)


def _first(watch: Watch, live: list[Any]) -> int | None:
    for place, value in enumerate(live, 1):
        change = watch.add(value)
        if change is not None and change.drifted:
            return place
    return None


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that the documentation quotes."""
    usual = next(row for row in rows if row.get("checks") == "as it comes")
    texts = list(TEXTS)
    found = {
        "us_a_request": usual[texts[0]],
        "us_a_request_with_a_reply": usual[texts[1]],
        "us_a_long_request": usual[texts[2]],
    }
    same = [r for r in rows if r["table"] == "drift" and r["change"].startswith("same")]
    alarms = sum(row["alarm_%"] * row["runs"] for row in same) / sum(row["runs"] for row in same)
    found["false_drift_alarms_%"] = round(alarms, 2)
    for row in rows:
        if row["table"] == "drift" and row["golden_rows"] == 200 and "same" not in row["change"]:
            found[f"{row['change']}, 200 rows, found_%"] = row["alarm_%"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="shorter rounds and fewer runs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seconds = 0.3 if options.quick else 2.0
    runs, same, values = (10, 20, 600) if options.quick else (100, 400, 1000)
    rows = cost_rows(seconds) + stream_rows(seconds)
    rows += drift_rows(runs, same, values, options.seed)
    report = {"name": "guards", "machine": common.machine(), "rows": rows,
              "headline": headline(rows)}  # fmt: skip
    if options.json:
        print(json.dumps(report))
        return
    for table in ("cost", "stream", "drift"):
        shown = [{k: v for k, v in row.items() if k != "table"} for row in rows
                 if row["table"] == table]  # fmt: skip
        print(f"{common.table(shown)}\n")
    print("\n".join(f"{key} {value}" for key, value in report["headline"].items()))


if __name__ == "__main__":
    main()
