"""Continued pre-training: what is predicted, that no text sees another, and a whole job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.errors import DataError
from tutelage.core.events import Event, silent
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_tokenizer
from tutelage.training.adapters import trained_parameters
from tutelage.training.job import TrainingJob
from tutelage.training.methods.cpt import Pretraining, text_blocks
from tutelage.training.recipe import Recipe
from tutelage.training.session import train

RECIPE = Recipe(
    method="cpt", rank=4, alpha=8.0, learning_rate=1e-2, epochs=6, batch_size=2, micro_batch=2,
    max_tokens=64, eval_every=4, patience=99, checkpoint_every=50,
)  # fmt: skip


def text(content: str, **meta: Any) -> Example:
    return Example(messages=(Message(role="assistant", content=content),), meta=meta)


TEXTS = [text(f"The {name} valve opens at {n} bar and closes again." * 2) for n, name in
         enumerate(("inlet", "outlet", "relief", "check", "ball", "gate"))]  # fmt: skip


def test_coverage_counts_every_token(tiny_source: ModelSource) -> None:
    tokenizer = load_tokenizer(tiny_source)
    rows = [*TEXTS, text("   ")]
    blocks, coverage = text_blocks(rows, tokenizer, "", 64)
    expected = sum(len(row.answer or "") + 1 for row in TEXTS)  # one token a byte, and the end
    assert coverage.tokens == coverage.labelled == expected
    assert sum(block.weight for block in blocks) == expected
    assert coverage.rejected == {rows[-1].id: "no text"}
    assert coverage.rows == 6


def test_a_text_cut_off_is_not_taught_to_end(tiny_source: ModelSource) -> None:
    tokenizer = load_tokenizer(tiny_source)
    whole, _ = text_blocks([text("valve")], tokenizer, "", 64)
    cut, _ = text_blocks([text("valve", open=True)], tokenizer, "", 64)
    assert whole[0].pieces[0].ids == (*cut[0].pieces[0].ids, tokenizer.eos_token_id)


def test_conversations_are_read_as_the_template_writes_them(tiny_source: ModelSource) -> None:
    tokenizer = load_tokenizer(tiny_source)
    turns = (Message(role="user", content="hot?"), Message(role="assistant", content="no"))
    blocks, coverage = text_blocks([Example(messages=turns)], tokenizer, "Be brief.", 64)
    written = tokenizer.decode([i for b in blocks for p in b.pieces for i in p.ids])
    assert "Be brief." in written
    assert "no<|im_end|>" in written
    assert coverage.labelled == coverage.tokens


def test_packed_and_padded_pieces_give_the_same_loss_and_gradients(
    tiny_source: ModelSource, tiny_lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.training.methods import cpt

    blocks, _ = text_blocks(TEXTS, load_tokenizer(tiny_source), "", 64)
    packed, report = Pretraining().step(tiny_lora, blocks, RECIPE, silent)
    assert report["packed"] is True
    monkeypatch.setattr(cpt, "self_check", lambda model, rows: "a test asks for it")
    padded, other = Pretraining().step(tiny_lora, blocks, RECIPE, silent)
    assert other == {"shared": False, "packed": False, "reason": "a test asks for it"}
    found = []
    for step, micro in ((packed, 2), (packed, 1), (padded, 2)):
        tiny_lora.zero_grad()
        loss = step(blocks, micro).loss
        grads = [p.grad.clone() for p in trained_parameters(tiny_lora).values()]
        found.append((loss, torch.cat([g.flatten() for g in grads])))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-5)
        assert float((gradient - found[0][1]).norm() / gradient.norm()) < 1e-4


def test_a_text_does_not_see_its_neighbour(tiny_source: ModelSource, tiny_lora: Any) -> None:
    tokenizer = load_tokenizer(tiny_source)
    together, _ = text_blocks([text("aaaa"), text("bbbb")], tokenizer, "", 64)
    assert len(together) == 1
    step, _ = Pretraining().step(tiny_lora, together, RECIPE, silent)
    alone = [
        step(text_blocks([text(name)], tokenizer, "", 64)[0], 1, backward=False)
        for name in ("aaaa", "bbbb")
    ]
    both = step(together, 1, backward=False)
    assert both.loss * both.weight == pytest.approx(sum(r.loss * r.weight for r in alone), abs=1e-4)


def test_a_job_lowers_the_loss_of_held_out_text(tiny_source: ModelSource, tmp_path: Path) -> None:
    events: list[Event] = []
    job = TrainingJob(tiny_source, TEXTS[:5], TEXTS[5:], "", RECIPE, tmp_path / "run")
    result = train(job, emit=events.append)
    losses = [p["validation_loss"] for p in result.history if "validation_loss" in p]
    assert min(losses) < 0.8 * losses[0]
    assert result.prefix["packed"] is True
    assert "in 9 blocks of 64" in events[0].message
    assert (result.adapter_dir / "adapter_model.safetensors").exists()


def test_no_text_at_all_stops_before_the_first_step(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    job = TrainingJob(tiny_source, [text("  ")], [], "", RECIPE, tmp_path)
    with pytest.raises(DataError, match="no text"):
        train(job)


def test_a_chain_goes_on_from_text_to_answers(
    tiny_source: ModelSource, tmp_path: Path, colours: list[Example]
) -> None:
    from tutelage.training.chain import train_chain

    first = TrainingJob(tiny_source, TEXTS[:5], TEXTS[5:], "", RECIPE, tmp_path / "text")
    recipe = RECIPE.model_copy(update={"method": "lora", "epochs": 1, "max_tokens": 128})
    second = TrainingJob(
        tiny_source, colours[:8], colours[8:], "Warm or cold?", recipe, tmp_path / "answers"
    )
    results = train_chain([first, second])
    alone = train_chain([TrainingJob(**{**vars(second), "run_dir": tmp_path / "alone"})])
    begin = [result.history[0]["validation_loss"] for result in (results[1], alone[0])]
    assert begin[0] < begin[1]
    again = train_chain([first, second])
    weights = [r.adapter_dir / "adapter_model.safetensors" for r in (results[1], again[1])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(("tune", "rate"), [("lora", 1e-2), ("dora", 1e-2), ("full", 1e-3)])
def test_the_next_job_begins_where_the_last_ended(
    tiny_source: ModelSource, tmp_path: Path, tune: str, rate: float
) -> None:
    from tutelage.training.chain import train_chain

    recipe = RECIPE.model_copy(update={"tune": tune, "learning_rate": rate, "epochs": 2})
    jobs = [
        TrainingJob(tiny_source, TEXTS[:5], TEXTS[5:], "", recipe, tmp_path / name)
        for name in ("one", "two")
    ]
    one, two = train_chain(jobs)
    best = min(p["validation_loss"] for p in one.history if "validation_loss" in p)
    assert two.history[0]["validation_loss"] == pytest.approx(best, abs=1e-5)
