"""Which requests say nearly what a corrected one says: by cosine, and only with the same facts.

"Take 5 mg" and "take 50 mg" lie close and ask different things: texts whose numbers or negations
differ are never similar here, whatever their cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.core.example import SplitName
from tutelage.data.dedup.facts import same_facts
from tutelage.data.linear import Vectors
from tutelage.feedback.mining.scan import LONGEST, Window, asked_text, chunks
from tutelage.store.base import Store

THRESHOLD = 0.8  # cosine from which on a request counts as similar, unless another is named
_MOST = 2000  # similar requests that are kept in mind


@dataclass(frozen=True)
class Similar:
    """One request like the corrected one. `status` says what would become of it, in words."""

    record: str
    text: str
    answer: str
    release: str
    split: SplitName
    cosine: float
    status: str = ""

    @property
    def applies(self) -> bool:
        """Whether the correction would be applied to it."""
        return not self.status


def similar_records(
    store: Store,
    window: Window,
    text: str,
    project: Callable[[Sequence[str]], Vectors],
    threshold: float,
) -> tuple[list[Similar], float]:
    """Return the requests of a window like `text`, the most similar first, 2,000 at most.

    The log is read in chunks; of the rest nothing is held but the highest cosine of another text
    that lies below the threshold, which is returned too.
    """
    own = project([text[:LONGEST]])[0]
    lower = text.lower()
    found: list[Similar] = []
    below = 0.0
    for rows in chunks(store, window):
        asked = [(row, said) for row in rows if (said := asked_text(row.messages)) is not None]
        if not asked:
            continue
        cosines = project([said[:LONGEST] for _, said in asked]) @ own
        inside = cosines >= threshold - 1e-6
        below = max(below, float(np.where(inside, 0, cosines).max()))
        for place in np.flatnonzero(inside):
            row, said = asked[place]
            if row.arm != "shadow" and same_facts(lower, said.lower()):
                cosine = round(float(cosines[place]), 4)
                found.append(Similar(row.id, said, row.response, row.release, row.split, cosine))
        found = sorted(found, key=lambda one: (-one.cosine, one.record))[:_MOST]
    return found, below
