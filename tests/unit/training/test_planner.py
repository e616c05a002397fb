"""The plan: what each rule chooses, whose word wins, and when training is advised against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.config import Train
from tutelage.core.errors import ConfigError, ModelError
from tutelage.training.planner import Plan, make_plan
from tutelage.training.planner_rules import RULES, choices
from tutelage.training.prefix_tree import Row
from tutelage.training.profile import (
    DataProfile,
    Machine,
    Measured,
    ModelProfile,
    profile_data,
    profile_machine,
    profile_model,
)
from tutelage.training.recipe import Recipe

DATA = DataProfile(
    task="classification", rows=215, validation_rows=30, labels=22, prompt_p50=120, prompt_max=150,
    answer_p50=7, answer_max=9, row_p95=140, row_max=155, shared=0.7, prefix=105,
)  # fmt: skip
SMALL = ModelProfile("small", 134_515_008, 30, 576, 1536, 9, 3, 49152, 8192)
LARGE = ModelProfile("large", 7_600_000_000, 32, 4096, 14336, 32, 8, 128_256, 131_072)
LAPTOP = Machine(2, 20_000, 50_000, None, 0, True)
GPU = Machine(16, 120_000, 50_000, "NVIDIA L4", 24_000, True)


def chosen(plan: Plan, name: str) -> tuple[Any, str, str]:
    return next((c.value, c.reason, c.source) for c in plan.choices if c.name == name)


def test_the_demo_sized_plan() -> None:
    plan = make_plan(DATA, SMALL, LAPTOP, Train())
    recipe = plan.recipe
    assert (recipe.method, recipe.target_modules) == ("lora", "all-linear")
    assert (recipe.rank, recipe.alpha, recipe.learning_rate) == (16, 32, 1e-3)
    assert (recipe.batch_size, recipe.epochs, recipe.precision) == (8, 3, "fp32")
    assert recipe.shared_prefix
    assert recipe.prompt_loss_weight == 0
    assert plan.steps == 30 * 3  # 215 rows and 24 that are replayed
    assert plan.refusal is None
    assert plan.warnings == []


def test_every_choice_gives_a_reason_and_a_source() -> None:
    plan = make_plan(DATA, SMALL, LAPTOP, Train())
    shown = {c.name for c in plan.choices}
    assert {"method", "rank", "alpha", "micro_batch", "eval_every", "checkpointing"} <= shown
    unseen = {"tune", "mixout", "layer_decay", "strategy", "offload", "attention"}
    assert set(choices()) - shown == unseen  # they say nothing about an adapter on a processor
    for choice in plan.choices:
        assert choice.reason and choice.source
        assert "{" not in choice.reason
        assert getattr(plan.recipe, choice.name) == choice.value
    assert chosen(plan, "rank")[1].startswith("215 rows: 8 or 16")
    assert "70 %" in chosen(plan, "shared_prefix")[1]


def test_the_last_rule_of_every_choice_always_holds() -> None:
    last = {rule.choice: rule for rule in RULES}
    odd = replace(DATA, rows=10**7, shared=0.0, validation_rows=10**6, task="text")
    for model in (SMALL, LARGE):
        for machine in (LAPTOP, GPU, replace(GPU, bf16=False)):
            assert make_plan(odd, model, machine, Train()).recipe
    assert set(last) == set(choices())


@pytest.mark.parametrize(
    ("rows", "model", "rank"), [(500, SMALL, 16), (500, LARGE, 8), (250_000, SMALL, 32)]
)
def test_rank_by_rows_and_model(rows: int, model: ModelProfile, rank: int) -> None:
    assert make_plan(replace(DATA, rows=rows), model, GPU, Train()).recipe.rank == rank


def test_larger_models_want_smaller_rates() -> None:
    medium = replace(SMALL, params=1_700_000_000)
    rates = [make_plan(DATA, m, GPU, Train()).recipe.learning_rate for m in (SMALL, medium, LARGE)]
    assert rates == [1e-3, 3e-4, 3e-4]


def test_free_text_trains_fewer_epochs_and_may_weigh_the_prompt() -> None:
    text = replace(DATA, task="generation", labels=0, shared=0.0, answer_p50=20)
    plan = make_plan(text, SMALL, LAPTOP, Train())
    assert plan.recipe.epochs == 2
    assert plan.recipe.prompt_loss_weight == 0.05
    assert "under 15,000 rows" in chosen(plan, "prompt_loss_weight")[1]
    long_answers = replace(text, answer_p50=300)
    assert make_plan(long_answers, SMALL, LAPTOP, Train()).recipe.prompt_loss_weight == 0
    many = replace(text, rows=20_000)
    assert make_plan(many, SMALL, LAPTOP, Train()).recipe.prompt_loss_weight == 0


def test_precision_follows_the_machine() -> None:
    assert make_plan(DATA, SMALL, GPU, Train()).recipe.precision == "bf16"
    assert make_plan(DATA, SMALL, replace(GPU, bf16=False), Train()).recipe.precision == "fp16"
    assert make_plan(DATA, LARGE, LAPTOP, Train()).recipe.precision == "bf16"


def test_no_row_is_cut_unless_the_model_reads_less() -> None:
    assert make_plan(DATA, SMALL, LAPTOP, Train()).recipe.max_tokens == 256
    short = replace(SMALL, context=128)
    assert make_plan(DATA, short, LAPTOP, Train()).recipe.max_tokens == 128


def test_the_users_word_wins_and_is_shown_as_theirs() -> None:
    own = Train(rank=4, learning_rate=2e-4, epochs=12, micro_batch=2, shared_prefix=False, seed=11)
    plan = make_plan(DATA, SMALL, LAPTOP, own)
    recipe = plan.recipe
    assert (recipe.rank, recipe.learning_rate, recipe.epochs) == (4, 2e-4, 12)
    assert (recipe.micro_batch, recipe.shared_prefix, recipe.seed) == (2, False, 11)
    assert recipe.alpha == 8  # follows the rank that was set
    assert chosen(plan, "rank") == (4, "your setting (planned: 16)", "tutelage.yaml")
    assert chosen(plan, "micro_batch")[2] == "tutelage.yaml"
    assert plan.warnings == ["more than 10 epochs on few rows learn them by heart"]


def test_settings_that_contradict_each_other_are_explained() -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(DATA, SMALL, LAPTOP, Train(batch_size=4, micro_batch=16))
    assert caught.value.sentence() == (
        "tutelage.yaml: train.micro_batch 16 is larger than the batch of 4 rows it is a part of. "
        "Lower train.micro_batch, or raise train.batch_size."
    )


def test_too_few_rows_are_refused_unless_forced() -> None:
    few = replace(DATA, rows=19, task="qa", labels=0)
    plan = make_plan(few, SMALL, LAPTOP, Train())
    assert plan.refusal is not None
    assert plan.refusal.startswith("19 training rows are too few to tune on (at least 20)")
    assert "take few-shot prompting and put the rows into the prompt" in plan.refusal
    assert make_plan(few, SMALL, LAPTOP, Train(force=True)).refusal is None
    assert make_plan(replace(few, rows=20), SMALL, LAPTOP, Train()).refusal is None


def test_too_few_labelled_rows_step_down_to_a_cloze() -> None:
    few = replace(DATA, rows=14, labels=3)
    plan = make_plan(few, SMALL, LAPTOP, Train())
    assert (plan.recipe.method, plan.refusal) == ("cloze", None)
    assert chosen(plan, "method")[1].startswith("14 rows are too few to learn to write answers")
    asked = make_plan(few, SMALL, LAPTOP, Train(method="lora"))
    assert "few-shot prompting or a cloze" in str(asked.refusal)
    assert make_plan(replace(few, rows=6), SMALL, LAPTOP, Train()).refusal is not None


def test_raw_text_is_pretrained_on_with_replay() -> None:
    texts = replace(DATA, task="text", labels=0, texts=215)
    recipe = make_plan(texts, SMALL, LAPTOP, Train()).recipe
    assert (recipe.method, recipe.tune, recipe.replay) == ("cpt", "lora", 0.1)
    assert recipe.learning_rate < make_plan(DATA, SMALL, LAPTOP, Train()).recipe.learning_rate


def test_full_tuning_takes_a_tenth_of_the_rate_and_shows_its_own_choices() -> None:
    plan = make_plan(DATA, SMALL, LAPTOP, Train(method="full", mixout=0.8))
    assert plan.recipe.tune == "full"
    assert plan.recipe.learning_rate == pytest.approx(1e-4)
    assert plan.trained == SMALL.params
    assert chosen(plan, "mixout")[:2] == (0.8, "your setting (planned: 0.0)")
    assert "rank" not in {choice.name for choice in plan.choices}
    assert any("all weights move" in text for text in plan.warnings)
    adapter = make_plan(DATA, SMALL, LAPTOP, Train(mixout=0.8))
    assert any("train.mixout needs train.method: full" in text for text in adapter.warnings)


def test_a_model_that_crowds_the_gpu_is_quantised_where_that_can_be_done() -> None:
    tight = replace(GPU, gpus=1, packages=frozenset({"bitsandbytes"}))
    assert make_plan(DATA, LARGE, tight, Train()).recipe.method == "qlora"
    assert make_plan(DATA, LARGE, GPU, Train()).recipe.method == "lora"
    wide = replace(tight, gpu_memory_mb=80_000)
    assert make_plan(DATA, LARGE, wide, Train()).recipe.method == "lora"


def test_several_gpus_share_the_work() -> None:
    two = replace(GPU, gpus=2, gpu_memory_mb=40_000)
    assert make_plan(DATA, SMALL, two, Train()).recipe.strategy == "ddp"
    spread = replace(two, packages=frozenset({"deepspeed"}))
    assert make_plan(DATA, SMALL, spread, Train()).recipe.strategy == "ddp"
    assert make_plan(DATA, SMALL, spread, Train(method="full")).recipe.strategy == "zero2"
    bare = make_plan(DATA, LARGE, two, Train(method="full"))
    assert (bare.recipe.strategy, bare.recipe.offload) == ("fsdp2", True)
    together = make_plan(DATA, LARGE, spread, Train(method="kto", tune="full"))
    assert together.recipe.strategy == "ddp"
    full = make_plan(DATA, LARGE, spread, Train(method="full"))
    assert (full.recipe.strategy, full.recipe.offload) == ("zero3", True)
    assert not full.recipe.shared_prefix
    assert make_plan(DATA, SMALL, LAPTOP, Train()).recipe.strategy == "none"


def test_long_rows_ask_for_flash_attention_where_it_is_installed() -> None:
    long = replace(DATA, row_max=4_000)
    flash = replace(GPU, packages=frozenset({"flash_attn"}))
    assert make_plan(long, SMALL, flash, Train()).recipe.attention == "flash_attention_2"
    assert make_plan(DATA, SMALL, flash, Train()).recipe.attention == "auto"


def test_what_an_expert_would_warn_of() -> None:
    odd = replace(DATA, fertility=2.6, validation_rows=0, least_label=2)
    told = " ".join(make_plan(odd, SMALL, LAPTOP, Train()).warnings)
    assert "2.6 tokens each" in told
    assert "no validation rows" in told
    assert "the rarest label has 2 rows" in told


def test_why_there_are_no_validation_rows_is_said_where_it_is_known() -> None:
    for unsplit, words in ((None, "give data.splits.validation a share"), ("all are alike", None)):
        data = replace(DATA, validation_rows=0, unsplit=unsplit)
        told = make_plan(data, SMALL, LAPTOP, Train()).warnings
        (one,) = [text for text in told if "no validation rows" in text]
        assert one.endswith(f"; {words or unsplit}")


def test_the_plan_says_itself_in_one_sentence_and_what_it_costs() -> None:
    plan = make_plan(DATA, SMALL, LAPTOP, Train(hour_price=1.2), measured=Measured(0.01))
    assert plan.headline.startswith("Train a LoRA adapter on 215 rows: 4.9 M of 134.5 M weights")
    assert "90 steps of 8 rows" in plan.headline
    assert plan.cost == pytest.approx(1.2 * plan.seconds / 3600, abs=1e-4)
    assert make_plan(DATA, SMALL, LAPTOP, Train()).cost is None


def test_activations_are_recomputed_only_when_one_row_does_not_fit() -> None:
    need = make_plan(DATA, SMALL, LAPTOP, Train(micro_batch=1)).memory.total_mb
    tight = replace(LAPTOP, memory_mb=need / 0.8 - 1)
    plan = make_plan(DATA, SMALL, tight, Train())
    assert (plan.recipe.micro_batch, plan.recipe.checkpointing) == (1, True)
    assert "20–30 % more time" in chosen(plan, "checkpointing")[1]


def test_under_a_hundred_rows_the_plan_keeps_the_instructions_in_every_row() -> None:
    warnings = make_plan(replace(DATA, rows=60), SMALL, LAPTOP, Train()).warnings
    assert any("the system instructions stay in every row" in text for text in warnings)
    assert any("2.7 rows a label" in text for text in warnings)


def test_raw_text_has_no_instructions_to_keep() -> None:
    few = replace(DATA, rows=15, task="text", labels=0, texts=15)
    told = make_plan(few, SMALL, LAPTOP, Train()).warnings
    assert not any("system instructions" in text for text in told)


def test_pre_training_on_answers_is_refused_with_the_way_out() -> None:
    for rows in (13, 400):
        refusal = make_plan(replace(DATA, rows=rows), SMALL, LAPTOP, Train(method="cpt")).refusal
        assert refusal is not None
        assert "set task: text" in refusal
        assert "train.before" in refusal
        assert "few-shot" not in refusal
    for some in (replace(DATA, rows=400, texts=3), replace(DATA, rows=400, texts=400)):
        assert make_plan(some, SMALL, LAPTOP, Train(method="cpt")).refusal is None


def test_a_cloze_is_advised_only_where_it_has_rows_enough() -> None:
    few, fewer = replace(DATA, rows=8, labels=3), replace(DATA, rows=7, labels=3)
    assert "or a cloze" in str(make_plan(few, SMALL, LAPTOP, Train(method="lora")).refusal)
    assert "cloze" not in str(make_plan(fewer, SMALL, LAPTOP, Train()).refusal)
    told = make_plan(fewer, SMALL, LAPTOP, Train(method="cloze"))
    assert told.refusal is None
    assert any("7 training rows are too few even for a cloze" in w for w in told.warnings)


def test_one_of_a_thing_is_said_as_one() -> None:
    plan = make_plan(
        replace(DATA, rows=1, labels=1), SMALL, LAPTOP,
        Train(method="ia3", epochs=1, batch_size=1, replay=0, force=True),
    )  # fmt: skip
    assert plan.headline.startswith("Train an adapter (ia3) on 1 row: ")
    assert "1 step of 1 row," in plan.headline
    assert any(text.startswith("1 training row, fewer") for text in plan.warnings)


def test_little_memory_makes_smaller_passes_and_then_says_so() -> None:
    room = make_plan(DATA, SMALL, LAPTOP, Train(batch_size=16))
    tight = replace(LAPTOP, memory_mb=room.memory.total_mb)  # of which 80 % may be planned for
    plan = make_plan(DATA, SMALL, tight, Train(batch_size=16))
    assert plan.recipe.micro_batch < plan.recipe.batch_size == 16
    assert plan.memory.total_mb < room.memory.total_mb
    assert "16 rows at once would not fit" in chosen(plan, "micro_batch")[1]
    none = make_plan(DATA, LARGE, replace(LAPTOP, memory_mb=4_000), Train())
    assert none.recipe.micro_batch == 1
    assert any("choose a smaller model" in text for text in none.warnings)


def test_time_comes_from_the_probe_and_falls_with_sharing() -> None:
    slow = make_plan(DATA, SMALL, LAPTOP, Train(), measured=Measured(0.02))
    fast = make_plan(DATA, SMALL, LAPTOP, Train(), measured=Measured(0.01))
    alone = make_plan(DATA, SMALL, LAPTOP, Train(shared_prefix=False), measured=Measured(0.01))
    start = make_plan(DATA, SMALL, LAPTOP, Train(), measured=Measured(0.0)).seconds
    assert slow.seconds - start == pytest.approx(2 * (fast.seconds - start), rel=1e-3)
    assert alone.seconds - start > 2 * (fast.seconds - start)
    assert make_plan(DATA, SMALL, LAPTOP, Train()).seconds > 0  # computed without a probe


def test_a_plan_survives_the_trip_to_json() -> None:
    plan = make_plan(DATA, SMALL, LAPTOP, Train())
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_recipe_counts_its_steps() -> None:
    recipe = Recipe(batch_size=8, micro_batch=3, epochs=2.5)
    assert recipe.accumulation == 3
    assert recipe.steps_per_epoch(17) == 3
    assert recipe.total_steps(17) == 8
    with pytest.raises(ValueError, match="micro_batch 9 is larger than batch_size 8"):
        Recipe(batch_size=8, micro_batch=9)


def test_the_rows_profile() -> None:
    head = tuple(range(40))
    rows = [Row(str(n), (*head, 100 + n, 5, 6), (0.0,) * 41 + (1.0, 1.0), 41) for n in range(12)]
    data = profile_data(rows, task="classification", labels=2, validation_rows=3)
    assert (data.rows, data.prompt_p50, data.answer_p50, data.row_max) == (12, 41, 2, 43)
    assert data.prefix == 40
    assert data.shared > 0.7
    assert data.answer_ratio == pytest.approx(2 / 41)
    other = [Row(str(n), (n, n + 1, 5), (0.0, 0.0, 1.0), 2) for n in range(50, 62)]
    assert profile_data(other, task="qa", labels=0, validation_rows=0).shared == 0


def test_the_model_profile_counts_every_weight(tiny_dir: Path, tiny_lora: Any) -> None:
    from tutelage.inference.models import ModelSource
    from tutelage.inference.transformers import load_model

    profile = profile_model("tiny", tiny_dir)
    source = ModelSource(str(tiny_dir), "tiny", "directory", tiny_dir, "0" * 64)
    model = load_model(source)
    assert profile.params == sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in tiny_lora.parameters() if p.requires_grad)
    assert 4 * profile.lora_inputs_outputs == trained  # rank 4


def test_a_model_that_is_no_decoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ModelError, match="Choose a decoder-only language model"):
        profile_model("resnet", tmp_path)


def test_the_machine_profile_sees_this_machine(tmp_path: Path) -> None:
    machine = profile_machine(tmp_path)
    assert machine.cores >= 1
    assert machine.memory_mb > 100
    assert machine.disk_mb > 1
