"""Shared prefixes without copies, rows as one stream, the likeliest label by branch and bound."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model

from tutelage.core.example import Message
from tutelage.inference import transformers_search
from tutelage.inference.base import Decoding, Prompt
from tutelage.inference.chat import conversation
from tutelage.inference.label_choice import choices_of, choose, log_softmax
from tutelage.inference.models import ModelSource, locate_model
from tutelage.inference.transformers import TransformersGenerator, load_model, load_tokenizer
from tutelage.inference.transformers_attention import Slots, Tokens, plan_pass, rows_attention
from tutelage.inference.transformers_cache import Runner
from tutelage.inference.transformers_labels import as_beginnings, make_trie
from tutelage.inference.transformers_search import Answers

SYSTEM = "You name the chapter of a diagnosis. Chapters: eye, ear, skin, blood."
INPUTS = ("otitis", "acne of the face", "myopia, left eye", "iron deficiency anaemia", "x", "rash")
LABELS = ("eye", "ear", "skin", "blood", "eyelid", "early", "skin of the face", "e")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    return ModelSource(str(path), path.name, "directory", path, "0" * 64)


@pytest.fixture(scope="module")
def generator(source: ModelSource) -> TransformersGenerator:
    return TransformersGenerator(source, batch_size=4)


def prompts(texts: tuple[str, ...] = INPUTS, **decoding: Any) -> list[Prompt]:
    settings = Decoding(**({"max_tokens": 9} | decoding))
    return [
        Prompt(conversation([Message(role="user", content=text)], SYSTEM), settings)
        for text in texts
    ]


# Attention


def test_attention_in_parts_is_that_of_one_softmax() -> None:
    torch.manual_seed(0)
    heads, groups, size, prefix_len = 4, 2, 8, 5
    prefix = torch.randn(2, groups, prefix_len, size)
    slots = Slots([(prefix[0], prefix[1])], rows=2, room=4)
    module = torch.nn.Module()
    module.layer_idx = 0
    rows = torch.tensor([0, 0, 0, 1, 1])
    at = torch.tensor([0, 1, 2, 0, 1])
    query = torch.randn(1, heads, 5, size)
    key, value = torch.randn(2, 1, groups, 5, size)
    sees = torch.arange(3) <= at[:, None]
    sees[2, 1] = False  # a node does not see its sister
    plan = plan_pass(slots, Tokens(rows, rows, at, at, sees))
    made, _ = rows_attention(module, query, key, value, None, rows_pass=plan)
    first = {0: 0, 1: 3}  # where each row begins in the stream
    for token, row in enumerate(rows.tolist()):
        seen = [first[row] + slot for slot in range(3) if bool(sees[token, slot])]
        for head in range(heads):
            group = head // (heads // groups)
            keys = torch.cat([prefix[0, group], key[0, group, seen]])
            values = torch.cat([prefix[1, group], value[0, group, seen]])
            odds = torch.softmax(keys @ query[0, head, token] * size**-0.5, dim=0)
            torch.testing.assert_close(made[0, token, head], odds @ values, atol=1e-6, rtol=1e-5)


def test_attention_it_does_not_know_is_refused() -> None:
    part = torch.zeros(1, 2, 1, 4)
    slots = Slots([(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4))], rows=1, room=1)
    zero = torch.tensor([0])
    plan = plan_pass(slots, Tokens(zero, zero, zero, zero))
    for extra in ({"softcap": 30.0}, {"sliding_window": 8}, {"rows_pass": None}):
        with pytest.raises(NotImplementedError, match="attention with"):
            rows_attention(
                torch.nn.Module(), part, part, part, None, **({"rows_pass": plan} | extra)
            )


def test_slots_that_grow_keep_what_they_hold() -> None:
    slots = Slots([(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))], rows=2, room=2)
    slots.own[0][0][1, 1] = 7.0
    slots.grow(5)
    assert slots.room == 5
    assert slots.own[0][0][1, 1].eq(7.0).all()
    assert slots.own[0][0].sum() == 7.0 * 8


def test_a_model_whose_attention_differs_takes_the_plain_path(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Runner(load_model(source), 258)
    assert honest.shares
    assert honest.why_plain is None

    def wrong(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        out, _ = rows_attention(*args, **kwargs)
        return out * 0.5, None

    from transformers import AttentionInterface

    from tutelage.inference import transformers_cache

    monkeypatch.setattr(
        transformers_cache, "register", lambda: AttentionInterface.register("odd", wrong)
    )
    monkeypatch.setattr(transformers_cache, "NAME", "odd")
    generator = TransformersGenerator(source)
    assert not generator._runner.shares
    assert generator._runner.why_plain == "its attention gives other numbers"
    plain = TransformersGenerator(source, share=False)
    assert [c.text for c in generator.generate(prompts())] == [
        c.text for c in plain.generate(prompts())
    ]
    assert generator.choose_labels(prompts(), LABELS) == plain.choose_labels(prompts(), LABELS)


@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "phi"])
def test_other_families_give_the_same_on_both_paths(kind: str, source: ModelSource) -> None:
    model = family(kind)
    tokenizer = load_tokenizer(source)
    ours = TransformersGenerator.over(model, tokenizer)
    plain = TransformersGenerator.over(model, tokenizer, share=False)
    scores = ours.score_labels(prompts(), LABELS)
    np.testing.assert_allclose(scores, plain.score_labels(prompts(), LABELS), atol=1e-4)
    assert [c.text for c in ours.generate(prompts())] == [c.text for c in plain.generate(prompts())]


def family(kind: str) -> Any:
    """Return a tiny random model of another architecture that the byte tokenizer fits."""
    import transformers as hf

    torch.manual_seed(5)
    sizes = {
        "vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "eos_token_id": 257, "bos_token_id": None, "pad_token_id": 258,
    }  # fmt: skip
    if kind == "gpt2":
        short = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
        return hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=259, eos_token_id=257, bos_token_id=257, **short)
        ).eval()
    if kind == "phi":
        return hf.PhiForCausalLM(hf.PhiConfig(**sizes)).eval()
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**sizes, num_key_value_heads=2, head_dim=8)).eval()


def test_sixteen_bits_are_shared_too(source: ModelSource) -> None:
    ours = TransformersGenerator(source, dtype="bfloat16")
    plain = TransformersGenerator(source, dtype="bfloat16", share=False)
    scores = ours.score_labels(prompts(), LABELS)
    assert ours._runner.shares
    np.testing.assert_allclose(scores, plain.score_labels(prompts(), LABELS), atol=0.3)


def test_a_model_in_training_is_tried_without_dropout_and_trains_on(source: ModelSource) -> None:
    model = family("gpt2").train()
    runner = Runner(model, 258)
    assert runner.shares
    assert model.training


# The prefix


def test_a_prefix_is_computed_once_whatever_the_batches(source: ModelSource) -> None:
    generator = TransformersGenerator(source, batch_size=2)
    generator.generate(prompts(INPUTS[:1]))
    kept = generator._runner._prefix
    assert kept is not None
    same_words = tuple(f"the ear of case {number}" for number in (1, 2, 3))
    generator.generate(prompts(same_words))
    generator.score_labels(prompts(INPUTS[2:3]), LABELS)
    generator.choose_labels(prompts(same_words), LABELS)
    assert generator._runner._prefix is kept


def test_rows_that_ended_leave_the_others_as_they_are(generator: TransformersGenerator) -> None:
    limits = (1, 9, 3, 9, 2, 9)
    mixed = [
        Prompt(prompt.messages, Decoding(max_tokens=limit))
        for prompt, limit in zip(prompts(), limits, strict=True)
    ]
    whole = generator.generate(prompts())
    for cut, full, limit in zip(generator.generate(mixed), whole, limits, strict=True):
        assert full.text.startswith(cut.text)
        assert cut.usage.completion_tokens == min(limit, full.usage.completion_tokens)


# Labels


def test_children_are_found_for_many_nodes_at_once() -> None:
    answers = Answers.of([[1, 2, 9], [1, 3, 9], [4, 9], [1, 2, 5, 9]])
    trie = make_trie([[1, 2, 9], [1, 3, 9], [4, 9], [1, 2, 5, 9]])
    nodes = np.array([-1, 0, 1])
    children, owner = answers.below(nodes)
    expected = [
        (child, place)
        for place, node in enumerate(nodes)
        for child, parent in enumerate(trie.parents)
        if parent == node
    ]
    assert list(zip(children.tolist(), owner.tolist(), strict=True)) == expected
    assert answers.above[trie.paths[3][3]].tolist() == trie.paths[3][:3]
    assert answers.last.tolist() == [path[-1] for path in trie.paths]


@pytest.mark.parametrize("whole", [False, True])
def test_the_likeliest_label_is_that_of_all_scores(
    generator: TransformersGenerator, whole: bool
) -> None:
    scores = generator.score_labels(prompts(), LABELS, whole=whole)
    chosen = generator.choose_labels(prompts(), LABELS, whole=whole)
    shares = np.exp(log_softmax(scores)).max(axis=1)
    assert [c.best for c in chosen] == scores.argmax(axis=1).tolist()
    np.testing.assert_allclose([c.log_p for c in chosen], scores.max(axis=1), atol=1e-4)
    for choice, share in zip(chosen, shares, strict=True):
        assert choice.least - 1e-5 <= share <= choice.most + 1e-5


def test_less_is_looked_at_than_all_labels_need(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [f"{left}{right}" for left in "abcdefgh" for right in ("lpha", "ravo", "harlie")]
    looked = {True: 0, False: 0}
    walk = transformers_search.Search._compute

    def counted(self: Any, rows: Any, nodes: Any) -> torch.Tensor:
        looked[self._bounded] += len(nodes)
        return walk(self, rows, nodes)

    monkeypatch.setattr(transformers_search.Search, "_compute", counted)
    monkeypatch.setattr(transformers_search, "_FILL", 4)
    scores = generator.score_labels(prompts(), labels)
    chosen = generator.choose_labels(prompts(), labels, whole=True)
    assert [c.best for c in chosen] == scores.argmax(axis=1).tolist()
    assert (
        0
        < looked[True]
        < looked[False]
        == len(INPUTS) * int(Answers.of(generator._tails(prompts()[0], labels, True)).inner.sum())
    )


def test_small_passes_and_slots_that_run_out_change_nothing(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = generator.score_labels(prompts(), LABELS)
    chosen = generator.choose_labels(prompts(), LABELS)
    monkeypatch.setattr(transformers_search, "_EXPECTED", 1)
    monkeypatch.setattr(transformers_search, "_MOST", 3)
    monkeypatch.setattr(transformers_search, "_LEAST", 3)
    monkeypatch.setattr(transformers_search, "_STATES_MB", 0)  # one row at a time
    np.testing.assert_allclose(before, generator.score_labels(prompts(), LABELS), atol=1e-4)
    again = generator.choose_labels(prompts(), LABELS)
    assert [c.best for c in chosen] == [c.best for c in again]


def test_an_ending_is_weighed_only_where_another_label_goes_on() -> None:
    assert as_beginnings([[1, 5, 9], [1, 5, 6, 9], [2, 9]]) == [[1, 5, 9], [1, 5, 6], [2]]
    assert as_beginnings([[9], [1, 9]]) == [[9], [1]]
    assert as_beginnings([[1, 2], [1, 3]]) == [[1, 2], [1, 3]]
    assert as_beginnings([]) == []


def test_a_label_that_begins_the_text_is_the_likeliest_beginning(
    generator: TransformersGenerator,
) -> None:
    chosen = generator.choose_labels(prompts(), LABELS, ended=False)
    tails = as_beginnings(generator._tails(prompts()[0], LABELS, False))
    for prompt, choice in zip(prompts(), chosen, strict=True):
        row = generator._rows([prompt])[0]
        with generator._still():
            scores = generator._score_plain(row.ids, tails)
        assert choice.best == int(np.argmax(scores))
        assert choice.log_p == pytest.approx(max(scores), abs=2e-4)


def test_prompts_that_were_just_answered_are_not_read_again(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = TransformersGenerator(source).choose_labels(prompts(), LABELS, ended=False)
    engine = TransformersGenerator(source, batch_size=len(INPUTS))
    texts = [done.text for done in engine.generate(prompts())]
    read: list[int] = []
    stream = engine._runner.stream

    def counted(batch: Any, tokens: Tokens, *, keep: torch.Tensor | None = None) -> torch.Tensor:
        read.append(len(tokens.ids) if keep is not None else 0)
        return stream(batch, tokens, keep=keep)

    monkeypatch.setattr(engine._runner, "stream", counted)
    chosen = engine.choose_labels(prompts(), LABELS, ended=False)
    assert sum(read) == 0
    assert [c.best for c in chosen] == [c.best for c in fresh]
    assert [c.log_p for c in chosen] == pytest.approx([c.log_p for c in fresh], abs=2e-4)
    assert [done.text for done in engine.generate(prompts())] == texts
    assert sum(read) > 0


def test_one_label_and_no_label(generator: TransformersGenerator) -> None:
    (only,) = generator.choose_labels(prompts(("otitis",)), ["ear"])
    assert only.best == 0
    assert only.least == only.most == 1.0
    assert generator.choose_labels([], ["ear"]) == []
    assert generator.choose_labels(prompts(), []) == []
    assert generator.score_labels(prompts(), []).shape == (len(INPUTS), 0)


def test_an_engine_that_only_scores_is_asked_for_all_scores() -> None:
    class Scores:
        def score_labels(self, prompts: Any, answers: Any, *, whole: bool = True) -> Any:
            return np.log([[0.2, 0.6, 0.2]] * len(prompts))

    (chosen,) = choose(Scores(), prompts(("x",)), ["a", "b", "c"])
    assert chosen == choices_of(np.log([[0.2, 0.6, 0.2]]))[0]
    assert chosen.best == 1
    assert chosen.least == pytest.approx(0.6)


# The demo model


@pytest.mark.model
def test_the_demo_chooses_and_writes_as_the_plain_path_does(shared_data: Path) -> None:
    with (shared_data / "banking77" / "test.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = sorted({row["category"] for row in rows})[::13]
    system = "Name the intent. Answer with one of: " + ", ".join(labels)
    asked = [
        Prompt(
            conversation([Message(role="user", content=row["text"])], system),
            Decoding(max_tokens=4),
        )
        for row in rows[:200:100]
    ]
    ours = TransformersGenerator(locate_model("demo"), batch_size=2)
    plain = TransformersGenerator.over(ours._model, ours.tokenizer, batch_size=2, share=False)
    expected = plain.score_labels(asked, labels, whole=False)
    np.testing.assert_allclose(ours.score_labels(asked, labels, whole=False), expected, atol=2e-4)
    chosen = ours.choose_labels(asked, labels)
    assert [c.best for c in chosen] == expected.argmax(axis=1).tolist()
    assert [c.text for c in ours.generate(asked)] == [c.text for c in plain.generate(asked)]
