"""Whether the two arms got the users they were meant to: a test for sample ratio mismatch.

A split that is not what was asked for means that something lost users of one arm, and then no
difference between the arms can be trusted. The test may be looked at after every user: a Bayes
factor of "the split is another" (Beta laws around the asked share, of several widths) against
"the split is as asked" starts at 1 and is a nonnegative martingale under the latter, so it ever
reaches 1/a with probability at most a (Lindon & Malek 2022, "Anytime-valid inference for
multinomial count data", NeurIPS, arXiv 2011.03567; Ville 1939).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEIGHTS = (10.0, 100.0, 1_000.0, 10_000.0)  # how narrow the alternatives are, in users
ALPHA = 0.01
_LOG_MAX = 690.0


@dataclass(frozen=True)
class Balance:
    """How the users fell: `share` is the candidate's, 0..1; `p` is valid at every look."""

    stable: int
    candidate: int
    expected: float
    e_value: float  # the largest so far
    p: float
    broken: bool

    @property
    def share(self) -> float | None:
        """The candidate's share of the users; None without users."""
        total = self.stable + self.candidate
        return self.candidate / total if total else None

    def sentence(self) -> str:
        """Return what it says in words."""
        if self.share is None:
            return "no user has come yet"
        told = f"{self.share:.1%} of the users got the candidate, {self.expected:.1%} were asked"
        if self.broken:
            return f"{told}: that is no chance (p = {self.p:.1g}); users of one arm are lost"
        return f"{told}: as chance has it (p = {self.p:.2g})"


def log_e_path(candidate: NDArray[np.bool_], expected: float) -> NDArray[np.float64]:
    """Return the log e-value after each user, in order of their first request; shape (N,)."""
    from scipy.special import betaln

    ours = np.cumsum(candidate, dtype=np.float64)
    users = np.arange(1, len(candidate) + 1, dtype=np.float64)
    null = ours * np.log(expected) + (users - ours) * np.log1p(-expected)
    parts = []
    for weight in WEIGHTS:
        a, b = weight * expected, weight * (1 - expected)
        parts.append(betaln(a + ours, b + users - ours) - betaln(a, b) - null)
    return np.asarray(np.logaddexp.reduce(parts, axis=0) - np.log(len(WEIGHTS)), dtype=np.float64)


def balance(candidate: NDArray[np.bool_], expected: float, alpha: float = ALPHA) -> Balance:
    """Return the test over users in order of their first request; `expected` is in (0, 1)."""
    ours = int(candidate.sum())
    top = float(log_e_path(candidate, expected).max()) if len(candidate) else 0.0
    e = float(np.exp(np.clip(top, 0.0, _LOG_MAX)))
    return Balance(len(candidate) - ours, ours, expected, e, min(1.0, 1 / e), e >= 1 / alpha)
