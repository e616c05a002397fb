"""One temperature for all logits, so that a chance of 0.8 is right eight times in ten.

Guo et al. 2017 (arXiv 1706.04599, section 4.2): divide the logits by T > 0 that minimises the
validation rows' cross-entropy. The likeliest label stays the likeliest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.inference.label_choice import log_softmax

LEAST_ROWS = 10  # fewer validation rows than this say too little: the temperature stays 1
_LOWEST, _HIGHEST = 0.2, 20.0


def cross_entropy(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the mean of -log chance of the truth, nats a row; scores (N, L), truth (N,)."""
    return float(-log_softmax(scores)[np.arange(len(truth)), truth].mean())


def fit_temperature(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return T for scores (N, L), between 0.2 and 20, rounded to four digits.

    1 with fewer than LEAST_ROWS rows. Where every row is right, T is not below 1: the fit alone
    would then call every answer certain.
    """
    from scipy.optimize import minimize_scalar

    if len(truth) < LEAST_ROWS:
        return 1.0
    lowest = 1.0 if bool((scores.argmax(axis=1) == truth).all()) else _LOWEST
    found = minimize_scalar(
        lambda log_t: cross_entropy(scores / np.exp(log_t), truth),
        bounds=(np.log(lowest), np.log(_HIGHEST)),
        method="bounded",
    )
    temperature = float(np.exp(found.x))
    if cross_entropy(scores, truth) <= cross_entropy(scores / temperature, truth):
        return 1.0
    return round(temperature, 4)


def calibrated(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, Any]:
    """Return the temperature and what it did to the validation rows, for tutelage.json."""
    temperature = fit_temperature(scores, truth)
    report: dict[str, Any] = {"rows": len(truth)}
    if len(truth):
        report |= {
            "accuracy": round(float((scores.argmax(axis=1) == truth).mean()), 6),
            "loss": round(cross_entropy(scores, truth), 6),
            "calibrated_loss": round(cross_entropy(scores / temperature, truth), 6),
        }
    return {"temperature": temperature, "validation": report}
