"""The lists of words that detectors look things up in: names.txt, places.txt, words.txt.

A list starts with `[its name]`; its words stand between spaces, or commas where one has a space.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def words(file: str, name: str) -> frozenset[str]:
    """Return one list of one file."""
    return frozenset(in_order(file, name))


def in_order(file: str, name: str) -> tuple[str, ...]:
    """Return one list of one file in the order in which it is written."""
    return tuple(_lists(file)[name])


def large_places() -> frozenset[str]:
    """Return states, countries and continents in small letters: these may stay."""
    return words("places.txt", "large")


@cache
def _lists(file: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    current: list[str] = []
    text = files("tutelage.data.privacy").joinpath(file).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[] "), [])
        elif not line.startswith("#"):
            parts = line.split(",") if "," in line else line.split()
            current.extend(part.strip() for part in parts if part.strip())
    return found
