"""Lengths of time as tutelage.yaml writes them: 30s, 5m, 12h, 7d, 4w."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PATTERN = r"^\d{1,6}[smhdw]$"
_LONGEST_DAYS = 36_500  # a calendar has room for so much before and after now


def seconds(text: str) -> float:
    """Return a duration such as 5m in seconds; raise ValueError for anything else."""
    if not re.match(_PATTERN, text):
        raise ValueError(f"{text!r} is no length of time: write 30s, 5m, 12h, 7d or 4w")
    length = int(text[:-1]) * _UNITS[text[-1]]
    if length > _LONGEST_DAYS * _UNITS["d"]:
        raise ValueError(f"{text!r} is too long: write at most {_LONGEST_DAYS}d")
    return float(length)


def words(length: float) -> str:
    """Return `length` seconds in the largest unit that divides it: 90 is 90s, 300 is 5m."""
    for unit, size in sorted(_UNITS.items(), key=lambda pair: -pair[1]):
        if length >= size and length % size == 0:
            return f"{length / size:g}{unit}"
    return f"{length:g}s"


def _short_enough(text: str) -> str:
    seconds(text)
    return text


Duration = Annotated[str, Field(pattern=_PATTERN), AfterValidator(_short_enough)]


def _lasting(text: str) -> str:
    if not seconds(text):
        raise ValueError("it must be longer than 0s")
    return text


# of what is done again after it: 0s would be without a pause
Interval = Annotated[Duration, AfterValidator(_lasting)]
