"""Whose answers a look is about: those of releases that serve now. The others' may be mended."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from tutelage.feedback.mining.scan import Traffic, numbers

GONE = 0.25  # what a signal counts that is about an answer of a release that serves no more
Floats = NDArray[np.float32]


def serving(traffic: Traffic, releases: Collection[str]) -> NDArray[np.bool_]:
    """Return which records, (N,), were answered by these releases.

    Where none was, nothing tells the old answers from the new ones, and all of them count.
    """
    own = np.array([name in releases for name in traffic.releases], bool)
    found: NDArray[np.bool_] = own[numbers(traffic.release, np.int16)]
    return found if found.any() else np.ones(len(traffic.ids), bool)


def fade(strength: Floats, record: NDArray[np.int64], served: NDArray[np.bool_]) -> None:
    """Let strengths, (M,), count a quarter where their record's release is gone, in place.

    `record` names the record that each comes from, -1 for none.
    """
    gone = (record >= 0) & ~served[record]
    strength[gone] *= GONE
