"""The view of what is trained on: the same tokens and weights as training's own encoding."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.tiny_llama import build_tiny_model
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.training import token_view

CONFIG = """\
name: colours
task: %s
model: model
prompt: Name the colour family.
%s
data:
  sources: [data/*]
  columns: {input: text, output: label}
  quality: {embedder: tfidf}
train: {tracker: none, replay: 0, max_tokens: 160%s}
"""
LABELLED = "output: {field: family, labels: [warm, cold]}"
Opened = tuple[Context, Artifact]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def opened(tmp_path: Path, model: Path) -> Iterator[Callable[..., Opened]]:
    """Return a function that opens a project of 40 rows, one too long and one with emoji."""
    contexts = []

    def make(settings: str = "", task: str = "classification", output: str = LABELLED) -> Opened:
        (tmp_path / "data").mkdir()
        (tmp_path / "model").symlink_to(model)
        (tmp_path / "tutelage.yaml").write_text(CONFIG % (task, output, settings), "utf-8")
        texts = [f"thing {n} in {('red', 'blue')[n % 2]} no {n * 7}" for n in range(38)]
        texts += ["a very long way " * 20, "a grüner 🦊 in red"]
        rows = [{"text": one, "label": "warm" if "red" in one else "cold"} for one in texts]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / "data" / "rows.jsonl").write_text(lines, "utf-8")
        ctx = open_context(tmp_path)
        contexts.append(ctx)
        return ctx, curate(ctx).artifact

    yield make
    for ctx in contexts:
        ctx.store.close()


def test_answers_are_learned_contexts_read_and_cuts_marked(opened: Callable[..., Opened]) -> None:
    ctx, dataset = opened()
    assert token_view.find(ctx, dataset) is None
    made = token_view.make(ctx, dataset)
    rows = made.rows(count=100).rows
    assert len(rows) == made.facts["shown"] == made.facts["rows"]
    assert sum(row["tokens"] for row in rows) == made.facts["tokens"]
    assert sum(row["trained"] for row in rows) == made.facts["labelled"]
    for row in rows:
        learned = "".join(text for text, weight in row["pieces"] if weight)
        read = "".join(text for text, weight in row["pieces"] if not weight)
        assert learned in ('{"family": "warm"}<|im_end|>', '{"family": "cold"}<|im_end|>')
        assert read.startswith("<|im_start|>system\nName the colour")
        assert (row["cut"] is not None) == (row["id"] in made.facts["shortened"])
    told = token_view.sentence(made.facts)
    assert "tokens in" in told and "are learned" in told
    assert token_view.find(ctx, dataset) == made


def test_characters_of_several_tokens_are_spelled_together(opened: Callable[..., Opened]) -> None:
    ctx, dataset = opened()
    rows = token_view.make(ctx, dataset).rows(count=100).rows
    pieces = [text for row in rows for text, _ in row["pieces"]]
    assert all("\ufffd" not in text for text in pieces)


def test_a_classifier_learns_the_label(opened: Callable[..., Opened]) -> None:
    ctx, dataset = opened(", method: classify")
    made = token_view.make(ctx, dataset)
    assert made.facts["learns"] == "labels" and "their labels learned" in token_view.sentence(
        made.facts
    )
    assert {tuple(row["pieces"][-1]) for row in made.rows(count=100).rows} == {
        ("warm", 1.0), ("cold", 1.0),
    }  # fmt: skip


def test_a_service_has_a_tokenizer_of_its_own(opened: Callable[..., Opened]) -> None:
    ctx, dataset = opened(", method: hosted")
    with pytest.raises(DataError, match="tokenizer of its own"):
        token_view.make(ctx, dataset)


def test_the_command_prints_the_coverage(opened: Callable[..., Opened]) -> None:
    ctx, dataset = opened()
    root = str(ctx.workspace.root)
    said = CliRunner().invoke(app, ["data", "tokens", dataset.short, "-p", root, "--json"])
    found = json.loads(said.stdout)
    assert found["dataset"] == dataset.short and len(found["examples"]) == 3
    said = CliRunner().invoke(app, ["data", "tokens", "-p", root, "--rows", "1"])
    assert said.exit_code == 0 and "are learned" in said.stdout
