"""Power laws with a floor, err(n) = a · n^(−b) + c, fitted to errors at several sizes.

Errors of learners fall so (Cortes et al. 1993; Hestness et al. 2017, arXiv 1712.00409). For each
exponent and floor of a grid the scale is found in closed form, so the best fit is the global one.
Points count by their binomial variance. Without the floor, forecasts promise too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_EXPONENTS = np.linspace(0.05, 2.0, 40)
_FLOORS = 25  # from 0 to the lowest error seen
_Z = 2.0  # pseudo-counts of right and of wrong rows (Agresti and Coull 1998)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """err(n) = scale · n^(−exponent) + floor, errors as ratios."""

    scale: float
    exponent: float
    floor: float

    def error(self, rows: float) -> float:
        """Return the expected share of wrong answers with `rows` training rows, at most 1."""
        return float(min(self.scale * float(rows) ** -self.exponent + self.floor, 1.0))

    def errors(self, rows: Sequence[int]) -> list[float]:
        """Return the expected error at each of `rows`."""
        return [self.error(count) for count in rows]


@dataclass(frozen=True)
class Laws:
    """Every exponent (rows) and floor (columns): the best scale, and the misfit (chi-square).

    Scales are of n over the largest n.
    """

    scale: Array
    floors: Array
    misfit: Array
    top: float

    def best(self) -> PowerLaw:
        """Return the law of least misfit."""
        return self._law(int(self.misfit.argmin()))

    def drawn(self, point: float) -> PowerLaw:
        """Return the law at `point`, 0 to 1, of all laws laid out by their likelihood."""
        chance = np.exp(-0.5 * (self.misfit - self.misfit.min())).ravel().cumsum()
        return self._law(min(int(np.searchsorted(chance, point * chance[-1])), chance.size - 1))

    def _law(self, place: int) -> PowerLaw:
        i, j = np.unravel_index(place, self.misfit.shape)
        exponent = float(_EXPONENTS[i])
        scale = float(self.scale[i, j]) * self.top**exponent
        return PowerLaw(scale, exponent, float(self.floors[j]))


def fit_laws(
    sizes: Sequence[int], errors: Array, counts: Array, floors_tried: int = _FLOORS
) -> Laws:
    """Return the laws for `errors`, measured on `counts` rows each, at rising `sizes`.

    With one floor tried, that floor is 0.
    """
    top = float(sizes[-1])
    shrink = (np.asarray(sizes, float) / top)[None, :] ** -_EXPONENTS[:, None]  # E, points
    floors = np.linspace(0.0, max(float(errors.min()), 1e-4), floors_tried)
    smooth = (errors * counts + _Z) / (counts + 2 * _Z)
    weights = np.where(counts > 0, (counts + 2 * _Z) / (smooth * (1 - smooth)), 0.0)
    rest = errors[None, :] - floors[:, None]  # F, points
    above = shrink @ (weights * rest).T  # E, F
    scale = np.maximum(above / (weights * shrink**2).sum(axis=1)[:, None], 0.0)
    off = scale[:, :, None] * shrink[:, None, :] - rest[None, :, :]
    return Laws(scale, floors, (weights * off**2).sum(axis=2), top)
