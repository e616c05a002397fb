"""When, within a span that an alarm tells of, the change is likeliest to have begun."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

_STEP = 10  # requests between two places that a change may begin at
_LEAST = 50  # requests from there on
_SURE = 2.0  # by how much, in nats, one beginning must be likelier than none for each place tried
Floats = NDArray[np.float64]


def begun(places: Collection[int], total: int) -> int:
    """Return from which of `total` requests on more of them are among `places`; 0: all along.

    The likelihood ratio for one change of a Bernoulli rate at an unknown place (Hinkley and
    Hinkley, Biometrika 57(3), 1970): a rise counts, and only one that is beyond what the best of
    as many places shows by chance.
    """
    inside = np.zeros(total)
    inside[list(places)] = 1
    starts = np.arange(_STEP, total - _LEAST + 1, _STEP)
    if not len(starts) or not inside.any():
        return 0
    before = np.cumsum(inside)[starts - 1]
    after = inside.sum() - before
    rest = total - starts
    gain = _log_likely(before, starts) + _log_likely(after, rest)
    gain -= _log_likely(inside.sum(), total)
    gain[after / rest <= before / starts] = 0
    best = int(gain.argmax())
    return int(starts[best]) if gain[best] > math.log(len(starts)) + _SURE else 0


def _log_likely(found: Floats, of: NDArray[np.int64] | int) -> Floats:
    """Return the log likelihood of so many of so many at the rate that fits them best."""
    from scipy.special import entr

    share = found / of
    return np.asarray(-of * (entr(share) + entr(1 - share)))
