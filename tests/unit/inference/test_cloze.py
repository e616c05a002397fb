"""Patterns, words, and how several of them are put together."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.core.config import Cloze, Pattern
from tutelage.core.config_file import parse_config
from tutelage.core.errors import ConfigError
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat
from tutelage.inference.cloze import (
    combine,
    default_patterns,
    form_settings,
    label_scores,
    make_forms,
    read_forms,
)

LABELS = ("card_arrival", "lost_card")
OUTPUT = OutputFormat("intent", LABELS)


def test_the_default_patterns_carry_the_answer_format_and_plain_words() -> None:
    forms = make_forms(Cloze(), LABELS, OUTPUT)
    assert [form.texts for form in forms] == [
        ('{"intent": "card_arrival"}', '{"intent": "lost_card"}'),
        ("card arrival", "lost card"),
    ]
    assert [form.ask for form in forms] == ["{text}", "{text}\n\nIntent:"]
    assert default_patterns(OutputFormat())[1].ask == "{text}\n\nLabel:"
    assert read_forms(form_settings(forms)) == forms


def test_labels_stay_as_they_are_where_plain_words_would_be_the_same() -> None:
    forms = make_forms(Cloze(), ("a_b", "a b"), OutputFormat())
    assert forms[1].texts == ("a_b", "a b")


def test_a_pattern_wraps_the_last_user_turn_alone() -> None:
    (form,) = make_forms(
        Cloze(patterns=[Pattern(ask='{text} {"x"}?', answer="{label}")]), LABELS, OUTPUT
    )
    turns = (
        Message(role="system", content="Be short."),
        Message(role="user", content="first"),
        Message(role="assistant", content="yes"),
        Message(role="user", content="about {label}"),
    )
    wrapped = form.wrap(turns)
    assert wrapped[:3] == turns[:3]
    assert wrapped[3].content == 'about {label} {"x"}?'


def test_several_words_count_as_their_mean_likelihood() -> None:
    words = {"card_arrival": ["late", "not here", "waiting"]}
    (form,) = make_forms(
        Cloze(patterns=[Pattern(answer="{label}")], verbalisers=words), LABELS, OUTPUT
    )
    assert form.groups(2) == [[0, 1, 2], [3]]
    values = np.log(np.array([[0.1, 0.2, 0.3, 0.2], [0.6, 0.0001, 0.0001, 0.2]]))
    chances = np.exp(label_scores(values, form, 2))
    np.testing.assert_allclose(chances[0], [0.5, 0.5])
    np.testing.assert_allclose(chances[1], [0.5, 0.5], atol=1e-3)


def test_patterns_are_averaged_in_log_space_and_the_prior_is_divided_out() -> None:
    one, two = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    np.testing.assert_allclose(np.exp(combine([one, two])), [[0.75, 0.25]])  # sqrt(9) to 1
    prior = [[float(np.log(0.9)), float(np.log(0.1))], [float(np.log(0.5))] * 2]
    np.testing.assert_allclose(np.exp(combine([one, two], prior=prior)), [[0.5, 0.5]])
    warm = np.exp(combine([one, two], temperature=2.0))
    np.testing.assert_allclose(warm, [[3**0.5 / (1 + 3**0.5), 1 / (1 + 3**0.5)]])


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("ask: no place", "ask must hold {text} once, not 0 times"),
        ("answer: '{label} or {label}'", "answer must hold {label} once, not 2 times"),
    ],
)
def test_a_pattern_without_its_places_is_told_with_its_line(pattern: str, reason: str) -> None:
    text = f"name: a\nmodel: demo\ntrain:\n  cloze:\n    patterns: [{{{pattern}}}]\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "tutelage.yaml")
    assert reason in str(caught.value)
    assert "train.cloze.patterns" in str(caught.value)
