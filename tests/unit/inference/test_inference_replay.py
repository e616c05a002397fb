"""Recorded answers: given back as they are, and never made up."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.core.errors import ModelError
from tutelage.core.example import Message
from tutelage.inference.base import Completion, Decoding, Prompt
from tutelage.inference.replay import ReplayGenerator


def ask(text: str, **decoding: int) -> Prompt:
    system = Message(role="system", content="Be brief.")
    return Prompt((system, Message(role="user", content=text)), Decoding(**decoding))


def test_the_answer_of_the_last_user_message_is_given() -> None:
    seen: list[tuple[int, Completion]] = []
    replay = ReplayGenerator({"a": "one two three", "b": "four"})
    given = replay.generate([ask("b"), ask("a")], lambda i, c: seen.append((i, c)))
    assert [c.text for c in given] == ["four", "one two three"]
    assert [(i, c.finish_reason) for i, c in seen] == [(0, "stop"), (1, "stop")]
    assert given[1].usage.completion_tokens == 3


def test_a_token_limit_cuts_and_says_so() -> None:
    given = ReplayGenerator({"a": "one two three"}).generate([ask("a", max_tokens=2)])[0]
    assert (given.text, given.finish_reason) == ("one two", "length")


def test_a_function_may_answer() -> None:
    replay = ReplayGenerator(lambda prompt: prompt.messages[-1].content.upper())
    assert replay.generate([ask("abc")])[0].text == "ABC"


def test_the_recorded_answer_is_the_likeliest_label() -> None:
    scores = ReplayGenerator({"a": "x", "b": "none"}).score_labels([ask("a"), ask("b")], ["y", "x"])
    assert scores.shape == (2, 2)
    assert np.exp(scores).sum(axis=1) == pytest.approx([1.0, 1.0])
    assert scores[0].argmax() == 1 and scores[1, 0] == scores[1, 1]


def test_what_was_not_recorded_is_an_error() -> None:
    with pytest.raises(ModelError, match="no answer is recorded for 'c'"):
        ReplayGenerator({"a": "x"}).generate([ask("c")])
