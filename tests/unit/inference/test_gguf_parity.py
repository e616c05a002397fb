"""When two forms of a model count as the same: near-ties pass, flips and drift do not."""

from __future__ import annotations

import math
import re
from pathlib import Path

from tutelage.inference.parity import LIMITS, Followed, Limits, Parity, Reference, compare

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "export.md"
LIMIT = Limits(tie=0.1, drift=0.05)
REFERENCE = Reference(
    messages=({"role": "user", "content": "a  long\nquestion"},),
    prompt_ids=(7, 8),
    tokens=(1, 2, 3),
    logps=(-0.1, -0.7, -0.2),
    margins=(3.0, 0.05, 2.0),
    text="one two three",
)


def judged(
    choices: tuple[int, ...], logps: tuple[float, ...] = REFERENCE.logps,
    prompt: tuple[int, ...] = (7, 8),
) -> Parity:  # fmt: skip
    return compare("m.gguf", [REFERENCE], [Followed(prompt, choices, logps, "one two 3")], LIMIT)


def test_the_same_tokens_are_sound() -> None:
    found = judged((1, 2, 3))
    assert found.problem is None
    assert (found.tokens, found.same, found.ties, found.drift) == (3, 3, 0, 0.0)


def test_a_near_tie_is_counted_and_passes() -> None:
    found = judged((1, 9, 3))
    assert found.problem is None
    assert (found.same, found.ties) == (2, 1)
    assert "2 of 3 tokens of 1 answers are the same, 1 near-ties, 0 flips" in found.sentence()


def test_a_clear_first_choice_that_differs_breaks_it_and_both_answers_are_shown() -> None:
    found = judged((1, 2, 9))
    assert found.problem == "1 of 1 prompts are answered otherwise"
    assert found.broken[0].lines() == [
        "'a long question'  (token 3 differs, where the first choice was 2 nats ahead)",
        "  expected  'one two three'",
        "  got       'one two 3'",
    ]


def test_a_prompt_in_other_tokens_breaks_it_whatever_is_answered() -> None:
    assert judged((1, 2, 3), prompt=(7, 9)).broken[0].reason == (
        "the prompt is other tokens, from token 2 on"
    )
    assert judged((1, 2, 3), prompt=(7,)).broken


def test_damage_that_sure_answers_hide_is_seen_in_their_probability() -> None:
    found = judged((1, 2, 3), (-0.3, -0.9, -0.4))
    assert not found.broken
    assert found.problem is not None
    assert "0.2 nats off on average, above the limit of 0.05" in found.problem
    assert judged((1, 2, 3), (-math.inf, -0.7, -0.2)).problem is not None


def test_a_probability_that_is_not_told_does_not_count() -> None:
    found = judged((1, 2, 3), (math.nan, -0.7, -0.3))
    assert math.isclose(found.drift, 0.05, abs_tol=1e-9)
    assert math.isclose(found.worst, 0.1, abs_tol=1e-9)


def test_the_guide_states_the_limits_in_force() -> None:
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \|$", GUIDE.read_text(), re.MULTILINE)
    stated = {
        name: (float(tie), float(drift))
        for names, tie, drift in rows
        for name in re.findall(r"`(\w+)`", names) or ["quantised"]
    }
    assert stated == {name: (limit.tie, limit.drift) for name, limit in LIMITS.items()}
