"""Rules: what passes, what fails with which reason, and what a wrong option is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.unit.evaluation.scorer_rows import asked

from tutelage.core.errors import ConfigError
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.base import Place, Scorer, make_scorer
from tutelage.evaluation.scorers.numeric import numbers

ROW = asked("Paris")


def made(name: str, root: Path | None = None, **options: Any) -> Scorer:
    place = Place(root=root, where="evaluate.scorers, entry 1", count_tokens=lambda t: len(t) // 2)
    return make_scorer(name, options=options, place=place)


def given(name: str, text: str, row: Any = ROW, **options: Any) -> tuple[float | None, str | None]:
    score = made(name, **options).score(row, text)
    return score.value, score.evidence.get("why")


def test_json_is_valid_as_a_whole() -> None:
    assert given("json_valid", ' {"a": 1}\n') == (1.0, None)
    value, why = given("json_valid", '{"a": 1} and more')
    assert value == 0.0 and "Extra data" in str(why)
    assert given("json_valid", "[" * 100_000)[0] == 0.0


def test_a_schema_is_checked_as_jsonschema_checks_it(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}, "tags": {"type": "array"}},
        "required": ["n"],
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    inline, filed = (
        made("json_schema", schema=schema),
        made("json_schema", tmp_path, file="schema.json"),
    )
    for value in ({"n": 1}, {"n": 0}, {}, [], {"n": 2, "tags": 1}, {"n": "x", "tags": {}}):
        text = json.dumps(value)
        expected = float(jsonschema.Draft202012Validator(schema).is_valid(value))
        assert inline.score(ROW, text).value == filed.score(ROW, text).value == expected
    broken = inline.score(ROW, '{"n": 0, "tags": 1}').evidence
    assert broken["broken"] == 2 and broken["why"].startswith("$.n: 0 is less than the minimum")
    assert filed.fingerprint and not inline.fingerprint
    shaped = make_scorer("json_schema", OutputFormat("chapter", ("eye",)))
    assert shaped.score(ROW, '{"chapter": "eye"}').value == 1.0
    assert shaped.score(ROW, '{"chapter": "ear"}').value == 0.0


def test_a_pattern_matches_somewhere_or_the_whole() -> None:
    assert given("regex", "on 2026-11-26.", pattern=r"\d{4}-\d\d-\d\d") == (1.0, None)
    assert given("regex", "on Friday", pattern=r"\d{4}") == (0.0, "nothing matches")
    assert given("regex", " 42 \n", pattern=r"\d+", match="whole") == (1.0, None)
    assert given("regex", "I can't", pattern="i CAN'T", ignore_case=True)[0] == 1.0
    assert given("regex", "As an AI", pattern="As an AI", absent=True) == (0.0, "it matches")
    found = made("regex", pattern="b+").score(ROW, "abbc")
    assert found.evidence == {"matched": "bb", "at": [1, 3]}


def test_length_counts_in_its_unit() -> None:
    assert given("length", "one two three", at_most=3) == (1.0, None)
    assert given("length", "one two three", at_most=2) == (0.0, "3 words, more than 2")
    assert given("length", "  ab  ", at_least=3, unit="characters") == (
        0.0, "2 characters, fewer than 3",
    )  # fmt: skip
    assert given("length", "12345678", at_least=4, at_most=4, unit="tokens")[0] == 1.0
    assert given("length", "a\nb", at_most=1, unit="lines")[0] == 0.0


def test_contains_looks_for_the_reference_or_what_it_is_told() -> None:
    assert given("contains", "It is  paris, of course") == (1.0, None)
    assert given("contains", "It is Rome") == (0.0, "missing: Paris")
    assert given("contains", "aspirin", texts=["spirin"], whole_words=True)[0] == 0.0
    assert given("contains", "rest and drink", texts=["rest", "sleep"]) == (0.0, "missing: sleep")
    assert given("contains", "rest and drink", texts=["rest", "sleep"], need="any")[0] == 1.0
    row = asked("x", keywords=["dose", "day"])
    assert given("contains", "one dose a day", row, field="keywords")[0] == 1.0
    assert given("contains", "one dose a day", asked("x"), field="keywords")[0] is None
    assert given("contains", "x", asked(None))[0] is None
    assert given("not_contains", "Call 911", texts=["911"]) == (0.0, "found: 911")
    assert given("not_contains", "Call your doctor", texts=["911"]) == (1.0, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.5 and -3", [1234.5, -3.0]),
        ("costs $5, or 20%", [5.0, 20.0]),
        ("#### 42.", [42.0]),
        ("2026-11-26", [2026.0, 11.0, 26.0]),
        ("B12 and x2", []),
        ("6.02e23 −7 .5", [6.02e23, -7.0, 0.5]),
        ("5kg in 2024 100 people", [5.0, 2024.0, 100.0]),
        ("1,2 and 12,34", []),
        ("", []),
    ],
)
def test_numbers_are_found_in_text(text: str, expected: list[float]) -> None:
    assert numbers(text) == expected


def test_numbers_with_a_decimal_comma() -> None:
    assert numbers("1.234,5 g und 0,25", ",") == [1234.5, 0.25]
    assert numbers("12\u00a0345,5", ",") == [12345.5]


def test_a_number_may_be_off_by_the_tolerance() -> None:
    row = asked("The dose is 250 mg.")
    assert given("numeric", "So 250.", row) == (1.0, None)
    assert given("numeric", "So 251", row) == (0.0, "251 is 1 from 250")
    assert given("numeric", "So 251", row, absolute=1)[0] == 1.0
    assert given("numeric", "260", row, relative=0.05)[0] == 1.0
    assert given("numeric", "263", row, relative=0.05)[0] == 0.0
    assert given("numeric", "2 x 125 = 250", row)[0] == 1.0
    assert given("numeric", "250, not 300", row, which="first")[0] == 1.0
    assert given("numeric", "250 or 300", row, which="only") == (0.0, "2 numbers, not one")
    assert given("numeric", "none", row) == (0.0, "there is no number in it")
    assert given("numeric", "5", asked("none"))[0] is None
    assert given("numeric", "5", asked(None), expected=5)[0] == 1.0


def test_similar_texts_are_near(tmp_path: Path) -> None:
    scorer = made("similarity", tmp_path, embedder="tfidf")
    row = asked("the patient has a fever and a cough")
    near = scorer.score(row, "the patient has fever, and coughs")
    far = scorer.score(row, "stock prices rose")
    assert near.value is not None and far.value is not None and near.value > far.value + 0.3
    assert scorer.score(row, row.answer or "").value == pytest.approx(1.0, abs=1e-3)
    assert near.evidence["embedder"] == "tfidf"
    assert made("similarity", embedder="tfidf", threshold=0.99).score(row, "x").value == 0.0
    assert scorer.score(asked(None), "x").value is None


FUNCTIONS = """
import helper
from tutelage.evaluation.scorers.base import Score
def polite(text): return "please" in text
def near(text, reference, *, slack=0): return abs(len(text) - len(reference)) <= slack
def whole(row, **more): return Score(0.5, {"asked": row.input_text, **more})
def pair(text, input): return 1, {"input": input}
def breaks(text): return 1 / 0
def says(text): return "high"
def nothing(text): return None
def greedy(text, weather): return 1
"""


def test_any_function_of_the_project_scores(tmp_path: Path) -> None:
    (tmp_path / "scores.py").write_text(FUNCTIONS)
    (tmp_path / "helper.py").write_text("")

    def call(name: str, **arguments: Any) -> Any:
        scorer = made("function", tmp_path, call=f"scores.py:{name}", arguments=arguments)
        return scorer.score(ROW, "please")

    assert call("polite").value == 1.0
    assert (call("near").value, call("near", slack=1).value) == (0.0, 1.0)
    assert call("whole", a=1).evidence == {"asked": "What?", "a": 1}
    assert call("pair").evidence == {"input": "What?"}
    assert call("breaks").evidence == {"why": "ZeroDivisionError: division by zero"}
    assert call("says").value is None and call("nothing").value is None
    by_module = made("function", tmp_path, call="scores:polite")
    assert by_module.fingerprint == made("function", tmp_path, call="scores.py:polite").fingerprint
    with pytest.raises(ConfigError, match="the function needs 'weather'"):
        call("greedy")
    with pytest.raises(ConfigError, match="the function takes no 'slack'"):
        call("polite", slack=1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("regex", {}, "regex: the option 'pattern' is missing"),
        ("regex", {"pattern": "("}, r"pattern: '\(' is not a regular expression"),
        (
            "regex",
            {"patern": "x", "pattern": "x"},
            "unknown option 'patern', did you mean 'pattern'",
        ),
        ("length", {}, "length: give at_least, at_most, or both"),
        ("length", {"at_most": -1}, "at_most: input should be greater than or equal to 0"),
        ("length", {"at_least": 5, "at_most": 1}, "at_most is below at_least"),
        ("numeric", {"absolute": -1}, "absolute: input should be greater"),
        ("json_valid", {"strict": True}, "'json_valid' takes no options, and 'strict' was given"),
        ("json_schema", {}, "there is no schema"),
        ("json_schema", {"schema": {"type": "objekt"}}, "the schema is not valid"),
        ("json_schema", {"file": "../x.json"}, "lies outside the project's folder"),
        ("json_schema", {"file": "x.json"}, "there is no file 'x.json'"),
        ("not_contains", {}, "there is nothing to look for"),
        ("function", {"call": "nothing"}, "write it as file.py:function"),
        ("function", {"call": "no.py:f"}, "there is no file 'no.py'"),
        ("similarity", {"embedder": "word9vec"}, "there is no embedder 'word9vec'"),
        ("pass_at_k", {"k": 5}, "k is 5 and evaluate.samples is 0"),
        ("rouge", {"kind": "rouge9"}, "kind: input should be 'rouge1'"),
        ("regexp", {}, r"not one of tutelage's scorers\. Did you mean 'regex'"),
    ],
)
def test_a_wrong_option_is_one_sentence_that_names_it(
    name: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        made(name, tmp_path, **options)
    assert caught.value.sentence().startswith("evaluate.scorers, entry 1: ")
