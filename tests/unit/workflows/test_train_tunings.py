"""`tutelage train` with methods by name: what lands on disk, and one sentence for what can't be."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model
from typer.testing import CliRunner

from tutelage.cli.main import app

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing. It is warm or cold, nothing else.
output: {field: family, labels: [warm, cold]}
data: {sources: [data/*]}
train: {tracker: none, epochs: 1, force: true, SETTINGS}
"""
WORDS = ("lamp", "stone", "river", "cloud", "leaf", "book", "chair", "fire", "snow", "bread")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("project")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_tiny_model(folder / "model")
    rows = []
    for index in range(56):
        label = "warm" if index % 2 else "cold"
        said = " ".join(WORDS[(index * step + step) % len(WORDS)] for step in (1, 3, 5, 9, 11))
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": f"{index} {said}"},
                    {"role": "assistant", "content": json.dumps({"family": label})},
                ],
                "label": label,
            }
        )
    (folder / "data").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "data" / "rows.jsonl").write_text(text, "utf-8")
    return folder


def train(project: Path, settings: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the JSON document of `tutelage train`."""
    text = CONFIG.replace("SETTINGS", settings)
    (project / "tutelage.yaml").write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["train", "--json", "--project", str(project)])
    document: dict[str, Any] = json.loads(done.stdout)
    return done.exit_code, document


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ("method: DoRA", {"adapter_config.json", "adapter_model.safetensors"}),
        ("method: loha, rank: 4", {"adapter_config.json", "adapter_model.safetensors"}),
        (
            "method: full, mixout: 0.5, layer_decay: 0.9, target_modules: [layers.1]",
            {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"},
        ),
    ],
)
def test_a_method_is_trained_by_its_name(project: Path, settings: str, files: set[str]) -> None:
    code, document = train(project, settings)
    assert code == 0
    folder = Path(document["path"])
    assert files <= {file.name for file in folder.iterdir()}
    assert document["prefix"]["shared"] is True
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import TransformersGenerator

    generator = TransformersGenerator(locate_model("model", project))
    base = generator.mean_nll(["warm and cold"])
    generator.set_adapter(folder)
    assert generator.mean_nll(["warm and cold"]) != base
    generator.set_adapter(None)
    assert generator.mean_nll(["warm and cold"]) == base


@pytest.mark.parametrize(
    ("settings", "what", "fix"),
    [
        ("method: lorra", "'lorra' is not one of tutelage's methods", "Did you mean 'lora'?"),
        ("method: prefix_tuning", "can't share prefixes with other rows", "Take lora, dora"),
        ("method: lora, mixout: 0.5", "mixout has no meaning for 'lora'", "train.method: full"),
        ("peft: {use_dorra: true}", "has no field 'use_dorra'", "Did you mean 'use_dora'?"),
        ("method: full, target_modules: [q_prj]", "no module of the model is named", "q_proj"),
    ],
)
def test_what_can_not_be_is_one_sentence(project: Path, settings: str, what: str, fix: str) -> None:
    code, document = train(project, settings)
    assert code == 2
    assert what in document["what"] and fix in document["fix"]
