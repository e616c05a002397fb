"""A classifier and a cloze from tutelage.yaml to an evaluation, a release and a served answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine_backend import EchoBackend

from tutelage.core.artifact import Artifact, describe
from tutelage.core.errors import ModelError
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.base import Decoding
from tutelage.inference.engine_auto import AutoBackend
from tutelage.inference.engine_base import Piece
from tutelage.inference.engine_llamacpp import LlamaCppBackend
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import ChatRequest
from tutelage.inference.engine_transformers import TransformersBackend
from tutelage.inference.models import locate_model
from tutelage.inference.transformers import TransformersGenerator
from tutelage.release import mlflow
from tutelage.release.bundle import get_release, manifest_of
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation.evaluate import evaluate
from tutelage.workflows.release import release as releasing
from tutelage.workflows.training.train import train

PROMPT = "Say whether the row is warm or cold, as JSON, and nothing else."
CONFIG = """\
name: signs
task: classification
model: model
prompt: {prompt}
output: {{field: family, labels: [warm, cold]}}
data: {{sources: [data/*]}}
evaluate: {{few_shot: 0}}
train:
  method: {method}
  tune: {tune}
  tracker: none
  rank: 4
  epochs: 3
  learning_rate: {rate}
"""


def row(index: int) -> Example:
    label = "warm" if index % 2 else "cold"
    turns = (
        Message(role="user", content=("+" if index % 2 else "-") * 12 + f" {index}"),
        Message(role="assistant", content=json.dumps({"family": label})),
    )
    return Example(messages=turns, label=label)


SPLITS: dict[str, list[Example]] = {
    "train": [row(n) for n in range(24)],
    "validation": [row(n) for n in range(100, 112)],
    "test": [row(n) for n in range(200, 210)],
}


@pytest.fixture
def project(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that opens a project with a frozen data set."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mlflow, "register_version", lambda *_, **__: "1")
    opened: list[Context] = []

    def make(**settings: Any) -> tuple[Context, Artifact]:
        text = CONFIG.format(prompt=PROMPT, **settings).replace("model: model", f"model: {model}")
        (tmp_path / "tutelage.yaml").write_text(text, encoding="utf-8")
        ctx = open_context(tmp_path)
        opened.append(ctx)
        clusters = {r.id: r.id for rows in SPLITS.values() for r in rows}
        version = write_version(
            ctx.workspace.artifacts / "datasets", VersionDraft(SPLITS, clusters)
        )  # type: ignore[arg-type]
        place = ctx.workspace.relative(version.directory)
        return ctx, register(ctx.store, describe("dataset", version.hash, place))

    yield make
    for ctx in opened:
        ctx.store.close()


@pytest.mark.parametrize(
    ("method", "tune", "rate"),
    [("classify", "lora", 5e-3), ("cloze", "lora", 5e-3), ("classify", "full", 1e-3)],
)
def test_from_settings_to_a_served_answer(
    project: Any, method: str, tune: str, rate: float
) -> None:
    ctx, dataset = project(method=method, tune=tune, rate=rate)
    adapter = train(ctx, dataset).artifact
    folder = ctx.path_of(adapter)
    assert adapter.meta["recipe"]["method"] == method
    assert adapter.meta["steps"] == 9  # 24 rows in steps of 8, three times
    assert "tutelage.json" in {file.name for file in folder.iterdir()}

    evaluation = evaluate(ctx, dataset, adapter).artifact
    report = ctx.path_of(evaluation)
    kept = [json.loads(line) for line in (report / "rows.jsonl").read_text().splitlines()]
    answers: dict[str, dict[str, str]] = {}
    for line in kept:
        answers.setdefault(line["candidate"], {})[line["item"]] = line["text"]
    right = {r.id: r.answer for r in SPLITS["test"]}
    assert answers["tuned"] == answers["tuned_constrained"] == right
    assert evaluation.meta["forgetting"] is not None  # measured by the language model beneath

    outcome = releasing.release(ctx, dataset, adapter, evaluation, force=True)
    manifest = manifest_of(get_release(ctx.store, outcome.artifact.meta["name"]))
    assert manifest.adapter is not None and "tutelage.json" in manifest.adapter.files

    source = locate_model(ctx.config.model, ctx.workspace.root)
    backend = TransformersBackend(TransformersGenerator(source))
    fast = EchoBackend()
    auto = AutoBackend(fast, lambda: backend)
    auto.open(None)
    assert fast.opened == [None]
    seat = auto.open(folder)
    assert fast.opened == [None]
    assert served(seat, manifest.output.json_schema) == '{"family": "warm"}'
    other = {"type": "object", "required": ["colour"]}
    with pytest.raises(RequestProblem, match="no label can be written as the JSON schema asks"):
        served(seat, other)


def served(seat: Any, schema: dict[str, Any] | None) -> str:
    """Return what the seat answers to a new row, as the gateway would ask."""
    pieces: list[Piece] = []
    turns = (
        {"role": "system", "content": PROMPT},
        {"role": "user", "content": "++++++++++++ 999"},
    )
    request = ChatRequest("signs-v1", turns, Decoding(json_schema=schema))

    def tell(piece: Piece) -> bool:
        pieces.append(piece)
        return False

    ending = seat.answer(request, tell)
    assert ending.finish_reason == "stop" and ending.usage.prompt_tokens > 0
    return "".join(piece.text for piece in pieces)


def test_llama_cpp_refuses_what_it_would_answer_as_another_model(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "tutelage.json").write_text(json.dumps({"answerer": "cloze", "settings": {}}))
    backend = LlamaCppBackend.__new__(LlamaCppBackend)
    with pytest.raises(ModelError, match="can't answer by cloze") as caught:
        backend.open(tmp_path)
    assert "transformers" in (caught.value.fix or "")
