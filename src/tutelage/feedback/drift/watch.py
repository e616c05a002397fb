"""A watch that may look for years: an alarm while nothing changes has a chance fixed beforehand.

Requests come in batches of three sizes: of 100 for what is large and quick, of 500 for what is
small. Each batch gives an e-value for every series (scan.py): wording, lengths, labels, verdicts.
The product over any run of batches has expectation at most 1 while nothing changes, so by Markov's
inequality it reaches c with a chance of at most 1/c. Run (j, l), the l batches from the j-th on,
has the share  w_j u_l  of the chance `alpha`, where

    w_j = s / ((s + j - 1)(s + j)),  s = 100,    u_l = 1 / (l (l + 1)),

which sum to 1. It raises the alarm where its product reaches 1 / (alpha w_j u_l): over all runs
there will ever be, the chance of that is at most alpha, however many requests come and however
often one looks. The series and sizes share `alpha` among them.

It holds only if, while nothing changes, requests come in no particular order: a person's requests
in a row are thinned to one a batch. It knows no store and no clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.feedback.drift.scan import NOTHING, Scan, along, among, near

BATCHES = (100, 250, 500)  # requests
SCORED = 25  # verdicts of a batch of them
POOL = 1_500  # requests before a batch that it is compared with
LEAST = 50  # of them, before anything is compared
RUN = 30  # batches of the longest run
_PACE = 100  # s of the weights: the batch until which half of the chance is spent
SHARES = {
    "request wording": 0.5, "request length": 0.125, "answer length": 0.125, "label": 0.125,
    "score": 0.125,
}  # fmt: skip
_BANDS = (1 / 3, 2 / 3)  # verdicts below are bad, between them neither, above good

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Item:
    """What the watch sees of a request. None: the source can't tell. Lengths in characters."""

    id: str
    text: str
    at: str = ""  # ISO 8601; empty for a row of a dataset
    answer_length: int | None = None
    label: str | None = None
    user: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What one series shows: `p` bounds the chance of this much while nothing changes.

    It holds at any time and over all series (anytime-valid). `since` is where the run that says
    most begins; `batches` were looked at.
    """

    series: str
    p: float
    batches: int
    since: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"series": self.series, "p": self.p, "batches": self.batches, "since": self.since}


@dataclass(frozen=True)
class Alarm:
    """A series has moved. `since` is when the run of batches began; `ids` are telling requests."""

    series: str
    p: float
    since: str
    ids: tuple[str, ...]


@dataclass
class Runs:
    """The log e-values of the latest batches of one series, and where each batch began."""

    alpha: float  # this series' part of the chance
    looks: int = 0
    log_e: deque[float] = field(default_factory=lambda: deque(maxlen=RUN))
    since: deque[str] = field(default_factory=lambda: deque(maxlen=RUN))

    def add(self, log_e: float, since: str) -> None:
        """Take the next batch's."""
        self.looks += 1
        self.log_e.append(log_e)
        self.since.append(since)

    def best(self) -> tuple[float, str | None]:
        """Return the p-value of the run that says most, and where that begins.

        p <= 1 is the least alpha at which the run would raise the alarm.
        """
        best, since, total = 0.0, None, 0.0
        for length in range(1, len(self.log_e) + 1):
            total += self.log_e[-length]
            start = self.looks - length + 1
            cost = math.log((_PACE + start - 1) * (_PACE + start) / _PACE * length * (length + 1))
            if total - cost > best:
                best, since = total - cost, self.since[-length]
        return math.exp(-best), since


class _Stream:
    """One size of batch: what came before, what has come of the batch, a run for each series."""

    def __init__(self, size: int, runs: dict[str, Runs], pool: Iterable[Item]) -> None:
        self.size, self.runs = size, runs
        self.pool = list(pool)
        self.batch: list[Item] = []
        self.users: set[str] = set()
        self.ended = 0  # batches, looked at or not

    def add(self, item: Item) -> bool:
        """Take a request; return whether the batch is full."""
        if item.user is not None:
            if item.user in self.users:
                return False
            self.users.add(item.user)
        self.batch.append(item)
        return len(self.batch) >= self.size

    def absorb(self, rng: np.random.Generator) -> None:
        """Put the batch to the others, and drop some at random so that their number stays."""
        together = self.pool + self.batch
        if len(together) > POOL:
            kept = np.sort(rng.choice(len(together), POOL, replace=False))
            together = [together[int(i)] for i in kept]
        self.pool, self.batch, self.users = together, [], set()
        self.ended += 1


class DriftWatch:
    """The watch of one deployment, from a `reference` on; `restore` puts it where it was."""

    def __init__(
        self, embed: Embed, *, alpha: float = 0.05, seed: int = 7, reference: Iterable[Item] = ()
    ) -> None:
        self._embed, self._alpha, self._seed = embed, alpha, seed
        start = list(reference)
        if len(start) > POOL:
            kept = np.random.default_rng(seed).choice(len(start), POOL, replace=False)
            start = [start[int(i)] for i in np.sort(kept)]
        self._streams = [_Stream(size, self._fresh(), start) for size in BATCHES]
        self._scores = Runs(alpha * SHARES["score"])
        self._verdicts: list[float] = []  # those before the batch
        self._waiting: list[tuple[float, str, str]] = []  # the batch: value, id, time

    def _fresh(self) -> dict[str, Runs]:
        part = self._alpha / len(BATCHES)
        return {name: Runs(part * share) for name, share in SHARES.items() if name != "score"}

    def add(self, item: Item) -> Alarm | None:
        """Take the next request; return the alarm that it raises, if any."""
        alarm = None
        for place, stream in enumerate(self._streams):
            if stream.add(item):
                rng = np.random.default_rng((self._seed, place, stream.ended))
                alarm = self._look(stream, rng) or alarm
                stream.absorb(rng)
        return alarm

    def add_score(self, value: float, record: str, at: str) -> Alarm | None:
        """Take the next verdict, 0 (bad) to 1 (good); return the alarm that it raises, if any."""
        self._waiting.append((value, record, at))
        if len(self._waiting) < SCORED:
            return None
        batch, self._waiting = self._waiting, []
        bands = np.searchsorted(_BANDS, [*self._verdicts, *(v for v, _, _ in batch)])
        alarm = None
        if len(self._verdicts) >= LEAST:
            scan = among(bands.astype(np.int64), SCORED)
            self._scores.add(scan.log_e, batch[0][2])
            told = [batch[i - len(self._verdicts)][1] for i in scan.where]
            alarm = self._alarm("score", self._scores, told)
        rng = np.random.default_rng((self._seed, 9, self._scores.looks))
        together = np.array([*self._verdicts, *(v for v, _, _ in batch)])
        if len(together) > POOL:
            together = rng.choice(together, POOL, replace=False)
        self._verdicts = together.tolist()
        return alarm

    def _look(self, stream: _Stream, rng: np.random.Generator) -> Alarm | None:
        alarms = []
        for name, runs in stream.runs.items():
            together, new = _of(name, stream.pool), _of(name, stream.batch)
            if len(together) < LEAST or len(new) < stream.size // 2:
                continue
            scan = self._scan(name, [*together, *new], len(new), rng)
            runs.add(scan.log_e, stream.batch[0].at)
            told = [new[i - len(together)].id for i in scan.where]
            alarms.append(self._alarm(name, runs, told))
        return min((a for a in alarms if a is not None), key=lambda a: a.p, default=None)

    def _scan(self, name: str, items: list[Item], new: int, rng: np.random.Generator) -> Scan:
        if name == "request wording":
            return near(self._embed([item.text for item in items]), new, rng)
        if name == "request length":
            return along(np.array([len(item.text) for item in items]), new, rng)
        if name == "answer length":
            return along(np.array([item.answer_length for item in items]), new, rng)
        codes = np.unique([item.label or "" for item in items], return_inverse=True)[1]
        return among(codes.astype(np.int64), new) if len(items) else NOTHING

    def _alarm(self, name: str, runs: Runs, told: Sequence[str]) -> Alarm | None:
        p, since = runs.best()
        if since is None or p > runs.alpha:
            return None
        return Alarm(name, self._overall(p, runs), since, tuple(dict.fromkeys(told)))

    def _overall(self, p: float, runs: Runs) -> float:
        """Return a run's p-value over all series and sizes."""
        return min(1.0, p * self._alpha / runs.alpha)

    def evidence(self) -> tuple[Evidence, ...]:
        """Return what every series shows now, of the size of batch that shows most."""
        found = []
        for name in SHARES:
            each = [s.runs[name] for s in self._streams] if name != "score" else [self._scores]
            shown = []
            for runs in each:
                p, since = runs.best()
                shown.append(Evidence(name, self._overall(p, runs), runs.looks, since))
            best = min(shown, key=lambda one: one.p)
            looks = max(one.batches for one in shown)
            found.append(Evidence(name, best.p, looks, best.since))
        return tuple(found)

    def before(self, since: str) -> list[Item]:
        """Return the requests of the largest pool that came before a time."""
        return [item for item in self._streams[-1].pool if item.at < since]

    @property
    def ids(self) -> set[str]:
        """The requests that `restore` will ask for."""
        return {item.id for s in self._streams for item in (*s.pool, *s.batch)}

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes: ids and figures, no texts."""
        return {
            "streams": [
                {
                    "size": s.size,
                    "ended": s.ended,
                    "pool": [item.id for item in s.pool],
                    "batch": [item.id for item in s.batch],
                    "runs": {name: _kept(runs) for name, runs in s.runs.items()},
                }
                for s in self._streams
            ],
            "scores": {
                "runs": _kept(self._scores),
                "verdicts": self._verdicts,
                "waiting": [{"value": v, "id": name, "at": at} for v, name, at in self._waiting],
            },
        }

    def restore(
        self, state: Mapping[str, Any], find: Callable[[set[str]], Mapping[str, Item]]
    ) -> None:
        """Go on from a state; `find` gives requests by id, and those it lacks are left out."""
        streams = state["streams"]
        items = find({name for s in streams for name in (*s["pool"], *s["batch"])})
        for stream, kept in zip(self._streams, streams, strict=True):
            stream.pool = [items[name] for name in kept["pool"] if name in items]
            stream.batch = [items[name] for name in kept["batch"] if name in items]
            stream.users = {item.user for item in stream.batch if item.user is not None}
            stream.ended = int(kept["ended"])
            for name, runs in stream.runs.items():
                _put_back(runs, kept["runs"][name])
        scores = state["scores"]
        _put_back(self._scores, scores["runs"])
        self._verdicts = [float(value) for value in scores["verdicts"]]
        self._waiting = [(float(w["value"]), w["id"], w["at"]) for w in scores["waiting"]]


def _of(name: str, items: Sequence[Item]) -> list[Item]:
    """Return the requests that a series can be told of."""
    if name == "answer length":
        return [item for item in items if item.answer_length is not None]
    if name == "label":
        return [item for item in items if item.label is not None]
    return list(items)


def _kept(runs: Runs) -> dict[str, Any]:
    return {"looks": runs.looks, "log_e": list(runs.log_e), "since": list(runs.since)}


def _put_back(runs: Runs, kept: Mapping[str, Any]) -> None:
    runs.looks = int(kept["looks"])
    runs.log_e = deque((float(value) for value in kept["log_e"]), maxlen=RUN)
    runs.since = deque(kept["since"], maxlen=RUN)
