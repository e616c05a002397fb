"""A whole turn with the real parts on a tiny model: corrected answers in, a new release out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model
from tests.unit.workflows.test_improve import ASKED, ROWS, THINGS

from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.improve import improve as loop
from tutelage.workflows.improve import improve_turns as kept
from tutelage.workflows.release import rollout as rollouts
from tutelage.workflows.run import run

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing. It is warm or cold, nothing else.
output: {field: family, labels: [warm, cold]}
data:
  sources: [data/*]
  columns: {input: text, output: label}
  quality: {embedder: tfidf}
  splits: {train: 0.5, validation: 0.3, test: 0.2}
train: {tracker: none, method: lora, epochs: 1, rank: 4, replay: 0, force: true}
evaluate: {few_shot: 0, latency_rows: 0, answers: list, criteria: [{at_least: {value: 0}}]}
deploy: {strategy: canary, canary: [100]}
improve: {new_rows: 3, unsure: canary, review: {count: 0, edits: all}}
"""


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    """A project whose first release serves, and ten requests that users corrected."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_tiny_model(tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = [*ROWS, *((f"a picture of {t} in {s}", "warm") for t in THINGS for s in ("oil", "ink"))]
    lines = "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows)
    (tmp_path / "data" / "rows.jsonl").write_text(lines)
    (tmp_path / "tutelage.yaml").write_text(CONFIG)
    opened = open_context(tmp_path)
    summary = run(opened, force=True)
    assert summary.release is not None
    rollouts.switch(opened, str(summary.release.artifact.meta["name"]))
    with opened.store.begin() as session:
        for number, text in enumerate(ASKED):
            session.add(_record(number, text))
            session.add(_edit(number))
    yield opened
    opened.store.close()


def _record(number: int, text: str) -> RecordRow:
    return RecordRow(
        id=f"r{number}", deployment="colours", release="x" * 64, arm="stable", split="train",
        group_key=f"g{number}", messages=[{"role": "user", "content": text}],
        response='{"family": "warm"}', finish_reason="stop", status=200, latency_ms=1.0,
        prompt_tokens=1, completion_tokens=1, checks={},
    )  # fmt: skip


def _edit(number: int) -> SignalRow:
    return SignalRow(
        key=f"k{number}", record=f"r{number}", kind="edit", explicit=True, author="user",
        value={"value": json.dumps({"family": "cold"})},
    )  # fmt: skip


def test_from_corrected_answers_to_a_promoted_release(ctx: Context) -> None:
    """Every state is the real one; the canary waits, and a person promotes it."""
    before = rollouts.status(ctx)["stable"]
    turn = loop.improve(ctx)
    told = {row["from_state"]: row for row in kept.journal(ctx.store, turn.id)}
    assert turn.state == "canary", told
    assert turn.facts["new"]["train"] == len(ASKED)
    assert "validation loss after" in told["start"]["reason"]
    assert set(told["start"]["evidence"]["validation_loss"]) == {"base", "adapter"}
    assert told["gate"]["evidence"]["old"]["rows"] > 0
    assert turn.waits is not None
    said = len(kept.journal(ctx.store, turn.id))
    assert loop.improve(ctx).state == "canary"
    assert len(kept.journal(ctx.store, turn.id)) == said, "it waits, and says so once"
    rollouts.promote(ctx)
    done = loop.improve(ctx)
    assert done.state == "done"
    status = rollouts.status(ctx)
    assert status["stable"] == done.facts["release"] != before
    assert loop.sentence(done) == f"turn {turn.id}: {done.facts['release']} answers now"
    with pytest.raises(Exception, match="no turn of the loop is under way"):
        loop.resume(ctx)
