"""The classification head and the cloze from rows to answers, on the tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tutelage.core.config import Cloze, Pattern
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event, silent
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.inference.base import Prompt
from tutelage.inference.chat import conversation
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import TransformersGenerator, load_model, load_tokenizer
from tutelage.inference.transformers_head import load_classifier
from tutelage.training.adapters import attach_lora, trained_parameters
from tutelage.training.job import TrainingJob
from tutelage.training.methods.classify import Classification, head_logits
from tutelage.training.methods.cloze import ClozeObjective
from tutelage.training.recipe import Recipe
from tutelage.training.self_check import self_check
from tutelage.training.session import train
from tutelage.training.shared_step import SharedStep, plain_step

FORMAT = OutputFormat("family", ("warm", "cold"))
PROMPT = "Say whether the colour is warm or cold, as JSON, and nothing else at all."
RECIPE = Recipe(
    method="classify", rank=4, alpha=8.0, learning_rate=5e-3, epochs=6, batch_size=4,
    micro_batch=4, eval_every=4, patience=99, checkpoint_every=50,
)  # fmt: skip

MakeJob = Callable[..., TrainingJob]


@pytest.fixture
def signed(colours: list[Example]) -> list[Example]:
    """Colours whose label can be seen: enough for a random model to learn from eight rows."""

    def sign(row: Example) -> Example:
        text = ("+" if row.label == "warm" else "-") * 12 + row.context[-1].content
        messages = (Message(role="user", content=text), row.messages[-1])
        return row.model_copy(update={"messages": messages})

    return [sign(row) for row in colours]


@pytest.fixture
def make_job(tiny_source: ModelSource, signed: list[Example], tmp_path: Path) -> MakeJob:
    """Return a function that makes a job; keywords change the recipe."""

    def make(output: OutputFormat = FORMAT, **changes: Any) -> TrainingJob:
        recipe = RECIPE.model_copy(update=changes)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        return TrainingJob(
            tiny_source, signed[:8], signed[8:], PROMPT, recipe, folder, output=output
        )

    return make


def prompts_of(rows: list[Example]) -> list[Prompt]:
    return [Prompt(conversation(row, PROMPT)) for row in rows]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    taken = {}
    for name, parameter in trained_parameters(model).items():
        assert parameter.grad is not None, name
        taken[name], parameter.grad = parameter.grad.clone(), None
    return taken


def settings_of(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "tutelage.json").read_text())["settings"]
    return settings


# --- classify ---


def test_the_head_learns_on_shared_prompts_as_on_plain_ones(
    tiny_source: ModelSource, make_job: MakeJob
) -> None:
    objective, job = Classification(), make_job()
    items = objective.prepare(job, load_tokenizer(tiny_source), silent).train
    model = attach_lora(objective.load(job), job.recipe)
    assert any("score" in name for name in trained_parameters(model))
    reference = _cross_entropy(model, items)
    reference.backward()
    wanted = gradients(model)
    for step in (plain_step, lambda m, r, b: SharedStep(m)(r, b)):
        for micro_batch in (1, 8):
            result = step(model, items, micro_batch)
            assert result.loss == pytest.approx(reference.item(), abs=1e-5)
            for name, found in gradients(model).items():
                assert (found - wanted[name]).norm() <= 1e-4 * wanted[name].norm() + 1e-9, name
    assert result.unique < 0.5 * result.total
    assert self_check(model, items) is None


def _cross_entropy(model: Any, items: Any) -> torch.Tensor:
    """Through transformers' own forward of the classifier, a row at a time."""
    logits = [model(input_ids=torch.tensor([row.ids[:-1]])).logits[0] for row in items]
    return functional.cross_entropy(
        torch.stack(logits), torch.tensor([row.ids[-1] for row in items])
    )


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_classifier_is_trained_saved_and_answers(
    tiny_source: ModelSource, make_job: MakeJob, tune: str
) -> None:
    job = make_job(tune=tune, learning_rate=1e-3 if tune == "full" else 1e-2, epochs=10)
    result = train(job)
    losses = [point["loss"] for point in result.history if "loss" in point]
    assert losses[-1] < 0.5 * losses[0]
    assert result.prefix["shared"] is True
    settings = settings_of(result.adapter_dir)
    assert settings["labels"] == ["warm", "cold"]
    assert settings["answers"] == ['{"family": "warm"}', '{"family": "cold"}']
    engine = TransformersGenerator(tiny_source, adapter=result.adapter_dir)
    rows = job.train
    completions = engine.generate(prompts_of(rows))
    texts = [completion.text for completion in completions]
    right = sum(
        FORMAT.parse(text).label == row.label for text, row in zip(texts, rows, strict=True)
    )
    assert right >= 7
    scores = engine.score_labels(prompts_of(rows), settings["answers"], whole=False)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, atol=1e-9)
    for completion, score in zip(completions, scores, strict=True):
        assert completion.finish_reason == "stop"
        assert completion.text == settings["answers"][int(score.argmax())]
        assert completion.meta["probability"] == pytest.approx(math.exp(score.max()), abs=1e-5)
    unknown = engine.score_labels(prompts_of(rows[:1]), ["blue", settings["answers"][1]])
    assert unknown[0, 0] == -np.inf
    assert unknown[0, 1] == pytest.approx(scores[0, 1], abs=1e-4)
    alone = engine.score_labels(prompts_of(rows[3:4]), settings["answers"])
    np.testing.assert_allclose(alone[0], scores[3], atol=1e-4)


def test_a_head_on_a_4_bit_base_is_not_packed(tiny_source: ModelSource, make_job: MakeJob) -> None:
    pytest.importorskip("bitsandbytes")
    result = train(make_job(tune="qlora", epochs=1))
    engine = TransformersGenerator(tiny_source, adapter=result.adapter_dir)
    scores = engine.score_labels(prompts_of(make_job().train), ['{"family": "warm"}'])
    assert np.isfinite(scores).all()


def test_transformers_and_peft_read_the_folder_too(
    tiny_source: ModelSource, make_job: MakeJob
) -> None:
    from peft import PeftModel

    job = make_job()
    folder = train(job).adapter_dir
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and "score" in config["modules_to_save"]
    base = load_classifier(tiny_source, ("warm", "cold"), seed=99)
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    engine = TransformersGenerator(tiny_source, adapter=folder)
    settings = settings_of(folder)
    scores = engine.score_labels(prompts_of(job.validation), settings["answers"])
    tokenizer = load_tokenizer(tiny_source)
    for prompt, score in zip(prompts_of(job.validation), scores, strict=True):
        turns = [m.model_dump() for m in prompt.messages]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0] / settings["temperature"]
        np.testing.assert_allclose(torch.log_softmax(logits, -1).numpy(), score, atol=1e-4)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_the_language_model_is_still_there_beside_a_head(
    tiny_source: ModelSource, make_job: MakeJob, tune: str
) -> None:
    folder = train(make_job(tune=tune, epochs=2, learning_rate=5e-4)).adapter_dir
    engine = TransformersGenerator(tiny_source)
    texts = ["the colour of the sea", "a warm day"]
    base = engine.mean_nll(texts)
    prompt = [Prompt((Message(role="user", content="hello"),))]
    written = engine.generate(prompt)[0].text
    engine.set_adapter(folder)
    tuned = engine.mean_nll(texts)
    assert [mark[0] for mark in tuned] != [mark[0] for mark in base]
    # A few small steps move a language model a little; another head would move it to chance.
    for (was, _), (now, _) in zip(base, tuned, strict=True):
        assert now == pytest.approx(was, rel=0.05)
    engine.set_adapter(None)
    assert engine.mean_nll(texts) == base
    assert engine.generate(prompt)[0].text == written


def test_adapters_of_other_methods_live_beside_a_head(
    tiny_source: ModelSource, make_job: MakeJob
) -> None:
    two = train(make_job(epochs=1)).adapter_dir
    lora = train(make_job(method="lora", epochs=1)).adapter_dir
    three = train(make_job(OutputFormat("family", ("warm", "cold", "grey")), epochs=1)).adapter_dir
    alone: dict[Path, Any] = {}
    for folder in (two, three, lora):
        engine = TransformersGenerator(tiny_source, adapter=folder)
        alone[folder] = [c.text for c in engine.generate(prompts_of(make_job().train))]
    engine = TransformersGenerator(tiny_source)
    for folder in (two, lora, three, two):
        engine.set_adapter(folder)
        assert [c.text for c in engine.generate(prompts_of(make_job().train))] == alone[folder]


def test_balanced_weights_even_out_rare_labels(tiny_source: ModelSource, make_job: MakeJob) -> None:
    job = make_job(class_weights="balanced")
    job = replace(job, train=[r for r in job.train if r.label == "warm"] + job.train[1:2])
    assert [row.label for row in job.train].count("warm") == 4
    objective = Classification()
    items = objective.prepare(job, load_tokenizer(tiny_source), silent).train
    weights = {row.ids[-1]: row.weight for row in items}
    assert weights == {0: pytest.approx(5 / 8), 1: pytest.approx(5 / 2)}
    assert sum(row.weight for row in items) == pytest.approx(len(items))


def test_a_killed_classifier_goes_on_with_its_head(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(epochs=3, checkpoint_every=2)
    whole = train(job)
    again = replace(job, run_dir=tmp_path / "again")

    class Killed(Exception):
        pass

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.done == 3:
            raise Killed

    with pytest.raises(Killed):
        train(again, emit=stop)
    assert any((again.run_dir / "checkpoints").iterdir())
    second = train(again)
    name = "adapter_model.safetensors"
    assert (second.adapter_dir / name).read_bytes() == (whole.adapter_dir / name).read_bytes()
    assert settings_of(second.adapter_dir) == settings_of(whole.adapter_dir)


# --- cloze ---


def test_the_cloze_loss_is_that_of_every_pattern_and_label_by_itself(
    tiny_source: ModelSource, make_job: MakeJob
) -> None:
    words = {"warm": ["hot", "like fire"], "cold": ["chilly"]}
    question = Pattern(
        ask="Text: {text}\n\nQuestion: Which family fits this text?",
        answer="The family is {label}.",
    )
    three = [Pattern(), Pattern(ask="{text}\n\nFamily:", answer="{label}"), question]
    cloze = Cloze(patterns=three, verbalisers=words)
    job = make_job(method="cloze", cloze=cloze, class_weights="balanced")
    objective = ClozeObjective()
    items = list(objective.prepare(job, load_tokenizer(tiny_source), silent).train)[:3]
    model = attach_lora(load_model(tiny_source), job.recipe)
    reference = _by_hand(model, job, items)
    reference.backward()
    wanted = gradients(model)
    for shared in (True, False):
        recipe = job.recipe.model_copy(update={"shared_prefix": shared})
        step, report = objective.step(model, items, recipe, silent)
        assert report["shared"] == shared
        for micro_batch in (1, 50):
            result = step(items, micro_batch)
            assert result.loss == pytest.approx(reference.item(), abs=2e-5)
            assert result.weight == pytest.approx(sum(item.weight for item in items))
            for name, found in gradients(model).items():
                assert (found - wanted[name]).norm() <= 2e-4 * wanted[name].norm() + 1e-9, name
    half = step(items[:1], 4, weight=2.0, backward=False)
    assert half.loss == pytest.approx(step(items[:1], 4, backward=False).loss / 2 * items[0].weight)


def _by_hand(model: Any, job: TrainingJob, items: Any) -> torch.Tensor:
    """The loss from texts alone: label words after each of the three patterns."""
    tokenizer = load_tokenizer(job.model)
    asks = ["{}", "{}\n\nFamily:", "Text: {}\n\nQuestion: Which family fits this text?"]
    answers = [
        [['{"family": "warm"}'], ['{"family": "cold"}']],
        [["hot", "like fire"], ["chilly"]],
        [["The family is hot.", "The family is like fire."], ["The family is chilly."]],
    ]
    by_id = {row.id: row for row in job.train}
    total, weight = torch.zeros(()), 0.0
    for item in items:
        row = by_id[item.id]
        for ask, texts in zip(asks, answers, strict=True):
            system, user = conversation(row, PROMPT)
            turns = [
                {"role": "system", "content": system.content},
                {"role": "user", "content": ask.format(user.content)},
            ]
            start = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            scores = []
            for words in texts:
                found = [_likelihood(model, tokenizer, start, _cut(texts, word)) for word in words]
                scores.append(torch.stack(found).exp().mean().log())
            target = torch.tensor([["warm", "cold"].index(row.label or "")])
            total = total + item.weight * functional.cross_entropy(
                torch.stack(scores)[None], target
            )
        weight += item.weight
    return total / 3 / weight


def _cut(texts: list[list[str]], word: str) -> str:
    """Return the answer with its end of turn, up to the first token that ends all answers."""
    whole = [text + "<|im_end|>" for group in texts for text in group]
    same = 0
    while len({text[-1 - same] for text in whole}) == 1:
        same += 1
    if word.endswith("}"):
        return word[:-1]  # the quote stays, the brace and the end of the turn go
    if word.endswith("."):
        return word  # the full stop stays
    return word + "<|im_end|>"


def _likelihood(model: Any, tokenizer: Any, start: str, answer: str) -> torch.Tensor:
    context = tokenizer(start, add_special_tokens=False)["input_ids"]
    tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
    odds = torch.log_softmax(model(input_ids=torch.tensor([context + tail])).logits[0].double(), -1)
    places = torch.arange(len(context) - 1, len(context) + len(tail) - 1)
    return odds[places, torch.tensor(tail)].sum()


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_cloze_is_trained_saved_and_answers(
    tiny_source: ModelSource, make_job: MakeJob, tune: str
) -> None:
    job = make_job(
        method="cloze", tune=tune, learning_rate=5e-4 if tune == "full" else 5e-3, epochs=5
    )
    result = train(job)
    losses = [point["loss"] for point in result.history if "loss" in point]
    assert losses[0] < 5.0 and losses[-1] < 0.5 * losses[0]
    assert result.prefix["shared"] is True
    assert result.prefix["unique"] < 0.5 * result.prefix["total"]
    settings = settings_of(result.adapter_dir)
    assert settings["forms"][0]["ask"] == "{text}"
    engine = TransformersGenerator(tiny_source, adapter=result.adapter_dir)
    completions = engine.generate(prompts_of(job.train))
    right = [
        FORMAT.parse(c.text).label == row.label
        for c, row in zip(completions, job.train, strict=True)
    ]
    assert sum(right) >= 7
    scores = engine.score_labels(prompts_of(job.train), settings["answers"], whole=False)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, atol=1e-9)
    assert [settings["answers"][i] for i in scores.argmax(axis=1)] == [c.text for c in completions]


def test_training_and_answering_weigh_labels_alike(
    tiny_source: ModelSource, make_job: MakeJob
) -> None:
    job = make_job(method="cloze", epochs=2, cloze=Cloze(calibrate="never"))
    result = train(job)
    best = min(p["validation_loss"] for p in result.history if "validation_loss" in p)
    settings = settings_of(result.adapter_dir)
    assert settings["temperature"] == 1.0 and settings["prior"] is None  # four validation rows
    (folder, forms) = (result.adapter_dir, settings["forms"])
    losses = []
    for form in forms:  # the loss is the mean over patterns, so ask with one at a time
        info = {"answerer": "cloze", "settings": settings | {"forms": [form]}}
        (folder / "tutelage.json").write_text(json.dumps(info))
        engine = TransformersGenerator(tiny_source, adapter=folder)
        scores = engine.score_labels(prompts_of(job.validation), settings["answers"])
        truth = [settings["labels"].index(row.label) for row in job.validation]
        losses.append(-scores[np.arange(len(truth)), truth].mean())
    assert np.mean(losses) == pytest.approx(best, abs=1e-4)


def test_a_prior_is_divided_out_if_it_is_asked_for(make_job: MakeJob) -> None:
    job = make_job(method="cloze", epochs=1, cloze=Cloze(calibrate="always"))
    settings = settings_of(train(job).adapter_dir)
    prior = np.exp(np.array(settings["prior"]))
    assert prior.shape == (2, 2)
    np.testing.assert_allclose(prior.sum(axis=1), 1.0, atol=1e-5)


def test_own_patterns_take_the_place_of_the_default_ones(make_job: MakeJob) -> None:
    own = Cloze(patterns=[Pattern(ask="Is {text} warm?", answer="{label}, I say")])
    job = make_job(method="cloze", epochs=1, cloze=own)
    (form,) = settings_of(train(job).adapter_dir)["forms"]
    assert form == {
        "ask": "Is {text} warm?", "texts": ["warm, I say", "cold, I say"], "owners": [0, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cloze", "reason"),
    [
        (Cloze(verbalisers={"wram": ["hot"]}), "'wram' is not one of the 2 labels"),
        (Cloze(verbalisers={"warm": []}), "the label 'warm' has no words"),
        (Cloze(verbalisers={"warm": ["cold"]}), "have the same words, 'cold'"),
    ],
)
def test_words_that_fit_no_label_are_refused(make_job: MakeJob, cloze: Cloze, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        train(make_job(method="cloze", cloze=cloze))


# --- both ---


@pytest.mark.parametrize("method", ["classify", "cloze"])
def test_rows_without_a_label_of_the_list_are_named(make_job: MakeJob, method: str) -> None:
    events: list[Event] = []
    job = make_job(method=method, epochs=1)
    strange = Example(
        messages=(
            Message(role="user", content="the colour grey"),
            Message(role="assistant", content='{"family": "grey"}'),
        ),
        label="grey",
    )
    job = replace(job, train=[*job.train, strange])
    result = train(job, emit=events.append)
    assert result.coverage["rejected"] == {strange.id: "'grey' is not one of the labels"}
    warnings = [event.message for event in events if event.kind == "warning"]
    assert any(strange.id in text for text in warnings)


@pytest.mark.parametrize("method", ["classify", "cloze"])
def test_free_text_has_no_labels_to_choose_from(make_job: MakeJob, method: str) -> None:
    job = make_job(OutputFormat(), method=method)
    rows = [row.model_copy(update={"label": None}) for row in job.train]
    with pytest.raises(DataError, match="have no label") as caught:
        train(replace(job, train=rows))
    assert "task: classification" in (caught.value.fix or "")


@pytest.mark.parametrize("method", ["classify", "cloze"])
def test_labels_come_from_the_rows_if_there_is_no_list(make_job: MakeJob, method: str) -> None:
    job = make_job(OutputFormat("family"), method=method, epochs=1)
    assert settings_of(train(job).adapter_dir)["labels"] == ["cold", "warm"]


def test_head_logits_do_not_depend_on_the_batch(
    tiny_source: ModelSource, make_job: MakeJob
) -> None:
    objective, job = Classification(), make_job()
    items = objective.prepare(job, load_tokenizer(tiny_source), silent).train
    model = objective.load(job)
    together = head_logits(model, items)
    alone = np.concatenate([head_logits(model, [row]) for row in items])
    np.testing.assert_allclose(together, alone, atol=1e-5)
