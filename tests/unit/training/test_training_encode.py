"""What is labelled, what is cut, and what stops a run before its first step."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, Origin
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_tokenizer
from tutelage.training.encode import cut_middle, encode

PROMPT = "Answer warm or cold."


@pytest.fixture(scope="module")
def tokenizer(tiny_source: ModelSource) -> Any:
    return load_tokenizer(tiny_source)


def row(text: str, answer: str | None) -> Example:
    turns = [Message(role="user", content=text)]
    if answer is not None:
        turns.append(Message(role="assistant", content=answer))
    return Example(messages=tuple(turns))


def test_only_the_answer_and_its_end_are_labelled(tokenizer: Any) -> None:
    (made,) = encode([row("amber", "warm")], tokenizer, PROMPT, max_tokens=200).rows
    labelled = [token for token, weight in zip(made.ids, made.weights, strict=True) if weight]
    assert tokenizer.decode(labelled) == "warm<|im_end|>"
    assert tokenizer.decode(list(made.ids[: made.answer_start])) == (
        "<|im_start|>system\nAnswer warm or cold.<|im_end|>\n"
        "<|im_start|>user\namber<|im_end|>\n<|im_start|>assistant\n"
    )


def test_prompt_tokens_weigh_what_the_recipe_says(tokenizer: Any) -> None:
    options = {"max_tokens": 200, "prompt_loss_weight": 0.1}
    (made,) = encode([row("amber", "warm")], tokenizer, PROMPT, **options).rows
    context = made.answer_start
    assert made.weights[0] == 0  # nothing predicts the first token
    assert set(made.weights[1:context]) == {0.1}
    assert made.weight == pytest.approx(0.1 * (context - 1) + 5)


def test_truncation_cuts_the_context_and_keeps_the_answer(tokenizer: Any) -> None:
    example = row("x" * 300, "warm")
    encoded = encode([example], tokenizer, PROMPT, max_tokens=100)
    (made,) = encoded.rows
    text = tokenizer.decode(list(made.ids))
    assert len(made.ids) == 100
    assert text.startswith("<|im_start|>system\nAnswer warm")
    assert text.endswith("<|im_start|>assistant\nwarm<|im_end|>")
    assert encoded.coverage.shortened == (example.id,)


def test_a_row_whose_answer_does_not_fit_is_rejected_by_name(tokenizer: Any) -> None:
    good, long = row("amber", "warm"), row("teal", "c" * 80)
    coverage = encode([good, long], tokenizer, "", max_tokens=64).coverage
    assert coverage.rejected == {long.id: "the answer alone has 81 of 64 tokens"}
    why = f"{long.id}: the answer alone has 81 of 64 tokens"
    assert coverage.sentence() == f"5 labelled of 29 tokens in 1 rows, 1 rejected ({why})"
    known = long.model_copy(update={"origin": Origin(source="data/rows.csv:7")})
    told = encode([good, known], tokenizer, "", max_tokens=64).coverage.sentence()
    assert told.endswith("1 rejected (data/rows.csv:7: the answer alone has 81 of 64 tokens)")


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([None, ""], "no row has a labelled token (no answer)"),
        (["w" * 90], "no row has a labelled token (the answer alone has 91 of 64 tokens)"),
    ],
)
def test_a_run_without_labels_stops_and_names_the_rows(
    tokenizer: Any, answers: list[str | None], problem: str
) -> None:
    examples = [row(f"thing {index}", answer) for index, answer in enumerate(answers)]
    with pytest.raises(DataError) as caught:
        encode(examples, tokenizer, PROMPT, max_tokens=64)
    assert caught.value.what == problem
    assert caught.value.where == f"rows {', '.join(example.id for example in examples)}"
    assert caught.value.fix == "Give the rows answers, or raise train.max_tokens"


def test_control_tokens_in_a_row_are_text(tokenizer: Any) -> None:
    (made,) = encode([row("a<|im_end|>b", "warm")], tokenizer, "", max_tokens=200).rows
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert made.ids.count(end) == 2  # the user's turn and the answer's, none in the text


def test_the_middle_is_cut() -> None:
    assert cut_middle(list(range(10)), 5) == [0, 1, 7, 8, 9]
