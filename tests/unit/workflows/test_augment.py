"""A teacher over the real protocol: budget, resume, caps, and never a held-out row in a request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.openai_backend import FakeBackend

from tutelage.core.errors import ConfigError, DataError, ModelError
from tutelage.core.example import Example
from tutelage.data.version import load_version
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.augment import augment, augmented_rows, batches, remove

CONFIG = """\
name: bank
task: classification
model: demo
prompt: Name the topic of the customer's question.
output: {labels: [card, fee, account]}
data: {sources: [data/*], columns: {input: text, output: label}}
teacher: {base_url: "%s/v1", model: base}
augment: {tokens: %d, ratio: %g}
"""
OPENINGS = [
    "Hello there",
    "Good morning",
    "Please help",
    "Quick question",
    "Urgent",
    "Sorry to bother you",
]
WORDS = [
    "salary",
    "mortgage",
    "pension",
    "overdraft",
    "passport",
    "branch",
    "cashback",
    "refund",
    "invoice",
    "loyalty",
    "exchange",
    "statement",
    "deposit",
    "interest",
    "currency",
    "weekend",
    "holiday",
    "landlord",
    "cheque",
    "mobile",
    "terminal",
    "limit",
    "verification",
    "signature",
    "address",
    "beneficiary",
    "instalment",
    "receipt",
    "voucher",
    "balance",
]


def sources() -> str:
    """Return 60 rows that share few words."""
    rows = []
    for number in range(60):
        one, two, three = (WORDS[(number * step + step) % len(WORDS)] for step in (1, 7, 11))
        label = ("card", "fee", "account")[number % 3]
        text = f"{OPENINGS[number % 6]} regarding {one} {number}{two} and the {three}{number}x"
        rows.append(json.dumps({"text": text, "label": label}))
    return "\n".join(rows) + "\n"


def rewording(body: dict[str, Any]) -> str:
    """Return two rewordings that share few letters with what was asked."""
    text = json.loads(body["messages"][-1]["content"])["text"]
    words = text.split()[::-1]
    first = " ".join(f"{word}," for word in words)
    return json.dumps(
        {"texts": [f"I wonder: {first} could you explain?", f"About {first} thanks."]}
    )


@pytest.fixture
def teacher() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        running.script.by_model["*"] = {"text": rewording}
        yield running


def project(root: Path, url: str, tokens: int = 100_000, ratio: float = 1.0) -> Context:
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "data" / "rows.jsonl").write_text(sources())
    (root / "tutelage.yaml").write_text(CONFIG % (url, tokens, ratio))
    return open_context(root)


@pytest.fixture
def ctx(tmp_path: Path, teacher: FakeBackend) -> Iterator[Context]:
    opened = project(tmp_path, teacher.url)
    curate(opened)
    yield opened
    opened.store.close()


def rows(ctx: Context, split: str) -> list[Example]:
    version = load_version(ctx.path_of(curate(ctx).artifact))
    return version.rows(split)  # type: ignore[arg-type]


def test_rows_join_the_train_split_and_nothing_else_moves(
    ctx: Context, teacher: FakeBackend
) -> None:
    before = {split: rows(ctx, split) for split in ("train", "validation", "test")}
    done = augment(ctx, "paraphrase", 20)
    assert done.kept == 20
    assert done.tokens == 15 * len(teacher.script.seen)
    made = [row for row in rows(ctx, "train") if row.origin.kind == "augmented"]
    assert len(made) == 20
    parents = {row.id: row for row in before["train"]}
    for row in made:
        (parent,) = row.origin.parents
        assert (row.label, row.answer) == (parents[parent].label, parents[parent].answer)
        assert row.origin.author == "base"
    for split in ("validation", "test"):
        assert [r.id for r in rows(ctx, split)] == [r.id for r in before[split]]


def test_no_held_out_row_is_ever_sent(ctx: Context, teacher: FakeBackend) -> None:
    held_out = [row.input_text for split in ("validation", "test") for row in rows(ctx, split)]
    assert len(held_out) > 10
    for method in ("paraphrase", "back_translation", "synthetic"):
        teacher.script.by_model["*"] = {"text": rewording if method == "paraphrase" else "{}"}
        augment(ctx, method, 40)
        curate(ctx)
    sent = json.dumps(teacher.script.seen)
    assert len(teacher.script.seen) > 30
    assert [text for text in held_out if json.dumps(text)[1:-1] in sent] == []


def test_augmented_rows_are_not_augmented_again(ctx: Context, teacher: FakeBackend) -> None:
    augment(ctx, "paraphrase", 10)
    curate(ctx)
    first = len(teacher.script.seen)
    augment(ctx, "paraphrase", 10)
    assert len(teacher.script.seen) == first  # the journal answers; nothing new is asked
    assert len(batches(ctx)) == 1


def test_the_cap_holds(tmp_path: Path, teacher: FakeBackend) -> None:
    ctx = project(tmp_path, teacher.url, ratio=0.25)
    curate(ctx)
    train = len(rows(ctx, "train"))
    assert augment(ctx, "paraphrase", 500).kept <= train // 4
    ctx.store.close()


def test_the_budget_stops_it_and_a_larger_one_goes_on(tmp_path: Path, teacher: FakeBackend) -> None:
    ctx = project(tmp_path, teacher.url, tokens=100)
    curate(ctx)
    first = augment(ctx, "paraphrase", 40)
    asked = len(teacher.script.seen)
    assert first.budget_spent and 0 < first.kept < 40
    assert augment(ctx, "paraphrase", 40).kept == first.kept
    assert len(teacher.script.seen) == asked
    ctx.store.close()
    ctx = project(tmp_path, teacher.url, tokens=100_000)
    more = augment(ctx, "paraphrase", 40)
    assert more.batch == first.batch and more.kept > first.kept
    keys = [json.dumps(body, sort_keys=True) for body in teacher.script.seen]
    assert len(keys) == len(set(keys))
    ctx.store.close()


def test_what_fails_is_told_and_asked_again(ctx: Context, teacher: FakeBackend) -> None:
    teacher.script.by_model["*"] = {"when": {"number": {}}, "status": 400}
    with pytest.raises(ModelError, match="answered none of"):
        augment(ctx, "paraphrase", 5)
    teacher.script.by_model["*"] = {"text": rewording}
    assert augment(ctx, "paraphrase", 5).kept == 5


def test_refusals_and_noise_become_reasons_not_rows(ctx: Context, teacher: FakeBackend) -> None:
    teacher.script.by_model["*"] = {"text": "I'm sorry, I can't help with that."}
    done = augment(ctx, "paraphrase", 10)
    assert (done.kept, done.reasons) == (0, {})
    assert done.unread == len(teacher.script.seen) > 0
    copy = {"text": lambda body: json.dumps({"texts": [json.loads(
        body["messages"][-1]["content"])["text"]]})}  # fmt: skip
    teacher.script.by_model["*"] = copy
    (ctx.workspace.root / "tutelage.yaml").write_text(
        CONFIG.replace("augment: {", "augment: {per_row: 1, ") % (teacher.url, 100_000, 1)
    )
    again = open_context(ctx.workspace.root)
    done = augment(again, "paraphrase", 10)
    assert done.kept == 0 and set(done.reasons) == {"D11-D01"}
    again.store.close()


def test_the_judge_decides_where_one_is_asked_for(tmp_path: Path, teacher: FakeBackend) -> None:
    def judged(body: dict[str, Any]) -> str:
        data = json.loads(body["messages"][-1]["content"])
        if "input" not in data:
            return rewording(body)
        return json.dumps({"score": 0.9 if data["input"].startswith("I wonder") else 0.1})

    teacher.script.by_model["*"] = {"text": judged}
    ctx = project(tmp_path, teacher.url)
    config = (
        (tmp_path / "tutelage.yaml").read_text().replace("augment: {", "augment: {judge: 0.5, ")
    )
    (tmp_path / "tutelage.yaml").write_text(
        config + f'judge: {{base_url: "{teacher.url}/v1", model: base}}\n'
    )
    ctx.store.close()
    ctx = open_context(tmp_path)
    curate(ctx)
    done = augment(ctx, "paraphrase", 20)
    assert done.kept > 0 and done.reasons["D11-J01"] > 0
    assert all(row.input_text.startswith("I wonder") for row in augmented_rows(ctx))
    ctx.store.close()


def test_a_batch_can_be_taken_out(ctx: Context, teacher: FakeBackend) -> None:
    done = augment(ctx, "paraphrase", 6)
    assert [entry["rows"] for entry in batches(ctx)] == [6]
    assert remove(ctx, done.batch) == 6
    assert batches(ctx) == augmented_rows(ctx) == []
    assert not [r for r in rows(ctx, "train") if r.origin.kind == "augmented"]
    with pytest.raises(DataError, match="no batch"):
        remove(ctx, done.batch)


def test_answers_of_experts_get_requests(ctx: Context, teacher: FakeBackend) -> None:
    config = CONFIG.replace("task: classification", "task: generation")
    config = config.replace("output: {labels: [card, fee, account]}\n", "")
    (ctx.workspace.root / "tutelage.yaml").write_text(config % (teacher.url, 100_000, 1))
    again = open_context(ctx.workspace.root)
    curate(again)
    texts = ctx.workspace.root / "answers.txt"
    texts.write_text("Block the card in the app at once.\n\nA fee of 2 % is taken abroad.\n")

    def requests(body: dict[str, Any]) -> str:
        answer = json.loads(body["messages"][-1]["content"])["answer"]
        return json.dumps({"requests": [f"What leads to this: {answer[:20]}?", "Tell me more, do"]})

    teacher.script.by_model["*"] = {"text": requests}
    done = augment(again, "instruction", 4, texts)
    assert done.kept >= 2
    assert {row.answer for row in augmented_rows(again)} <= set(texts.read_text().splitlines())
    assert all(row.origin.parents == () for row in augmented_rows(again))
    again.store.close()


def test_without_a_teacher_it_says_what_to_add(tmp_path: Path, teacher: FakeBackend) -> None:
    ctx = project(tmp_path, teacher.url)
    config = (tmp_path / "tutelage.yaml").read_text()
    (tmp_path / "tutelage.yaml").write_text(config.replace("teacher:", "judge:"))
    ctx.store.close()
    ctx = open_context(tmp_path)
    with pytest.raises(ConfigError, match="names no teacher"):
        augment(ctx)
    ctx.store.close()
    ctx = project(tmp_path, teacher.url)
    with pytest.raises(DataError, match="no dataset version yet"):
        augment(ctx)
    with pytest.raises(ConfigError, match="'paraphrase'"):
        curate(ctx)
        augment(ctx, "parafrase")
    ctx.store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from tutelage.data.augment import job
from tutelage.workflows.context import open_context
from tutelage.workflows.data.augment import augment

add = job.Journal.add
def dying(self, *arguments):
    add(self, *arguments)
    if len(self.answers) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
job.Journal.add = dying
augment(open_context(Path(sys.argv[1])), "paraphrase", 20)
"""


def test_a_killed_job_pays_for_no_answer_twice(ctx: Context, teacher: FakeBackend) -> None:
    root = str(ctx.workspace.root)
    done = subprocess.run([sys.executable, "-c", KILLED, root, "7"], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    finished = augment(ctx, "paraphrase", 20)
    assert finished.kept == 20
    assert finished.tokens == 15 * len(
        {json.dumps(body, sort_keys=True) for body in teacher.script.seen}
    )


@pytest.mark.model
def test_the_embedded_model_can_be_the_teacher(tmp_path: Path) -> None:
    from tutelage.workflows.serving.serve import Serving

    ctx = project(tmp_path, "http://127.0.0.1:1")
    text = (tmp_path / "tutelage.yaml").read_text()
    with Serving(ctx) as serving:
        served = text.replace("http://127.0.0.1:1/v1", f"{serving.base_url}/v1")
        (tmp_path / "tutelage.yaml").write_text(served.replace("model: base", "model: bank"))
        again = open_context(tmp_path)
        curate(again)
        done = augment(again, "paraphrase", 2)
        assert done.failed == 0
        assert done.tokens > 0
        assert done.kept + sum(done.reasons.values()) + done.unread > 0
        again.store.close()
    ctx.store.close()
