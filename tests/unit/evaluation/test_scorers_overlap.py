"""BLEU and ROUGE against the packages that papers report, and corpus figures beside row values."""

from __future__ import annotations

import pytest
import sacrebleu
from rouge_score import rouge_scorer
from tests.unit.evaluation.scorer_rows import asked

from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.apply import score_rows, summary
from tutelage.evaluation.scorers.base import make_scorer
from tutelage.evaluation.scorers.bleu import bleu, counts, cut_text
from tutelage.evaluation.scorers.rouge import KINDS, rouge

PAIRS = [
    ("the cat sat on the mat", "the cat sat on a mat"),
    ("It costs 1,234.50 - or so.", "It cost $1,234.50, or so!"),
    ("completely different", "nothing alike here"),
    ("short", "a much longer reference text than the answer"),
    ("a b c d e f g", "a b x d e f g h i"),
    ("Tom &amp; Jerry's 3-4 mice (two)", "Tom & Jerry's 3-4 mice: two"),
    ("", "something"),
    ("one line\nthe second line says more\nthird", "the second line\nsays one line more\nfourth"),
]


@pytest.mark.parametrize(("text", "reference"), PAIRS)
def test_a_rows_bleu_is_sacrebleus_sentence_bleu(text: str, reference: str) -> None:
    expected = sacrebleu.sentence_bleu(text, [reference]).score / 100
    assert bleu(counts(text, reference), effective=True) == pytest.approx(expected, abs=1e-9)
    by_letter = sacrebleu.sentence_bleu(text, [reference], tokenize="char").score / 100
    ours = bleu(counts(text, reference, "char"), effective=True)
    assert ours == pytest.approx(by_letter, abs=1e-9)


@pytest.mark.parametrize(("text", "reference"), PAIRS)
def test_words_and_signs_are_cut_as_in_mteval(text: str, reference: str) -> None:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    assert cut_text(text, "13a") == Tokenizer13a()(text).split()
    assert cut_text(reference, "13a") == Tokenizer13a()(reference).split()


def test_the_summary_is_corpus_bleu_not_the_mean_of_rows() -> None:
    scorer = make_scorer("bleu")
    rows = [asked(reference, question=str(i)) for i, (_, reference) in enumerate(PAIRS)]
    answers = {
        row.id: RowResult("tuned", row.id, text, "stop")
        for row, (text, _) in zip(rows, PAIRS, strict=True)
    }
    scores = {"bleu": score_rows(scorer, rows, answers)}
    expected = sacrebleu.corpus_bleu([t for t, _ in PAIRS], [[r for _, r in PAIRS]]).score / 100
    assert summary({"bleu": scorer}, scores) == {"bleu.corpus": pytest.approx(expected, abs=1e-9)}


@pytest.mark.parametrize(("text", "reference"), PAIRS)
def test_rouge_is_that_of_rouge_score(text: str, reference: str) -> None:
    expected = rouge_scorer.RougeScorer(KINDS).score(reference, text)
    for kind in KINDS:
        f1, precision, recall = rouge(text, reference, kind)
        assert f1 == pytest.approx(expected[kind].fmeasure), kind
        assert precision == pytest.approx(expected[kind].precision), kind
        assert recall == pytest.approx(expected[kind].recall), kind


def test_rouge_reads_words_of_any_language_and_needs_a_reference() -> None:
    assert rouge("Größe zählt", "die größe zählt", "rouge1")[2] == pytest.approx(2 / 3)
    assert make_scorer("rouge").score(asked(None), "x").value is None
    assert make_scorer("bleu").score(asked(None), "x").value is None
    chosen = make_scorer("rouge", options={"kind": "rouge2"}).score(asked("a b c"), "a b d")
    assert chosen.value == chosen.evidence["rouge2"] == pytest.approx(0.5)
