"""Small projects for tests of the page, filled through the product's own functions. No model.

Every function takes the folder to make the project in and gives the opened project back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from tutelage.store.annotations import DraftRow, ItemRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.data import experts_items, experts_people

LABELS = ("billing", "delivery", "returns", "account")
_ASKED = (
    ("billing", "why was I charged twice for {}"),
    ("delivery", "when does {} arrive"),
    ("returns", "how do I send {} back"),
    ("account", "I can't sign in to change {}"),
)
_THINGS = (
    "the lamp",
    "two chairs",
    "a hose",
    "order 4711",
    "the kettle",
    "a tent",
    "the desk",
    "a rug",
    "new shoes",
    "the shelf",
    "a kite",
)
CONFIG = """\
name: help-desk
task: classification
model: demo
prompt: Name the topic of the request.
output: {field: topic, labels: [billing, delivery, returns, account]}
data:
  sources: [data/*.jsonl]
  columns: {input: text, output: label}
  quality: {embedder: tfidf}
train: {tracker: none, replay: 0}
drift: {embedder: tfidf}
evaluate: {few_shot: 0}
deploy: {port: 0}
"""
TEXT_CONFIG = CONFIG.replace("task: classification", "task: qa").replace(
    "output: {field: topic, labels: [billing, delivery, returns, account]}\n", ""
)


def rows(count: int) -> list[dict[str, str]]:
    """Return `count` rows that are no two alike."""
    found = []
    for number in range(count):
        label, asked = _ASKED[number % len(_ASKED)]
        thing = _THINGS[number // len(_ASKED) % len(_THINGS)]
        found.append({"text": f"{asked.format(thing)}, number {number}", "label": label})
    return found


def empty_project(root: Path, *, config: str = CONFIG, extra: str = "") -> Context:
    """Make a project that has settings and nothing else; `extra` is added to tutelage.yaml."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "tutelage.yaml").write_text(config + extra, encoding="utf-8")
    return open_context(root)


def labelling_project(
    root: Path,
    *,
    people: Sequence[str] = ("local",),
    items: int = 24,
    overlap: int = 1,
    drafts: bool = True,
    free_text: bool = False,
    extra: str = "",
) -> Context:
    """Make a project whose items wait to be labelled by `people`, with a teacher's drafts.

    With `free_text` an answer is a text instead of one of LABELS.
    """
    ctx = empty_project(root, config=TEXT_CONFIG if free_text else CONFIG, extra=extra)
    file = root / "data" / "wanted.jsonl"
    file.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows(items)))
    experts_people.add_annotators(ctx, list(people))
    experts_people.set_guideline(ctx, "Choose what the person wants, not what they say first.")
    order = experts_items.Order(people=tuple(people), overlap=overlap, source="file", file=file)
    experts_items.assign(ctx, order)
    if drafts:
        add_drafts(ctx)
    return ctx


def add_drafts(ctx: Context) -> None:
    """Write a draft of one model for every item."""
    output = ctx.config.output.format()
    with ctx.store.begin() as session:
        for number, item in enumerate(session.scalars(select(ItemRow).order_by(ItemRow.id))):
            label = LABELS[number % len(LABELS)] if ctx.config.output.labels else None
            written = output.render(label) if label else "It is sent within two days."
            session.add(
                DraftRow(
                    item=item.id, text=written, label=label, problem=None, model="teacher",
                    prompt="0" * 12, tokens=12,
                )
            )  # fmt: skip
