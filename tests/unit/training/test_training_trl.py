"""The loop against TRL's SFTTrainer: same rows, same order, same start, the same loss curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model, load_tokenizer
from tutelage.training.adapters import attach_lora
from tutelage.training.encode import encode
from tutelage.training.loop import rows_of_step
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, train

STEPS = 20
PROMPT = "Say whether the number is odd or even."
RECIPE = Recipe(
    rank=4, alpha=8.0, learning_rate=5e-3, epochs=1, batch_size=4, micro_batch=4, warmup=0.0,
    eval_every=1000, checkpoint_every=1000, weight_decay=0.0, shared_prefix=False,
)  # fmt: skip


def examples() -> list[Example]:
    return [
        Example(
            messages=(
                Message(role="user", content=f"number {index} " + "and so on " * (index % 4)),
                Message(role="assistant", content="odd it is" if index % 2 else "even"),
            )
        )
        for index in range(STEPS * RECIPE.batch_size)
    ]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


def trl_losses(source: ModelSource, rows: list[Row], folder: Path) -> list[float]:
    """Return the loss of each of TRL's steps over `rows` in their order."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    losses: list[float] = []

    class Keep(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    settings = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=RECIPE.batch_size,
        num_train_epochs=1,
        learning_rate=RECIPE.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=RECIPE.max_grad_norm,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
    )
    data = [
        {
            "input_ids": list(row.ids),
            "labels": [-100] * row.answer_start + list(row.ids[row.answer_start :]),
        }
        for row in rows
    ]
    trainer = SFTTrainer(
        model=attach_lora(load_model(source), RECIPE),
        args=settings,
        train_dataset=Dataset.from_list(data),
        processing_class=load_tokenizer(source),
        callbacks=[Keep()],
    )
    trainer.train()
    return losses


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_curve_is_that_of_trl(
    tiny_source: ModelSource, tmp_path: Path, offline: None, shared: bool
) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    recipe = RECIPE.model_copy(update={"shared_prefix": shared})
    job = TrainingJob(tiny_source, examples(), [], PROMPT, recipe, tmp_path / "run")
    result = train(job)
    assert result.prefix["shared"] is shared
    ours = [point["loss"] for point in result.history]
    rows = encode(examples(), load_tokenizer(tiny_source), PROMPT, max_tokens=1024).rows
    ordered = [row for step in range(STEPS) for row in rows_of_step(rows, step, recipe)]
    theirs = trl_losses(tiny_source, ordered, tmp_path / "trl")
    assert len(ours) == len(theirs) == STEPS
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours[-1] < 0.8 * ours[0]
