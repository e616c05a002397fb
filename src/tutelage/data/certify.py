"""Hold the sides of a version against each other: what leaks is left out, and that is certified.

The lower side gives way (train before validation before test). The weights of n-grams are always
those of the train rows, so the first certificate is what `leak_certificate` says of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.findings import reason
from tutelage.data.leakage import LeakCertificate, certificate, find_twins, with_meaning
from tutelage.data.pipeline import Dropped

# texts to the name of an embedder and its unit vectors, one a row
Embed = Callable[[Sequence[str]], tuple[str, NDArray[np.float32]]]
# the lower side, and the one it is held against
HELD: tuple[tuple[SplitName, SplitName], ...] = (
    ("train", "test"),
    ("train", "validation"),
    ("validation", "test"),
)


@dataclass
class Certified:
    """The rows that stay on each side, what was left out, and a certificate a pair of sides.

    `leaks` has the keys "train-test", "train-validation" and "validation-test".
    """

    sides: dict[SplitName, list[Example]]
    dropped: list[Dropped] = field(default_factory=list)
    leaks: dict[str, LeakCertificate] = field(default_factory=dict)


def certify(
    sides: Mapping[SplitName, Sequence[Example]],
    *,
    embed: Embed | None = None,
    on_pair: Callable[[str], None] | None = None,
) -> Certified:
    """Return the sides without exact and near twins across them, and the certificates.

    With `embed` rows of one meaning are counted too, and stay. `on_pair` is told the name of each
    pair before it is compared.
    """
    from tutelage.data.dedup.tfidf import count_grams

    result = Certified({split: list(sides[split]) for split in SPLITS})
    parts = count_grams(*([row.input_text for row in result.sides[split]] for split in SPLITS))
    counts = dict(zip(SPLITS, parts, strict=True))
    lost = True
    while lost:  # weights change with the rows, so all pairs are compared anew after a loss
        lost = False
        for low, high in HELD:
            if on_pair is not None:
                on_pair(f"{low}-{high}")
            lost |= _hold(low, high, counts, result)
    if embed is not None:
        _by_meaning(result, embed)
    return result


def _hold(low: SplitName, high: SplitName, counts: dict[SplitName, Any], result: Certified) -> bool:
    """Certify one pair of sides; leave out the lower side's twins; return whether there were."""
    from tutelage.data.dedup.tfidf import weigh

    lower, upper = result.sides[low], result.sides[high]
    texts = [[row.input_text for row in rows] for rows in (lower, upper)]
    if low == "train":
        left, right = weigh(counts[low], counts[high])
    else:  # too few rows to take weights from
        left, right = weigh(counts["train"], counts[low], counts[high], unseen=True)[1:]
    found = find_twins(texts[0], texts[1], left, right)
    result.leaks[f"{low}-{high}"] = certificate(found, (len(lower), len(upper)))
    for index, pair in sorted(found.of_train.items()):
        twin = upper[pair.test]
        place = f"{twin.origin.source or twin.id} in {high}"
        why = reason("D10-X01", f"cosine {pair.cosine:.2f} with {place}")
        result.dropped.append(Dropped(lower[index], "D10-X01", why, twin.id))
    if found.of_train:
        stays = [index for index in range(len(lower)) if index not in found.of_train]
        result.sides[low] = [lower[index] for index in stays]
        counts[low] = counts[low][stays]
    return bool(found.of_train)


def _by_meaning(result: Certified, embed: Embed) -> None:
    """Add twins by meaning to the certificates; all sides are embedded in one call."""
    name, vectors = embed([row.input_text for split in SPLITS for row in result.sides[split]])
    parts, start = {}, 0
    for split in SPLITS:
        parts[split] = vectors[start : start + len(result.sides[split])]
        start += len(result.sides[split])
    for low, high in HELD:
        key = f"{low}-{high}"
        result.leaks[key] = with_meaning(result.leaks[key], parts[low], parts[high], name)
