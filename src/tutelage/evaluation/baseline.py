"""The baseline that needs no language model: TF-IDF and logistic regression on the train split.

If it wins, the report says so: then nobody needs to serve a model for this task.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tutelage.core.example import Example
from tutelage.evaluation.candidates import TFIDF
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.classification import expected_label
from tutelage.evaluation.task import Task

TITLE = "TF-IDF + logistic regression"


def tfidf_answers(task: Task, *, seed: int = 0) -> list[RowResult]:
    """Return the baseline's answer for each test row; empty unless train has two labels.

    Words and pairs of words, and characters 2 to 5 within words, each TF-IDF weighted; C = 10.
    """
    texts, labels = _labelled(task.train, task)
    if task.kind != "classification" or len(set(labels)) < 2:
        return []
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    model = make_pipeline(features, LogisticRegression(C=10, max_iter=2000, random_state=seed))
    model.fit(texts, labels)
    started = time.perf_counter()
    answers = model.predict([row.input_text for row in task.rows])
    each_ms = (time.perf_counter() - started) * 1000 / len(task.rows)
    return [
        RowResult(TFIDF, row.id, task.output.render(str(answer)), "chosen", latency_ms=each_ms)
        for row, answer in zip(task.rows, answers, strict=True)
    ]


def _labelled(rows: Sequence[Example], task: Task) -> tuple[list[str], list[str]]:
    pairs = [(row.input_text, expected_label(row, task.output)) for row in rows]
    kept = [(text, label) for text, label in pairs if label is not None]
    return [text for text, _ in kept], [label for _, label in kept]
