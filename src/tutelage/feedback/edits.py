"""Which edits of users count as labels without an expert: agreement decides, and says so.

An edit by somebody whose edits experts have confirmed often enough counts; so does one that a
second person made too, and, of people whom nobody has checked much, one made while the edits of all
of them together are confirmed often enough. Nothing here reads the store.
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
_OWN = 5  # checked edits from which on a person is known; and what one counts for among all
_PEOPLE = 5  # whose edits were checked, before anything is said of all together


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
    met = checked(everything, decided)
    known = {name for name, found in met.items() if len(found) >= _OWN}
    trusted = {name: low for name, low in trust(met).items() if low >= agreement}
    together = trust_together(met)
    pooled = together if together is not None and together >= agreement else None
    crowd = _Crowd(trusted, known, pooled)
    said: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in everything:
        said[one.item][normalise(one.value)].add(one.author or "")
    return [_judge(edit, decided, crowd, said, policy) for edit in edits]


@dataclass(frozen=True)
class _Crowd:
    """Who is trusted by what experts said of their edits: each `known` one, or all together."""

    trusted: Mapping[str, float]
    known: set[str]
    together: float | None  # at least so often are the others' edits what experts say, if enough


def _judge(
    edit: Edit,
    decided: Mapping[str, str],
    crowd: _Crowd,
    said: Mapping[str, Mapping[str, set[str]]],
    policy: Policy,
) -> Judged:
    if edit.item in decided:
        return Judged(edit, False, "experts decided this one")
    if policy == "all":
        return Judged(edit, True, "every edit counts (improve.review.edits: all)")
    if policy == "review":
        return Judged(edit, False, "experts decide (improve.review.edits: review)")
    value = normalise(edit.value)
    people = len(said[edit.item][value])
    rivals = max((len(by) for other, by in said[edit.item].items() if other != value), default=0)
    if people > 1 and rivals >= people:
        return Judged(edit, False, f"{people} people say so and {rivals} something else")
    if people > 1:
        return Judged(edit, True, f"{people} people say the same")
    author = edit.author or ""
    low = crowd.trusted.get(author)
    if low is not None:
        return Judged(edit, True, f"its author agrees with the experts at least {low:.0%} of times")
    if crowd.together is not None and author not in crowd.known:
        why = f"users' edits are what experts say at least {crowd.together:.0%} of times"
        return Judged(edit, True, why)
    return Judged(edit, False, "its author is not trusted yet, and nobody else says the same")


def checked(everything: Sequence[Edit], decided: Mapping[str, str]) -> dict[str, list[bool]]:
    """Return whether each edit that experts checked is what they say, by author.

    Authors whom nobody checked are left out.
    """
    met: dict[str, list[bool]] = defaultdict(list)
    for one in everything:
        if one.item in decided:
            met[one.author or ""].append(normalise(decided[one.item]) == normalise(one.value))
    return met


def trust(met: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    """Return, by author, how often their edits are what experts say: at least, with 95 %.

    The lower end of Wilson's interval (1927), one-sided.
    """
    return {name: _low(sum(found), len(found)) for name, found in met.items()}


def trust_together(met: Mapping[str, Sequence[bool]]) -> float | None:
    """Return the same of all authors as one; None while fewer than five people were checked.

    Somebody who edits much counts as five edits, so that nobody speaks for the others.
    """
    if len(met) < _PEOPLE:
        return None
    counted = [(sum(found) / len(found), min(len(found), _OWN)) for found in met.values()]
    return _low(sum(share * n for share, n in counted), sum(n for _, n in counted))


def _low(right: float, n: int) -> float:
    share, z2 = right / n, _Z * _Z
    middle = share + z2 / (2 * n)
    spread = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z2 / n))
