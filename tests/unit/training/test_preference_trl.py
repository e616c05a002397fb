"""Preference tuning against TRL's DPOTrainer and KTOTrainer: same rows, same loss curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.events import Emit
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model, load_tokenizer
from tutelage.training import session
from tutelage.training.adapters import attach_lora
from tutelage.training.loop import rows_of_step
from tutelage.training.methods.base import Prepared
from tutelage.training.methods.kto import JudgedItem, Kto, KtoMethod
from tutelage.training.methods.preference import Encoder, answer_row
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, train

STEPS = 12
PROMPT = "Answer as a polite clerk would."
RECIPE = Recipe(
    method="dpo", rank=4, alpha=8.0, learning_rate=2e-3, epochs=1, batch_size=4, micro_batch=4,
    warmup=0.0, eval_every=1000, checkpoint_every=1000, weight_decay=0.0, beta=0.5,
)  # fmt: skip


def pair(index: int) -> Example:
    question = f"desk {index}: " + "and then " * (index % 3) + "where do I go?"
    return Example(
        messages=(
            Message(role="user", content=question),
            Message(role="assistant", content=f"to desk {index % 5}, please"),
        ),
        meta={"rejected": f"no idea {index % 4}"},
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


def settings(folder: Path, recipe: Recipe, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": recipe.batch_size,
        "num_train_epochs": 1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": recipe.max_grad_norm,
        "beta": recipe.beta,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "max_length": None,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False,
        **more,
    }


def run(trainer_class: Any, arguments: Any, data: list[dict[str, Any]], source: ModelSource) -> Any:
    """Return what a TRL trainer logs at each of its steps."""
    from datasets import Dataset
    from transformers import TrainerCallback

    logged: list[dict[str, float]] = []

    class Keep(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                logged.append({name: float(value) for name, value in logs.items()})

    trainer = trainer_class(
        model=attach_lora(load_model(source), RECIPE),
        args=arguments,
        train_dataset=Dataset.from_list(data),
        processing_class=load_tokenizer(source),
        callbacks=[Keep()],
    )
    trainer.train()
    return logged


def texts(tokenizer: Any, row: Row) -> tuple[str, str]:
    """Return a row's prompt and answer as TRL gets them: text with the template's own tokens."""
    return (
        tokenizer.decode(row.ids[: row.answer_start]),
        tokenizer.decode(row.ids[row.answer_start :]),
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("shared", "options", "loss"),
    [
        (True, {}, {"loss_type": ["sigmoid"]}),
        (False, {"preference_loss": "ipo"}, {"loss_type": ["ipo"]}),
    ],
)
def test_the_loss_curve_of_dpo_is_that_of_trl(
    tiny_source: ModelSource,
    tmp_path: Path,
    offline: None,
    shared: bool,
    options: dict[str, Any],
    loss: dict[str, Any],
) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from tutelage.training.methods.dpo import encode_pairs

    recipe = RECIPE.model_copy(update={"shared_prefix": shared, **options})
    rows = [pair(index) for index in range(STEPS * recipe.batch_size)]
    result = train(TrainingJob(tiny_source, rows, [], PROMPT, recipe, tmp_path / "run"))
    assert result.prefix["shared"] is shared
    tokenizer = load_tokenizer(tiny_source)
    items = encode_pairs(rows, Encoder(tokenizer, PROMPT, recipe.max_tokens))
    data = []
    for item in (i for step in range(STEPS) for i in rows_of_step(items, step, recipe)):
        prompt, chosen = texts(tokenizer, item.chosen)
        data.append(
            {"prompt": prompt, "chosen": chosen, "rejected": texts(tokenizer, item.rejected)[1]}
        )
    arguments = trl.DPOConfig(**settings(tmp_path / "trl", recipe, **loss))
    theirs = run(trl.DPOTrainer, arguments, data, tiny_source)
    ours = [point for point in result.history if "loss" in point]
    assert len(ours) == len(theirs) == STEPS
    assert [p["loss"] for p in ours] == pytest.approx([p["loss"] for p in theirs], abs=1e-4)
    margins = [p["rewards/margins"] for p in theirs]
    assert [p["reward_margin"] for p in ours] == pytest.approx(margins, abs=2e-4)
    assert ours[-1]["loss"] < 0.9 * ours[0]["loss"]


class SameBatches(Kto):
    """KTO whose strange answers are those of the step's own batch, as TRL rotates them."""

    def prepare(self, job: TrainingJob, tokenizer: Any, emit: Emit) -> Prepared:
        made = super().prepare(job, tokenizer, emit)
        items: list[JudgedItem] = list(made.train)  # type: ignore[arg-type]
        for step in range(job.recipe.total_steps(len(items))):
            batch: Sequence[Any] = rows_of_step(items, step, job.recipe)
            for item, before in zip(batch, (batch[-1], *batch[:-1]), strict=True):
                prompt = item.row.ids[: item.row.answer_start]
                answer = before.row.ids[before.row.answer_start :]
                other = answer_row(f"{item.id}~", prompt, answer)
                items[items.index(item)] = replace(item, other=other)
        self._prepared = replace(made, train=items)
        return self._prepared


@pytest.mark.filterwarnings("ignore")
def test_the_loss_curve_of_kto_is_that_of_trl(
    tiny_source: ModelSource, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    recipe = RECIPE.model_copy(update={"method": "kto", **weights})
    rows = [
        one.model_copy(update={"meta": {"desirable": index % 3 > 0}})
        for index, one in enumerate(map(pair, range(STEPS * recipe.batch_size)))
    ]
    objective = SameBatches()
    monkeypatch.setattr(KtoMethod, "objective", lambda self, recipe: objective)
    monkeypatch.setattr(session, "resolve", lambda name: KtoMethod())
    result = train(TrainingJob(tiny_source, rows, [], PROMPT, recipe, tmp_path / "run"))
    tokenizer = load_tokenizer(tiny_source)
    items = objective._prepared.train
    data: list[dict[str, Any]] = []
    for item in (i for step in range(STEPS) for i in rows_of_step(items, step, recipe)):
        prompt, answer = texts(tokenizer, item.row)  # type: ignore[attr-defined]
        data.append({"prompt": prompt, "completion": answer, "label": item.desirable})  # type: ignore[attr-defined]
    arguments = trl.KTOConfig(**settings(tmp_path / "trl", recipe, **weights))
    theirs = run(trl.KTOTrainer, arguments, data, tiny_source)
    ours = [point for point in result.history if "loss" in point]
    assert len(ours) == len(theirs) == STEPS
    assert [p["loss"] for p in ours] == pytest.approx([p["loss"] for p in theirs], abs=1e-4)
    assert [p["kl"] for p in ours] == pytest.approx([p["kl"] for p in theirs], abs=1e-3)
    assert max(p["kl"] for p in ours) > 0.01
