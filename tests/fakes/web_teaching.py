"""Experts who disagreed, an evaluation that waits for judges, and clients who asked. No model.

It is made through the product's own functions where there are any.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.fakes.web_projects import LABELS, labelling_project, rows

from tutelage.core.artifact import describe, utc_now
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.data.version import VersionDraft, write_version
from tutelage.store.artifacts import StageRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context, register
from tutelage.workflows.data.experts import Given, submit, todo
from tutelage.workflows.data.experts_people import set_guideline
from tutelage.workflows.feedback import feedback
from tutelage.workflows.feedback.mine import mine

ITEMS = 20
DISPUTED = 3
PAIRS = 10
FORMAT = OutputFormat(field="topic", labels=LABELS)
PARCEL = "where is my parcel with the blue kettle"
ALIKE = (PARCEL, f"{PARCEL} please", f"{PARCEL} now")


def teaching_project(root: Path) -> Context:
    """Make it: anna and ben answered ITEMS items and differ on DISPUTED of them."""
    ctx = labelling_project(root, people=("anna", "ben"), items=ITEMS, overlap=2, drafts=False)
    set_guideline(ctx, "Choose what the person wants.\nA late parcel is delivery.", note="late",
                  author="anna")  # fmt: skip
    for name in ("anna", "ben"):
        for one in todo(ctx, name):
            number = int(one.text.rpartition(" ")[2])
            right = LABELS[number % len(LABELS)]
            other = LABELS[(number + 1) % len(LABELS)]
            label = other if name == "ben" and number < DISPUTED else right
            submit(ctx, Given(one.item, name, label=label, seconds=4.0 + number % 3))
    add_evaluation(ctx)
    add_traffic(ctx)
    return ctx


def add_evaluation(ctx: Context) -> None:
    """Register an evaluation whose candidates, tuned and base, wrote PAIRS different answers."""
    asked = [_example(row["text"] + " again", row["label"]) for row in rows(PAIRS)]
    draft = VersionDraft(
        {"train": [_example("an old question", LABELS[0])], "validation": [], "test": asked},
        {},
    )
    draft.clusters.update({row.id: row.id for side in draft.splits.values() for row in side})
    version = write_version(ctx.workspace.artifacts / "datasets", draft)
    where = ctx.workspace.relative(version.directory)
    dataset = register(ctx.store, describe("dataset", version.hash, where))
    folder = ctx.workspace.artifacts / "evaluations" / "made"
    folder.mkdir(parents=True)
    written = [
        {"candidate": name, "item": row.id, "text": f"{said} answer {number}", "finish": "stop",
         "sample": 0}
        for name, said in (("tuned", "a good"), ("base", "a poor"))
        for number, row in enumerate(asked)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    made = register(
        ctx.store,
        describe("evaluation", "e" * 64, ctx.workspace.relative(folder), parents=[dataset.hash],
                 meta={"primary": {"against": "base"}}),
    )  # fmt: skip
    with ctx.store.begin() as session:
        session.merge(StageRow(stage="evaluate", input_hash="x", output=made.hash, seconds=1.0))


def add_traffic(ctx: Context) -> None:
    """Keep requests of clients, three of them alike and answered wrongly, and look at them."""
    wrong = FORMAT.render("billing")
    asked = [(text, wrong) for text in ALIKE]
    asked += [(f"{row['text']} today", FORMAT.render(row["label"])) for row in rows(12)]
    with ctx.store.begin() as session:
        for number, (text, answer) in enumerate(asked):
            session.add(_record(f"r{number:02}", text, answer))
    for number in range(len(ALIKE)):
        feedback.add(ctx, {"record_id": f"r{number:02}", "rating": "down"})
    mine(ctx, budget=30, seed=7)


def _record(name: str, text: str, answer: str) -> RecordRow:
    fields: dict[str, Any] = {
        "deployment": "help-desk", "release": "r1", "arm": "stable", "split": "train",
        "group_key": "g", "finish_reason": "stop", "status": 200, "latency_ms": 1,
        "prompt_tokens": 1, "completion_tokens": 1, "checks": {},
        "at": utc_now() - timedelta(minutes=5),
    }  # fmt: skip
    turns = [{"role": "user", "content": text}]
    return RecordRow(id=name, messages=turns, response=answer, **fields)


def _example(text: str, label: str) -> Example:
    answer = Message(role="assistant", content=FORMAT.render(label))
    return Example(messages=(Message(role="user", content=text), answer), label=label)
