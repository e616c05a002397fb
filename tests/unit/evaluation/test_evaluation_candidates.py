"""What every candidate is asked: the same rows, fair examples, no control token, a fair limit."""

from __future__ import annotations

import pytest
from tests.unit.evaluation.evaluation_rows import (
    FORMAT,
    PROJECT,
    colour_task,
    example,
    examples,
    right_answers,
)

from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message
from tutelage.evaluation.baseline import tfidf_answers
from tutelage.evaluation.candidates import make_candidates, pick_shots, prompt_for
from tutelage.evaluation.task import make_task, with_specials


def test_there_are_three_free_candidates_and_three_that_must_pick_a_label() -> None:
    task = colour_task()
    names = [c.name for c in make_candidates(task, few_shot=4, tuned=True)]
    assert names == [
        "base", "few_shot", "tuned", "base_constrained", "few_shot_constrained",
        "tuned_constrained",
    ]  # fmt: skip
    assert [c.name for c in make_candidates(task, few_shot=0, tuned=False)] == [
        "base", "base_constrained",
    ]  # fmt: skip


def test_answers_can_be_text_alone_or_the_list_alone_under_the_same_names() -> None:
    task = colour_task()
    for answers, mode in (("free", "free"), ("list", "constrained")):
        made = make_candidates(task, few_shot=4, tuned=True, answers=answers)
        assert [(c.name, c.mode) for c in made] == [
            (name, mode) for name in ("base", "few_shot", "tuned")
        ]  # fmt: skip


def test_shots_come_from_train_cover_the_labels_and_never_change() -> None:
    rows = [example(f"w{i}", "warm") for i in range(20)] + [example("c", "cold")]
    picked = pick_shots(rows, 4)
    assert {row.label for row in picked} == {"warm", "cold"}
    assert picked == pick_shots(list(reversed(rows)), 4)
    assert len(pick_shots(rows, 100)) == 21
    assert pick_shots([], 3) == ()


def test_an_overlong_row_is_no_example() -> None:
    rows = [example("short", "warm"), example("brief", "cold"), example("x" * 500, "warm")]
    assert all(len(row.input_text) < 100 for row in pick_shots(rows, 3))


def test_a_few_shot_prompt_is_system_then_finished_turns_then_the_row() -> None:
    task = colour_task()
    candidate = make_candidates(task, few_shot=2, tuned=False)[1]
    prompt = prompt_for(candidate, task.rows[0], task)
    roles = [m.role for m in prompt.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompt.messages[0].content == "Name the colour family."
    assert prompt.messages[-1].content == task.rows[0].input_text
    assert prompt.messages[2].content == candidate.shots[0].answer


def test_a_control_token_in_a_row_or_a_shot_is_made_inert() -> None:
    task = with_specials(
        make_task(
            PROJECT,
            [example("</s> <|im_end|> in train", "warm")],
            [example("</s> in test", "cold")],
            lambda item: item,
            len,
        ),
        ("</s>",),
    )
    candidate = make_candidates(task, few_shot=1, tuned=False)[1]
    spoken = " ".join(m.content for m in prompt_for(candidate, task.rows[0], task).messages)
    assert "</s>" not in spoken and "<|im_end|>" not in spoken
    assert "in train" in spoken and "in test" in spoken


def test_a_row_with_its_own_system_message_keeps_it() -> None:
    row = Example(
        messages=(
            Message(role="system", content="Mine."),
            Message(role="user", content="q"),
            Message(role="assistant", content=FORMAT.render("warm")),
        ),
        label="warm",
    )
    task = make_task(PROJECT, examples("old", 6), [row], lambda item: item, len)
    candidate = make_candidates(task, few_shot=2, tuned=False)[1]
    contents = [m.content for m in prompt_for(candidate, row, task).messages]
    assert contents[0] == "Mine." and contents[-1] == "q" and len(contents) == 6


def test_answers_may_be_as_long_as_the_longest_in_train_and_a_little_more() -> None:
    assert colour_task().decoding.max_tokens == 2 + 8
    assert colour_task().decoding.temperature == 0.0


def test_no_test_row_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="test split has no row"):
        make_task(PROJECT, examples("old", 3), [], lambda item: item, len)


def test_the_baseline_learns_from_train_alone() -> None:
    train = [example(f"{word} {i}", label) for i in range(6)
             for word, label in (("fire", "warm"), ("ice", "cold"))]  # fmt: skip
    test = [example("a great fire", "warm"), example("the ice age", "cold")]
    task = make_task(PROJECT, train, test, lambda item: item, len)
    answers = {row.item: row.text for row in tfidf_answers(task)}
    assert answers == {row.id: right_answers(task)[row.input_text] for row in task.rows}


def test_the_baseline_needs_two_labels() -> None:
    train = [example(f"fire {i}", "warm") for i in range(5)]
    task = make_task(PROJECT, train, examples("new", 4), lambda item: item, len)
    assert tfidf_answers(task) == []
