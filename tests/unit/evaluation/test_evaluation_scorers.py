"""Each scorer against its reference package, and the evidence it gives for a low score."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from tutelage.core.errors import ConfigError
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.base import make_scorer
from tutelage.evaluation.scorers.classification import Accuracy, confusion
from tutelage.evaluation.scorers.exact import ExactMatch
from tutelage.evaluation.scorers.overlap import ChrF, TokenF1, chrf, token_f1
from tutelage.evaluation.scorers.rules import ValidOutput

CHAPTER = OutputFormat(field="chapter", labels=("eye", "ear", "skin"))


def row(answer: str | None = '{"chapter": "eye"}', label: str | None = "eye") -> Example:
    turns = [Message(role="user", content="Myopia")]
    if answer is not None:
        turns.append(Message(role="assistant", content=answer))
    return Example(messages=tuple(turns), label=label)


@pytest.mark.parametrize(
    ("text", "value", "why"),
    [
        ('{"chapter": "eye"}', 1.0, None),
        (' {"chapter":"eye"}\n', 1.0, None),
        ('{"chapter": "ear"}', 0.0, None),
        ("eye", 0.0, "not JSON"),
        ('{"chapter": "lungs"}', 0.0, "'lungs' is not one of the labels"),
        ('{"chapter": "eye", "why": "x"}', 0.0, "fields besides 'chapter'"),
        ("", 0.0, "not JSON"),
    ],
)
def test_accuracy_says_why_a_text_is_wrong(text: str, value: float, why: str | None) -> None:
    score = Accuracy(CHAPTER).score(row(), text)
    assert score.value == value
    assert score.evidence["expected"] == "eye"
    assert score.evidence.get("why") == why


def test_accuracy_reads_the_label_from_the_answer_and_leaves_open_what_has_none() -> None:
    assert Accuracy(CHAPTER).score(row(label=None), '{"chapter": "eye"}').value == 1.0
    assert Accuracy(CHAPTER).score(row(None, None), '{"chapter": "eye"}').value is None


def test_per_class_scores_and_matrix_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b", "c", "d"]
    truth = [labels[i] for i in rng.integers(0, 4, 200)]
    given = [t if rng.random() < 0.6 else labels[rng.integers(0, 4)] for t in truth]
    found = confusion(zip(truth, given, strict=True), labels)
    p, r, f, support = precision_recall_fscore_support(truth, given, labels=labels)
    ours = found.per_class()
    assert [c.precision for c in ours] == pytest.approx(list(p))
    assert [c.recall for c in ours] == pytest.approx(list(r))
    assert [c.f1 for c in ours] == pytest.approx(list(f))
    assert [c.support for c in ours] == list(support)
    assert (found.counts[:, :-1] == confusion_matrix(truth, given, labels=labels)).all()
    assert found.macro_f1() == pytest.approx(f1_score(truth, given, average="macro"))
    assert found.micro_f1() == pytest.approx(f1_score(truth, given, average="micro"))


def test_an_unreadable_text_costs_recall_and_nobodys_precision() -> None:
    found = confusion([("a", "a"), ("a", None), ("b", "b"), ("b", "z")], ["a", "b"])
    a, b = found.per_class()
    assert (a.precision, a.recall) == (1.0, 0.5)
    assert (b.precision, b.recall) == (1.0, 0.5)
    assert found.counts[:, -1].tolist() == [1, 1]
    assert found.micro_f1() == pytest.approx(2 * 2 / (2 + 4))


def test_nothing_to_count_is_zero_not_an_error() -> None:
    found = confusion([("a", None)], ["a"])
    assert (found.macro_f1(), found.micro_f1()) == (0.0, 0.0)


TEXTS = [
    ("the cat sat on the mat", "the cat sat on a mat"),
    ("completely different", "nothing alike here"),
    ("short", "a much longer reference text than the answer"),
    ("Die Katze schläft.", "Die Katze schlief gestern."),
    ("ab", "ab"),
    ("", "something"),
]


@pytest.mark.parametrize(("text", "reference"), TEXTS)
def test_chrf_is_that_of_sacrebleu(text: str, reference: str) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    expected = sacrebleu.sentence_chrf(text, [reference]).score / 100
    assert chrf(text, reference) == pytest.approx(expected, abs=1e-9)


def test_token_f1_is_squads() -> None:
    assert token_f1("The Eiffel Tower!", "eiffel tower") == (1.0, 1.0, 1.0)
    f1, precision, recall = token_f1("in the city of Paris", "Paris, France")
    assert (precision, recall) == (0.25, 0.5)
    assert f1 == pytest.approx(1 / 3)
    assert token_f1("", "") == (1.0, 1.0, 1.0)
    assert token_f1("x", "y")[0] == 0.0


def test_overlap_scorers_need_a_reference() -> None:
    assert TokenF1().score(row(None), "x").value is None
    assert ChrF().score(row(None), "x").value is None
    assert ExactMatch().score(row(None), "x").value is None


def test_exact_match_ignores_case_and_spaces_only() -> None:
    scorer = ExactMatch()
    assert scorer.score(row("High  Blood pressure"), " high blood PRESSURE ").value == 1.0
    assert scorer.score(row("High blood pressure"), "high-blood pressure").value == 0.0


def test_valid_output_names_what_is_wrong() -> None:
    scorer = ValidOutput(CHAPTER)
    assert scorer.score(row(), '{"chapter": "skin"}').value == 1.0
    wrong = scorer.score(row(), '{"chapter": "soul"}')
    assert wrong.value == 0.0 and "soul" in wrong.evidence["why"]
    assert "not JSON" in scorer.score(row(), '{"chapter": "eye"').evidence["why"]
    own = ValidOutput(OutputFormat(), {"type": "array", "minItems": 1})
    assert own.score(row(), "[1]").value == 1.0
    assert own.score(row(), "[]").value == 0.0
    assert ValidOutput().score(row(), "  ").evidence["why"] == "empty"


def test_an_unknown_scorer_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'accuracy'\?.*chrf"):
        make_scorer("acuracy", CHAPTER)


def test_a_schema_that_is_none_is_told_by_its_setting() -> None:
    with pytest.raises(ConfigError, match=r"^output.json_schema: it is no JSON Schema"):
        ValidOutput(OutputFormat(), {"type": "objekt"})


def test_averages_over_labels_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = ["a", "b", "c"]
    truth = [labels[i] for i in rng.choice(3, 300, p=[0.7, 0.2, 0.1])]
    given = [t if rng.random() < 0.7 else labels[rng.integers(0, 3)] for t in truth]
    found = confusion(zip(truth, given, strict=True), labels).averages()
    for kind in ("macro", "micro", "weighted"):
        p, r, f, _ = precision_recall_fscore_support(truth, given, average=kind)
        assert found[f"{kind}_f1"] == pytest.approx(f)
        if kind != "weighted":
            assert found[f"{kind}_precision"] == pytest.approx(p)
            assert found[f"{kind}_recall"] == pytest.approx(r)
