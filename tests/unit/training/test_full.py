"""Full fine-tuning: what changes, at which rate, and a folder that answers alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.errors import ModelError
from tutelage.core.example import Example
from tutelage.inference.base import Decoding, Prompt
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import TransformersGenerator, load_model, load_tokenizer
from tutelage.training.adapters import trained_parameters
from tutelage.training.optim import layer_depths, make_optimizer, set_rate
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, TrainResult, train
from tutelage.training.tunings import tuning

RECIPE = Recipe(
    method="full", learning_rate=3e-3, epochs=6, batch_size=4, micro_batch=4, eval_every=4,
    patience=99, checkpoint_every=50,
)  # fmt: skip
PROMPT = "Say whether the colour is warm or cold, as JSON, and nothing else at all."


def changed(**changes: Any) -> Recipe:
    return Recipe(**(RECIPE.model_dump() | changes))


def run(
    source: ModelSource, rows: list[Example], folder: Path, recipe: Recipe = RECIPE
) -> TrainResult:
    return train(TrainingJob(source, rows[:8], rows[8:], PROMPT, recipe, folder))


@pytest.fixture(scope="module")
def tied_source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A tiny model whose head is its embedding."""
    import warnings

    from tests.fakes.tiny_llama import build_tiny_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = build_tiny_model(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True)
    return ModelSource(str(folder), "tied", "directory", folder, "1" * 64)


def source_of(folder: Path) -> ModelSource:
    return ModelSource(str(folder), "tuned", "directory", folder, "2" * 64)


@pytest.mark.parametrize("tied", [False, True])
def test_all_weights_learn_and_the_folder_loads_alone(
    tiny_source: ModelSource,
    tied_source: ModelSource,
    colours: list[Example],
    tmp_path: Path,
    tied: bool,
) -> None:
    source = tied_source if tied else tiny_source
    result = run(source, colours, tmp_path / "run")
    losses = [point["loss"] for point in result.history if "loss" in point]
    assert losses[-1] < 0.6 * losses[0]
    assert result.prefix["shared"] is True
    assert result.trainable == sum(p.numel() for p in load_model(source).parameters())
    alone = tmp_path / "elsewhere"
    shutil.move(result.adapter_dir, alone)
    assert {file.name for file in alone.iterdir()} == {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    for file in alone.glob("*.json"):
        text = file.read_text("utf-8")
        assert str(source.path) not in text and str(tmp_path) not in text, file.name
    model = load_model(source_of(alone))
    assert model.config.tie_word_embeddings is tied
    same = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert same is tied
    assert load_tokenizer(source_of(alone)).chat_template == load_tokenizer(source).chat_template


def test_the_saved_model_has_the_best_validation_loss(
    tiny_source: ModelSource, colours: list[Example], tmp_path: Path
) -> None:
    from tutelage.training.encode import encode
    from tutelage.training.shared_step import plain_step

    result = run(tiny_source, colours, tmp_path)
    rows = encode(colours[8:], load_tokenizer(tiny_source), PROMPT, max_tokens=1024).rows
    with torch.no_grad():
        loss = plain_step(load_model(source_of(result.adapter_dir)), rows, 4, backward=False).loss
    best = min(p["validation_loss"] for p in result.history if "validation_loss" in p)
    assert loss == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_the_file_has_the_run_s_precision(
    tiny_source: ModelSource,
    colours: list[Example],
    tmp_path: Path,
    precision: str,
    dtype: torch.dtype,
) -> None:
    from safetensors.torch import load_file

    recipe = changed(precision=precision, epochs=1)
    folder = run(tiny_source, colours, tmp_path, recipe).adapter_dir
    kinds = {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}
    assert kinds == {dtype}
    written = json.loads((folder / "config.json").read_text())["dtype"]
    assert f"torch.{written}" == str(dtype)


def test_the_generator_switches_between_base_and_tuned(
    tiny_source: ModelSource, colours: list[Example], tmp_path: Path
) -> None:
    folder = run(tiny_source, colours, tmp_path).adapter_dir
    prompts = [Prompt(colours[0].messages[:1], Decoding(max_tokens=8))]
    base = TransformersGenerator(tiny_source).generate(prompts)[0].text
    tuned = TransformersGenerator(source_of(folder)).generate(prompts)[0].text
    assert base != tuned
    generator = TransformersGenerator(tiny_source)
    answers = []
    for chosen in (folder, None, folder):
        generator.set_adapter(chosen)
        answers.append(generator.generate(prompts)[0].text)
    assert answers == [tuned, base, tuned]


def test_a_base_that_was_packed_leaves_no_trace(tiny_source: ModelSource, tmp_path: Path) -> None:
    model: Any = load_model(tiny_source)
    model.config.quantization_config = {"quant_method": "gguf"}
    made = tuning("full", RECIPE)
    made.save(made.attach(model, RECIPE), tmp_path, "tiny")
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    assert not [key for key in config if key.startswith("_")]


def test_named_modules_alone_can_be_trained(
    tiny_source: ModelSource, colours: list[Example], tmp_path: Path
) -> None:
    recipe = changed(target_modules=("layers.1", "lm_head"))
    before = {name: p.clone() for name, p in load_model(tiny_source).named_parameters()}
    result = run(tiny_source, colours, tmp_path, recipe)
    after = dict(load_model(source_of(result.adapter_dir)).named_parameters())
    for name, weight in before.items():
        chosen = ".layers.1." in name or name.startswith("lm_head")
        assert torch.equal(weight, after[name]) is not chosen, name
    with pytest.raises(ModelError, match="Take of") as caught:
        model = load_model(tiny_source)
        tuning("full", recipe).attach(model, changed(target_modules=("q_prj",)))
    assert "q_proj" in str(caught.value.fix)


def test_the_rate_falls_by_layer_from_the_head_to_the_embeddings(
    tiny_source: ModelSource,
) -> None:
    recipe = changed(layer_decay=0.5, learning_rate=1.0)
    model = tuning("full", recipe).attach(load_model(tiny_source), recipe)
    optimizer = make_optimizer(model, recipe)
    set_rate(optimizer, 1.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in trained_parameters(model).items()}
    assert found["lm_head.weight"] == found["model.norm.weight"] == 1.0
    assert found["model.layers.1.mlp.up_proj.weight"] == 0.5
    assert found["model.layers.0.input_layernorm.weight"] == 0.25
    assert found["model.embed_tokens.weight"] == 0.125
    assert len(found) == len(rates)


def test_a_head_that_is_the_embedding_counts_as_the_embedding(tied_source: ModelSource) -> None:
    assert layer_depths(load_model(tied_source))["model.embed_tokens.weight"] == 3


def test_norms_never_decay(tiny_source: ModelSource) -> None:
    recipe = changed(weight_decay=0.1, layer_decay=0.9)
    model = tuning("full", recipe).attach(load_model(tiny_source), recipe)
    for group in make_optimizer(model, recipe).param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
