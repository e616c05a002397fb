"""Labels that are one label spelled differently: by case, space, `_` and `-`, quotes, a full stop.

A typing error is not among them: `absorption` and `adsorption` are two words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

_EDGE = re.compile(r"^[\s\"'`*.,;:]+|[\s\"'`*.,;:]+$")
_BETWEEN = re.compile(r"[\s_\-]+")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-"})
_LEAST_LETTERS = 3  # of labels that may be one: `A` and `a` can be two


def fold(label: str) -> str:
    """Return the form in which two spellings of one label are equal."""
    text = unicodedata.normalize("NFKC", label).translate(_QUOTES)
    return _BETWEEN.sub(" ", _EDGE.sub("", text)).strip().casefold()


def spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the usual spelling for each rarer one. `counts`: rows a label.

    A label that is as frequent as the usual one is left: the two may be meant.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        groups[fold(label)].append(label)
    found: dict[str, str] = {}
    for key, labels in groups.items():
        if len(labels) < 2 or sum(map(str.isalnum, key)) < _LEAST_LETTERS:
            continue
        usual = max(labels, key=lambda label: (counts[label], label))
        found |= {label: usual for label in labels if counts[label] < counts[usual]}
    return found
