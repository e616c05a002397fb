"""A watch that may look for years: an alarm while nothing changes has a chance fixed beforehand.

After every fifty requests the newest 100, 200, 300, 400, 600, 1,000 and 2,000 are each compared
with all that came before them: few tell at once what is large, many what is small. Each comparison
gives an e-value for every series (scan.py): wording, lengths, labels, verdicts. The mean over the
seven has expectation at most 1 while nothing changes, so by Markov's inequality it reaches c with a
chance of at most 1/c. Look t has the share

    w_t = s / ((s + t - 1)(s + t)),  s = 100

of the chance `alpha`; the shares sum to 1. It raises the alarm where its mean reaches
1 / (alpha w_t): over all looks there will ever be, the chance of that is at most alpha, however
many requests come and however often one looks. The series share `alpha` among them.

What is told of answers is of one release, the one that gives most of the newest: what a new release
answers differently is its own doing, and no drift. Which those are is settled without looking at
the answers, so the e-values stay what they are.

It holds only if, while nothing changes, requests come in no particular order: of a person's
requests close to each other one counts. It knows no store and no clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tutelage.feedback.drift.begun import begun
from tutelage.feedback.drift.scan import Scans, along, among, near

BLOCK = 50  # requests between two looks
SCORED = 12  # verdicts between two looks at them
SPANS = (2, 4, 6, 8, 12, 20, 40)  # blocks that are compared with what came before them
POOL = 6_000  # requests before those blocks, at most; then a random part
VERDICTS = 1_500  # the same of verdicts
LEAST = 50  # requests to compare with, before anything is compared
APART = timedelta(hours=1)  # between two requests of a person that count
OF_ANSWERS = ("answer length", "label")  # a new release changes them, which is no drift
_PACE = 100  # s of the weights: the look until which half of the chance is spent
SHARES = {
    "request wording": 0.5, "request length": 0.125, "answer length": 0.125, "label": 0.125,
    "score": 0.125,
}  # fmt: skip
_BANDS = (1 / 3, 2 / 3)  # verdicts below are bad, between them neither, above good

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """What the watch sees of a request. None: the source can't tell. Lengths in characters."""

    id: str
    text: str
    at: str = ""  # ISO 8601; empty for a row of a dataset
    answer_length: int | None = None
    label: str | None = None
    user: str | None = None
    release: str | None = None  # that answered


class Verdict(NamedTuple):
    """What users said of a record, 0 (bad) to 1 (good)."""

    value: float
    id: str
    at: str


@dataclass(frozen=True)
class Evidence:
    """What one series shows: `p` bounds the chance of this much while nothing changes.

    It holds at any time and over all series (anytime-valid). `since` is where the span that says
    most begins; `looks` were taken.
    """

    series: str
    p: float
    looks: int
    since: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"series": self.series, "p": self.p, "looks": self.looks, "since": self.since}


@dataclass(frozen=True)
class Alarm:
    """A series has moved since about `since`. `ids` are telling requests, the best first."""

    series: str
    p: float
    since: str
    ids: tuple[str, ...]


class Blocks(Generic[T]):
    """What came in order: the latest blocks, the one that fills, and a part of what was before."""

    def __init__(self, size: int, most: int, before: Sequence[T] = ()) -> None:
        self.size, self.most = size, most
        self.pool, self.blocks, self.filling = list(before), list[list[T]](), list[T]()
        self.ended = 0  # blocks, kept or not

    def add(self, one: T) -> bool:
        """Take the next; return whether that ends a block."""
        self.filling.append(one)
        if len(self.filling) < self.size:
            return False
        self.blocks.append(self.filling)
        self.filling = []
        self.ended += 1
        return True

    def forget(self, rng: np.random.Generator) -> None:
        """Put the oldest block to those before if it is in no span; drop some at random."""
        if len(self.blocks) >= SPANS[-1]:
            self.pool += self.blocks.pop(0)
        if len(self.pool) > self.most:
            kept = np.sort(rng.choice(len(self.pool), self.most, replace=False))
            self.pool = [self.pool[int(i)] for i in kept]

    def rows(self, keep: Callable[[T], bool]) -> tuple[list[T], dict[int, int]]:
        """Return all of the blocks and before that `keep` wants, and how many are in each span.

        A span is left out if too few are before it, or are in it.
        """
        found = [one for one in self.pool if keep(one)]
        ends = [len(found)]
        for block in self.blocks:
            found += [one for one in block if keep(one)]
            ends.append(len(found))
        spans = {}
        for span in SPANS:
            if span < len(ends) and ends[-1 - span] >= LEAST:
                count = len(found) - ends[-1 - span]
                if count >= span * self.size // 2:
                    spans[span] = count
        return found, spans

    def state(self, of: Callable[[T], Any]) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {
            "pool": [of(one) for one in self.pool],
            "blocks": [[of(one) for one in block] for block in self.blocks],
            "filling": [of(one) for one in self.filling],
            "ended": self.ended,
        }

    def restore(self, state: Mapping[str, Any], made: Callable[[list[Any]], list[T]]) -> None:
        """Go on from a state."""
        self.pool, self.filling = made(state["pool"]), made(state["filling"])
        self.blocks = [made(block) for block in state["blocks"]]
        self.ended = int(state["ended"])

    def __iter__(self) -> Iterator[T]:
        yield from self.pool
        for block in self.blocks:
            yield from block
        yield from self.filling


@dataclass
class Standing:
    """What the last look at a series showed: its p-value, and where the telling span begins."""

    alpha: float  # this series' part of the chance
    looks: int = 0
    p: float = 1.0  # the least alpha at which this look would raise the alarm; 1: none would
    since: str | None = None

    def take(self, logs: Sequence[float], begins: Sequence[str]) -> int | None:
        """Take the log e-values of a look's spans; return the span that tells, None: no alarm."""
        self.looks += 1
        best = int(np.argmax(logs))
        mean = float(np.logaddexp.reduce(logs)) - math.log(len(SPANS))
        cost = math.log((_PACE + self.looks - 1) * (_PACE + self.looks) / _PACE)
        self.p = math.exp(-max(0.0, mean - cost))
        self.since = begins[best] if self.p < 1 else None
        return best if self.p <= self.alpha else None


class DriftWatch:
    """The watch of one deployment, from a `reference` on; `restore` puts it where it was."""

    def __init__(
        self, embed: Embed, *, alpha: float = 0.05, seed: int = 7, reference: Iterable[Item] = ()
    ) -> None:
        self._embed, self._alpha, self._seed = embed, alpha, seed
        self._requests: Blocks[Item] = Blocks(BLOCK, POOL, list(reference))
        self._verdicts: Blocks[Verdict] = Blocks(SCORED, VERDICTS)
        self._standings = {name: Standing(alpha * share) for name, share in SHARES.items()}
        self._users: dict[str, datetime] = {}  # when a request of each was last taken
        self._requests.forget(np.random.default_rng(seed))

    def add(self, item: Item) -> Alarm | None:
        """Take the next request; return the alarm that it raises, if any."""
        if not self._counts(item) or not self._requests.add(item):
            return None
        rng = np.random.default_rng((self._seed, 0, self._requests.ended))
        alarms = [self._look(name, rng) for name in SHARES if name != "score"]
        self._requests.forget(rng)
        self._users = _latest(self._users)
        return min((a for a in alarms if a is not None), key=lambda a: a.p, default=None)

    def _counts(self, item: Item) -> bool:
        """Note whose request it is; return whether the last of theirs is long enough ago."""
        if item.user is None or not item.at:
            return True
        at = datetime.fromisoformat(item.at)
        last = self._users.get(item.user)
        if last is not None and at - last < APART:
            return False
        self._users[item.user] = at
        return True

    def add_score(self, value: float, record: str, at: str) -> Alarm | None:
        """Take the next verdict, 0 (bad) to 1 (good); return the alarm that it raises, if any."""
        if not self._verdicts.add(Verdict(value, record, at)):
            return None
        rows, spans = self._verdicts.rows(lambda one: True)
        alarm = None
        if spans:
            bands = np.searchsorted(_BANDS, [one.value for one in rows]).astype(np.int64)
            alarm = self._take("score", rows, spans, among(bands, list(spans.values())))
        self._verdicts.forget(np.random.default_rng((self._seed, 1, self._verdicts.ended)))
        return alarm

    def _look(self, name: str, rng: np.random.Generator) -> Alarm | None:
        rows, spans = self._requests.rows(self._telling(name))
        if not spans:
            return None
        return self._take(name, rows, spans, self._scans(name, rows, list(spans.values()), rng))

    def _telling(self, name: str) -> Callable[[Item], bool]:
        """Return which requests a series is of: answers are compared within one release."""
        tells = _TELLS[name]
        if name not in OF_ANSWERS:
            return tells
        latest = (item.release for block in self._requests.blocks[-SPANS[0] :] for item in block)
        release = Counter(latest).most_common(1)[0][0]
        return lambda item: item.release == release and tells(item)

    def _scans(
        self, name: str, rows: list[Item], newest: list[int], rng: np.random.Generator
    ) -> Scans:
        if name == "request wording":
            mixed = rng.permutation(len(rows))  # an embedder fitted on some rows must see no order
            vectors = self._embed([rows[int(i)].text for i in mixed])
            return near(vectors[np.argsort(mixed)], newest, rng)
        if name == "request length":
            return along(np.array([len(item.text) for item in rows]), newest, rng)
        if name == "answer length":
            return along(np.array([item.answer_length for item in rows]), newest, rng)
        codes = np.unique([item.label or "" for item in rows], return_inverse=True)[1]
        return among(codes.astype(np.int64), newest)

    def _take(
        self, name: str, rows: Sequence[Item | Verdict], spans: Mapping[int, int], scans: Scans
    ) -> Alarm | None:
        standing = self._standings[name]
        starts = [len(rows) - count for count in spans.values()]
        best = standing.take([scan.log_e for scan in scans], [rows[i].at for i in starts])
        if best is None:
            return None
        start, scan = starts[best], scans[best]
        first = start + begun([i - start for i in scan.gained], len(rows) - start)
        standing.since = rows[first].at
        told = dict.fromkeys(rows[i].id for i in (*scan.where, *scan.gained) if i >= first)
        return Alarm(name, self._overall(standing), rows[first].at, tuple(told))

    def _overall(self, standing: Standing) -> float:
        """Return a p-value over all series."""
        return min(1.0, standing.p * self._alpha / standing.alpha)

    def evidence(self) -> tuple[Evidence, ...]:
        """Return what the last look at every series showed."""
        return tuple(
            Evidence(name, self._overall(one), one.looks, one.since)
            for name, one in self._standings.items()
        )

    def before(self, since: str) -> list[Item]:
        """Return the requests that are kept from before a time."""
        return [item for item in self._requests if item.at < since]

    @property
    def ids(self) -> set[str]:
        """The requests that `restore` will ask for."""
        return {item.id for item in self._requests}

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes: ids and figures, no texts."""
        return {
            "requests": self._requests.state(lambda item: item.id),
            "verdicts": self._verdicts.state(list),
            "series": {
                name: {"looks": one.looks, "p": one.p, "since": one.since}
                for name, one in self._standings.items()
            },
        }

    def restore(
        self, state: Mapping[str, Any], find: Callable[[set[str]], Mapping[str, Item]]
    ) -> None:
        """Go on from a state; `find` gives requests by id, and those it lacks are left out.

        The state of an earlier form of the watch is not taken: it begins anew with what comes.
        """
        if "requests" not in state:
            self._requests.pool = []
            return
        kept = state["requests"]
        items = find({name for part in (kept["pool"], *kept["blocks"], kept["filling"])
                      for name in part})  # fmt: skip
        self._requests.restore(kept, lambda ids: [items[name] for name in ids if name in items])
        self._verdicts.restore(state["verdicts"], lambda rows: [Verdict(*row) for row in rows])
        self._users = {
            item.user: datetime.fromisoformat(item.at)
            for item in self._requests
            if item.user is not None and item.at
        }
        for name, one in state["series"].items():
            self._standings[name] = Standing(self._standings[name].alpha, **one)


def _latest(users: dict[str, datetime]) -> dict[str, datetime]:
    """Return those whose next request may be too soon, whoever asked last."""
    newest = max(users.values(), default=None)
    return {u: at for u, at in users.items() if newest is not None and newest - at < APART}


_TELLS: dict[str, Callable[[Item], bool]] = {
    "request wording": lambda item: True,
    "request length": lambda item: True,
    "answer length": lambda item: item.answer_length is not None,
    "label": lambda item: item.label is not None,
}
