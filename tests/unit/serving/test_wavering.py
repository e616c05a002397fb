"""The entropy of an answer's tokens: against the formula, and what can't be read."""

from __future__ import annotations

import math

import pytest

from tutelage.serving.records.wavering import token_entropy


def token(*chances: float) -> dict[str, object]:
    tops = [{"token": str(i), "logprob": math.log(p)} for i, p in enumerate(chances)]
    return {"token": "0", "logprob": math.log(chances[0]), "top_logprobs": tops}


def test_two_even_tokens_are_a_coins_toss_and_a_sure_one_is_nothing() -> None:
    assert token_entropy([token(0.5, 0.5)]) == pytest.approx(math.log(2), abs=1e-4)
    assert token_entropy([token(0.5, 0.5), token(1.0, 1e-12)]) == pytest.approx(
        math.log(2) / 2, abs=1e-4
    )


def test_what_is_left_counts_as_one_more_token() -> None:
    want = -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1))
    assert token_entropy([token(0.6, 0.3)]) == pytest.approx(want, abs=1e-4)


def test_a_token_alone_counts_its_surprise_and_nonsense_is_left_out() -> None:
    assert token_entropy([{"logprob": -0.25}]) == 0.25
    assert token_entropy([{"logprob": None}, {}, {"logprob": float("-inf")}]) is None
    assert token_entropy([]) is None
