"""What a trained cloze is given by its validation rows: a prior to divide by, and a temperature.

The prior is what the patterns say about rows without content (contextual calibration, Zhao et al.
2021, arXiv 2102.09690). Test rows play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import Message
from tutelage.inference.base import Prompt
from tutelage.inference.chat import conversation
from tutelage.inference.cloze import CONTENT_FREE, Form, combine
from tutelage.training.calibration import LEAST_ROWS, calibrated
from tutelage.training.labels import Labelled


def fit(
    model: Any,
    tokenizer: Any,
    forms: Sequence[Form],
    validation: Sequence[Labelled],
    labels: int,
    *,
    prompt: str,
    calibrate: str,
) -> dict[str, Any]:
    """Return prior (or None), temperature and a report, for tutelage.json.

    `calibrate` is auto (the prior is kept if the validation rows' loss is lower with it, each
    with its own temperature), always or never.
    """
    from tutelage.inference.transformers import TransformersGenerator
    from tutelage.inference.transformers_cloze import form_scores

    generator = TransformersGenerator.over(model, tokenizer)
    rows = [Prompt(row.turns) for row in validation]
    scores = form_scores(generator, forms, rows, labels) if rows else []
    truth = np.array([row.index for row in validation], dtype=np.int64)
    plain = _fitted(scores, truth, labels, None)
    if calibrate == "never" or (calibrate == "auto" and len(rows) < LEAST_ROWS):
        return plain
    blank = [Prompt(_without_content(text, prompt)) for text in CONTENT_FREE]
    prior = [
        [round(float(value), 6) for value in _log_mean(part)]
        for part in form_scores(generator, forms, blank, labels)
    ]
    divided = _fitted(scores, truth, labels, prior)
    if calibrate == "always" or _loss(divided) < _loss(plain):
        return divided
    return plain


def _without_content(text: str, prompt: str) -> tuple[Message, ...]:
    return conversation((Message(role="user", content=text),), prompt)


def _log_mean(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log of the mean chances over rows, (L,); logs are (N, L)."""
    mean: NDArray[np.float64] = np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
    return mean


def _fitted(
    scores: list[NDArray[np.float64]],
    truth: NDArray[np.int64],
    labels: int,
    prior: list[list[float]] | None,
) -> dict[str, Any]:
    logs = combine(scores, prior=prior) if scores else np.zeros((0, labels))
    return {"prior": prior, **calibrated(logs, truth)}


def _loss(fitted: dict[str, Any]) -> float:
    return float(fitted["validation"].get("calibrated_loss", 0.0))
