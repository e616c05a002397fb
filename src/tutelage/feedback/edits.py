"""Which edits of users count as labels without an expert: agreement decides, and says so.

An edit by somebody whose edits experts have confirmed often enough counts; so does one that a
second person made too. Nothing here reads the store.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.core.example import Example, normalise

Policy = Literal["agreed", "all", "review"]
_Z = 1.6448536269514722  # one-sided 95 %


@dataclass(frozen=True)
class Edit:
    """One corrected answer. `item` names what was asked, `value` is the label or the text."""

    record: str
    item: str
    value: str
    author: str | None
    example: Example


@dataclass(frozen=True)
class Judged:
    """An edit, whether it counts, and why or why not."""

    edit: Edit
    accepted: bool
    why: str


def judge_edits(
    edits: Sequence[Edit],
    everything: Sequence[Edit],
    decided: Mapping[str, str],
    *,
    policy: Policy,
    agreement: float,
) -> list[Judged]:
    """Return each of `edits` with whether it counts.

    `everything` are all edits there are, by which authors are known; `decided` is what experts
    said, by item: their word goes before any edit.
    """
    trusted = {name: low for name, low in trust(everything, decided).items() if low >= agreement}
    said: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in everything:
        said[one.item, normalise(one.value)].add(one.author or "")
    return [_judge(edit, decided, trusted, said, policy) for edit in edits]


def _judge(
    edit: Edit,
    decided: Mapping[str, str],
    trusted: Mapping[str, float],
    said: Mapping[tuple[str, str], set[str]],
    policy: Policy,
) -> Judged:
    if edit.item in decided:
        return Judged(edit, False, "experts decided this one")
    if policy == "all":
        return Judged(edit, True, "every edit counts (improve.review.edits: all)")
    if policy == "review":
        return Judged(edit, False, "experts decide (improve.review.edits: review)")
    people = said[edit.item, normalise(edit.value)]
    if len(people) > 1:
        return Judged(edit, True, f"{len(people)} people say the same")
    low = trusted.get(edit.author or "")
    if low is not None:
        return Judged(edit, True, f"its author agrees with the experts at least {low:.0%} of times")
    return Judged(edit, False, "its author is not trusted yet, and nobody else says the same")


def trust(everything: Sequence[Edit], decided: Mapping[str, str]) -> dict[str, float]:
    """Return, by author, how often their edits are what experts say: at least, with 95 %.

    The lower end of Wilson's interval (1927), one-sided. Authors whom nobody checked are left out.
    """
    met: dict[str, list[bool]] = defaultdict(list)
    for one in everything:
        if one.item in decided:
            met[one.author or ""].append(normalise(decided[one.item]) == normalise(one.value))
    return {name: _low(sum(found), len(found)) for name, found in met.items()}


def _low(right: int, n: int) -> float:
    share, z2 = right / n, _Z * _Z
    middle = share + z2 / (2 * n)
    spread = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z2 / n))
