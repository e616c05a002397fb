"""When, within a span that an alarm tells of, the change is likeliest to have begun."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

STEP = 10  # requests between two places that a change may begin at
_LEAST = 50  # requests from there on
_SURE = 2.0  # by how much, in nats, one beginning must be likelier than none for each place tried


def begun(places: Collection[int], total: int) -> int:
    """Return from which of `total` requests on more of them are among `places`; 0: all along.

    The likelihood ratio for one change of a Bernoulli rate at an unknown place (Hinkley and
    Hinkley, Biometrika 57(3), 1970): a rise counts, and only one that is beyond what the best of
    as many places shows by chance.
    """
    inside = np.zeros(total)
    inside[list(places)] = 1
    starts = np.arange(STEP, total - _LEAST + 1, STEP)
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


def _log_likely(found: object, of: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the log likelihood of so many of so many at the rate that fits them best."""
    from scipy.special import xlog1py, xlogy

    share = np.asarray(found, np.float64) / np.asarray(of, np.float64)
    each = xlogy(share, share) + xlog1py(1 - share, -share)
    return np.asarray(np.asarray(of, np.float64) * each)
