"""A filled project without a model: every page has something to show, in a few seconds.

The model's folder holds no weights that could be loaded; recorded answers stand in for it. The
rest is what the product wrote: dataset, evaluation, release, and the demo's filling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fakes.evaluation_engine import FakeEngine

from tutelage.core.artifact import Artifact, content_hash, describe
from tutelage.core.output import OutputFormat
from tutelage.data.version import load_version
from tutelage.store.artifacts import StageRow
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.curate import curate
from tutelage.workflows.demo import demo_site
from tutelage.workflows.evaluation.evaluate import evaluate
from tutelage.workflows.evaluation.evaluate_engines import LoadedEngine
from tutelage.workflows.release.release import release
from tutelage.workflows.release.rollout import switch

LABELS = ("billing", "delivery", "returns", "account")
_ASKED = {
    "billing": ("why was I charged twice for {}", "where is the invoice for {}"),
    "delivery": ("when does {} arrive", "the parcel with {} is late"),
    "returns": ("how do I send {} back", "{} came broken, I want my money back"),
    "account": ("I can't sign in to change {}", "delete my account and {}"),
}
_THINGS = ("the red lamp", "two chairs", "a garden hose", "my order 4711", "the blue kettle",
           "a tent", "six plates", "the desk", "a wool rug", "new shoes", "the oak shelf",
           "a bicycle")  # fmt: skip
CONFIG = """\
name: help-desk
task: classification
model: model
prompt: |
  Name the topic of the request. Answer with JSON only, like {{"topic": "billing"}}.
output: {{field: topic, labels: {labels}}}
data:
  sources: [data/*.jsonl]
  columns: {{input: text, output: label}}
  quality: {{embedder: tfidf}}
  splits: {{train: 0.5, validation: 0.15, test: 0.35}}
train: {{tracker: none, replay: 0}}
drift: {{embedder: tfidf}}
evaluate: {{few_shot: 0, latency_rows: 0}}
deploy: {{port: 0}}
prices: {{hour: 0.4}}
"""

Rows = Sequence[tuple[str, str]]


def rows() -> list[tuple[str, str]]:
    """Return (text, label) rows, 24 of each label."""
    return [(ask.format(thing), label) for label in LABELS for ask in _ASKED[label]
            for thing in _THINGS]  # fmt: skip


def finished(
    root: Path, *, data: Rows | None = None, answer: Callable[[str], str] = lambda text: text
) -> Context:
    """Return an opened project with a dataset, an evaluated adapter, and a release that serves.

    `answer` changes what the model writes.
    """
    (root / "data").mkdir(parents=True)
    used = data or rows()
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in used)
    (root / "data" / "rows.jsonl").write_text(lines, encoding="utf-8")
    (root / "tutelage.yaml").write_text(CONFIG.format(labels=json.dumps(list(LABELS))))
    _model(root / "model")
    ctx = open_context(root)
    dataset = curate(ctx).artifact
    adapter = _adapter(ctx, dataset)
    engine = FakeEngine(*_answers(ctx, dataset, answer))
    evaluation = evaluate(
        ctx, dataset, adapter,
        open_engine=lambda source, size: LoadedEngine(engine, lambda text: len(text.split())),
    ).artifact  # fmt: skip
    made = release(ctx, dataset, adapter, evaluation, force=True).artifact
    switch(ctx, str(made.meta["name"]))
    return ctx


def filled(root: Path, *, data: Rows | None = None) -> Context:
    """Return the same project with people, traffic, rollouts and all else filled in.

    Raises AssertionError if a part of the filling failed.
    """
    ctx = finished(root, data=data)
    problems = demo_site.fill(ctx)
    assert not problems, problems
    return ctx


def _model(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"no weights")


def _adapter(ctx: Context, dataset: Artifact) -> Artifact:
    folder = ctx.workspace.artifacts / "adapters" / "aaaaaaaaaaaa"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(b"no weights either")
    made = describe("adapter", "a" * 64, ctx.workspace.relative(folder), parents=[dataset.hash])
    with ctx.store.begin() as session:
        session.merge(StageRow(stage="train", input_hash="", output=made.hash, seconds=12.0))
    return register(ctx.store, made)


def _answers(
    ctx: Context, dataset: Artifact, answer: Callable[[str], str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what base and tuned model say of each test row: some and nearly all are right."""
    form = OutputFormat(field="topic", labels=LABELS)
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for row in load_version(ctx.path_of(dataset)).rows("test"):
        draw = int(content_hash(row.input_text)[:4], 16) % 100
        wrong = LABELS[(LABELS.index(row.label or LABELS[0]) + 1) % len(LABELS)]
        for said, share in zip(found, (45, 92), strict=True):
            said[row.input_text] = answer(form.render((row.label or "") if draw < share else wrong))
    return found
