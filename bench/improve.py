"""One real turn of `improve` on the demo: logs of a served release in, a canary under way out.

The embedded model (SmolLM2-135M) is tuned with LoRA, twice: the first release as `tutelage run`
makes it, which is not counted, and the turn's, which is. An oracle answers for the expert. The
figure is the seconds of work from mining to the canary's start. There is no smaller version:
`--quick` is the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common
from tutelage.core.events import Event
from tutelage.core.workspace import CONFIG_NAME
from tutelage.workflows.context import open_context
from tutelage.workflows.data.experts import Given, submit, todo
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.demo.demo import demo_rows, write_demo
from tutelage.workflows.improve import improve as loop
from tutelage.workflows.improve import improve_turns as kept
from tutelage.workflows.memory import PeakMemory
from tutelage.workflows.release import rollout as rollouts
from tutelage.workflows.run import run
from tutelage.workflows.serving.serve import Serving
from tutelage.workflows.serving.traffic import give_feedback, send

REQUESTS = 240
SETTINGS = "\nimprove: {new_rows: 10, unsure: canary, review: {count: 40, edits: all}}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="the same: there is no smaller one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder))
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(report["rows"]))
    print(report["headline"])


def measure(folder: Path) -> dict[str, Any]:
    """Return the report."""

    def tell(event: Event) -> None:
        if event.kind in ("done", "note", "warning") and event.message:
            print(f"{time.monotonic() - began:6.0f} s  {event.message}", file=sys.stderr)

    began = time.monotonic()
    write_demo(folder, port=0)
    config = folder / CONFIG_NAME
    config.write_text(config.read_text() + SETTINGS)
    ctx = open_context(folder, tell)
    first = run(ctx, force=True)
    assert first.release is not None
    name = str(first.release.artifact.meta["name"])
    rollouts.switch(ctx, name)
    add_annotators(ctx, ["oracle"])
    known = set(demo_rows())
    truth = {text: label for text, label in demo_rows(per_chapter=60, seed=11)
             if (text, label) not in known}  # fmt: skip
    output = ctx.config.output.format()
    with Serving(ctx) as serving:
        replies = send(serving.base_url, ctx.config.name, list(truth)[:REQUESTS])
        notes = []
        for reply in replies[::4]:
            right = output.parse(reply.answer).label == truth[reply.text]
            note: dict[str, Any] = {"response_id": reply.record, "rating": int(right)}
            notes.append(note if right else {**note, "edit": output.render(truth[reply.text])})
        give_feedback(serving.base_url, notes)
        with PeakMemory() as memory:
            turn = loop.improve(ctx)
            for shown in todo(ctx, "oracle"):
                submit(ctx, Given(shown.item, "oracle", label=truth[shown.text]))
            turn = loop.improve(ctx)
        status = rollouts.status(ctx)
    journal = kept.journal(ctx.store, turn.id)
    rows = [
        {"state": row["from_state"] or "begins", "seconds": row["seconds"], "why": row["reason"]}
        for row in journal
    ]
    ctx.store.close()
    return {
        "name": "improve",
        "machine": common.machine(),
        "rows": rows,
        "ended": turn.state,
        "rollout": status["sentence"],
        "headline": {
            "minutes": round(turn.seconds / 60, 2),
            "reached_canary": turn.state == "canary",
            "peak_mb": round(memory.peak_mb),
            "new_rows": sum(turn.facts.get("new", {}).values()),
        },
    }


if __name__ == "__main__":
    main()
