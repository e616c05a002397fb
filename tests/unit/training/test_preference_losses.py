"""DPO and KTO against autograd of the papers' formulas; what pairs become; what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event, silent
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_tokenizer
from tutelage.training.adapters import trained_parameters
from tutelage.training.job import TrainingJob
from tutelage.training.methods.dpo import Dpo, PairItem, encode_pairs
from tutelage.training.methods.kto import JudgedItem, Kto, encode_judged, tell_balance
from tutelage.training.methods.preference import DRAW, Encoder, share_right
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe

PROMPT = "Say whether the colour is warm or cold, in the voice of a polite clerk at a desk."
RECIPE = Recipe(method="dpo", rank=4, alpha=8.0, batch_size=4, micro_batch=4, beta=0.3)


def pair(index: int, worse: str | None = None) -> Example:
    return Example(
        messages=(
            Message(role="user", content=f"the colour of desk {index // 2}"),
            Message(role="assistant", content=f"warm, I believe, number {index}"),
        ),
        meta={"rejected": worse or f"cold {index}"},
    )


@pytest.fixture
def job(tiny_source: ModelSource, tmp_path: Path) -> Callable[..., TrainingJob]:
    def make(recipe: Recipe = RECIPE, rows: Sequence[Example] | None = None) -> TrainingJob:
        train = list(rows) if rows is not None else [pair(index) for index in range(6)]
        validation = [pair(index) for index in (20, 21)]
        return TrainingJob(tiny_source, train, validation, PROMPT, recipe, tmp_path / "run")

    return make


def logprob(model: Any, row: Row) -> torch.Tensor:
    """Return the answer's log-likelihood by the definition: one row, full logits."""
    ids = torch.tensor([row.ids])
    logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    picked = logits.gather(1, ids[0, 1:, None])[:, 0]
    return picked[row.answer_start - 1 :].sum()


def moved(model: Any) -> None:
    """Change the adapter, so that policy and reference differ."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in trained_parameters(model).items()
    }
    model.zero_grad(set_to_none=True)
    return found


def dpo_by_definition(
    policy: torch.Tensor, reference: torch.Tensor, items: Sequence[PairItem], recipe: Recipe
) -> torch.Tensor:
    gains = policy - reference
    sizes = torch.tensor(
        [[len(r.ids) - r.answer_start for r in (i.chosen, i.rejected)] for i in items]
    )
    if recipe.preference_loss == "ipo":
        mean = gains / sizes
        losses = (mean[:, 0] - mean[:, 1] - 1 / (2 * recipe.beta)).square()
    else:
        h = recipe.beta * (gains[:, 0] - gains[:, 1])
        e = recipe.label_smoothing
        losses = -(1 - e) * torch.log(torch.sigmoid(h)) - e * torch.log(torch.sigmoid(-h))
    if recipe.sft_weight:
        losses = losses + recipe.sft_weight * (-policy[:, 0] / sizes[:, 0])
    return losses.mean()


@pytest.mark.parametrize("micro_batch", [1, 8])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.2, "sft_weight": 0.7}, {"preference_loss": "ipo"}],
    ids=["sigmoid", "cdpo-rpo", "ipo"],
)
def test_loss_and_gradients_of_dpo_are_those_of_the_formula(
    job: Any, tiny_lora: Any, options: dict[str, Any], shared: bool, micro_batch: int
) -> None:
    recipe = RECIPE.model_copy(update={"shared_prefix": shared, **options})
    objective = Dpo()
    prepared = objective.prepare(job(recipe), load_tokenizer(job().model), silent)
    items: list[PairItem] = list(prepared.train)  # type: ignore[arg-type]
    step, report = objective.step(tiny_lora, items, recipe, silent)
    assert report["shared"] is shared
    with torch.no_grad():
        reference = torch.stack([logprob(tiny_lora, r) for r in objective.answers(items)])
    moved(tiny_lora)
    policy = torch.stack([logprob(tiny_lora, r) for r in objective.answers(items)])
    wanted = dpo_by_definition(policy.view(-1, 2), reference.view(-1, 2), items, recipe)
    wanted.backward()
    by_autograd = gradients(tiny_lora)
    found = step(items, micro_batch)
    assert found.loss == pytest.approx(wanted.item(), abs=2e-5)
    for name, gradient in gradients(tiny_lora).items():
        torch.testing.assert_close(gradient, by_autograd[name], atol=2e-5, rtol=1e-3)
    assert (found.unique < 0.5 * found.total) is shared
    margin = recipe.beta * (policy - reference).view(-1, 2).diff(dim=1).neg().mean()
    assert found.metrics["reward_margin"] == pytest.approx(margin.item(), abs=1e-3)


@pytest.mark.parametrize("shared", [True, False])
def test_loss_and_gradients_of_kto_are_those_of_the_formula(
    job: Any, tiny_lora: Any, shared: bool
) -> None:
    recipe = RECIPE.model_copy(
        update={"method": "kto", "shared_prefix": shared, "desirable_weight": 1.3,
                "undesirable_weight": 0.6}
    )  # fmt: skip
    objective = Kto()
    prepared = objective.prepare(job(recipe), load_tokenizer(job().model), silent)
    items: list[JudgedItem] = list(prepared.train)  # type: ignore[arg-type]
    assert [item.desirable for item in items] == [True, False] * 6
    step, _ = objective.step(tiny_lora, items, recipe, silent)
    own, other = [item.row for item in items], [item.other for item in items]
    with torch.no_grad():
        before = torch.stack([logprob(tiny_lora, row) for row in own])
        before_other = torch.stack([logprob(tiny_lora, row) for row in other])
    moved(tiny_lora)
    gains = torch.stack([logprob(tiny_lora, row) for row in own]) - before
    with torch.no_grad():
        after = torch.stack([logprob(tiny_lora, row) for row in other])
    z0 = (after - before_other).mean().clamp(min=0)
    losses = [
        1.3 * (1 - torch.sigmoid(recipe.beta * (gain - z0))) if item.desirable
        else 0.6 * (1 - torch.sigmoid(recipe.beta * (z0 - gain)))
        for gain, item in zip(gains, items, strict=True)
    ]  # fmt: skip
    wanted = torch.stack(losses).mean()
    wanted.backward()
    by_autograd = gradients(tiny_lora)
    found = step(items, 4)
    assert found.loss == pytest.approx(wanted.item(), abs=2e-5)
    assert found.metrics["kl"] == pytest.approx(float(z0), abs=1e-3)
    for name, gradient in gradients(tiny_lora).items():
        torch.testing.assert_close(gradient, by_autograd[name], atol=2e-5, rtol=1e-3)


def test_a_part_of_a_step_is_divided_by_the_weight_of_the_whole(job: Any, tiny_lora: Any) -> None:
    objective = Dpo()
    items = list(objective.prepare(job(), load_tokenizer(job().model), silent).train)
    step, _ = objective.step(tiny_lora, items, RECIPE, silent)
    moved(tiny_lora)
    whole = step(items, 4)
    together = gradients(tiny_lora)
    parts = [step(items[:2], 4, weight=6.0), step(items[2:], 4, weight=6.0)]
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, abs=1e-5)
    for name, gradient in gradients(tiny_lora).items():
        torch.testing.assert_close(gradient, together[name], atol=1e-5, rtol=1e-3)


def test_at_its_start_a_model_prefers_nothing(job: Any, tiny_lora: Any) -> None:
    objective = Dpo()
    prepared = objective.prepare(job(), load_tokenizer(job().model), silent)
    step, _ = objective.step(tiny_lora, prepared.train, RECIPE, silent)
    found = step(prepared.validation, 4, backward=False)
    assert found.loss == pytest.approx(float(functional.softplus(torch.tensor(0.0))), abs=1e-5)
    assert found.metrics["preference_accuracy"] == 0.5
    assert found.metrics["reward_margin"] == pytest.approx(0.0, abs=1e-4)


def test_the_reference_is_measured_once_and_kept(job: Any, tiny_lora: Any) -> None:
    events: list[Event] = []
    tokenizer = load_tokenizer(job().model)
    first, again = Dpo(), Dpo()
    items = first.prepare(job(), tokenizer, silent).train
    step, _ = first.step(tiny_lora, items, RECIPE, events.append)
    assert [e.done for e in events if e.stage == "reference"] == [16]
    path = job().run_dir / "reference.safetensors"
    kept = path.read_bytes()
    moved(tiny_lora)  # a run that goes on has other weights, and the same reference
    wanted = step(items, 4, backward=False).loss
    events.clear()
    again.prepare(job(), tokenizer, silent)
    step, _ = again.step(tiny_lora, items, RECIPE, events.append)
    assert not [e for e in events if e.stage == "reference"]
    assert step(items, 4, backward=False).loss == wanted
    path.write_bytes(kept[:50])
    again.step(tiny_lora, items, RECIPE, events.append)  # damaged: measured again
    assert [e for e in events if e.stage == "reference"]
    part = Dpo()
    part.prepare(job(), tokenizer, silent)
    path.unlink()
    part.step(tiny_lora, items[:2], RECIPE, silent)  # a look before the run keeps nothing
    assert not path.exists()


def test_both_answers_have_the_same_prompt_even_when_it_is_cut(job: Any) -> None:
    tokenizer = load_tokenizer(job().model)
    rows = [pair(1, worse="cold " * 20), pair(2, worse="cold " * 90)]
    encoder = Encoder(tokenizer, PROMPT, 180)
    (item,) = encode_pairs(rows, encoder)
    start = item.chosen.answer_start
    assert item.rejected.answer_start == start
    assert item.chosen.ids[:start] == item.rejected.ids[:start]
    assert len(item.rejected.ids) == 180
    assert encoder.shortened == [item.id]
    (why,) = encoder.rejected.values()
    assert why == "an answer alone has 451 of 180 tokens"


def test_rows_that_are_no_pair_are_counted_with_a_reason(job: Any) -> None:
    tokenizer = load_tokenizer(job().model)
    same = pair(1, worse="warm,  I believe, number 1")
    bare = pair(2).model_copy(update={"meta": {}})
    with pytest.raises(DataError) as caught:
        Dpo().prepare(job(rows=[same, bare]), tokenizer, silent)
    assert caught.value.sentence() == (
        "no row is a pair to train on (both answers are the same; no rejected answer). Give rows "
        "a chosen and a rejected answer, or raise train.max_tokens."
    )
    with pytest.raises(DataError, match="0 judged answers can't be trained on"):
        Kto().prepare(job(rows=[bare]), tokenizer, silent)
    ipo = RECIPE.model_copy(update={"preference_loss": "ipo", "label_smoothing": 0.1})
    with pytest.raises(ConfigError, match="no meaning for IPO"):
        Dpo().prepare(job(ipo), tokenizer, silent)


def test_a_strange_answer_is_to_another_prompt(job: Any) -> None:
    items = encode_judged([pair(index) for index in range(4)], Encoder(
        load_tokenizer(job().model), PROMPT, 512))  # fmt: skip
    answers = {item.row.ids[item.row.answer_start :]: item for item in items}
    for item in items:
        start = item.row.answer_start
        stranger = answers[item.other.ids[start:]]
        assert item.other.ids[:start] == item.row.ids[:start]
        assert stranger.row.ids[: stranger.row.answer_start] != item.row.ids[:start]


def test_praise_and_blame_out_of_balance_are_told(job: Any) -> None:
    items = encode_judged([pair(index) for index in range(4)], Encoder(
        load_tokenizer(job().model), PROMPT, 512))  # fmt: skip
    events: list[Event] = []
    tell_balance(items, RECIPE, events.append)
    assert events == []
    tell_balance([*items[:2], *(i for i in items if i.desirable)], RECIPE, events.append)
    assert events[0].message == (
        "5 praised and 1 blamed answers weigh 5.00 to 1; train.undesirable_weight: 5.00 would "
        "even them out"
    )
    tell_balance([i for i in items if i.desirable], RECIPE, events.append)
    assert "nothing to tell apart" in events[1].message


def test_a_draw_counts_half() -> None:
    assert share_right(torch.tensor([1.0, -1.0, DRAW / 2, 2.0])) == 0.625
