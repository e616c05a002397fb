"""Token buckets: how often something may happen in a minute. Time is the caller's or monotonic.

A bucket holds what a minute allows and fills evenly. It knows nothing of requests.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

_MINUTE = 60.0
_MOST_ADDRESSES = 10_000  # remembered at once


class Bucket:
    """A token bucket of `per_minute` tokens that refills evenly over a minute.

    `take` may leave it negative: what was taken on an estimate is settled with `give_back`.
    """

    __slots__ = ("_at", "_clock", "_level", "per_minute")

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = per_minute
        self._at = clock()

    def _fill(self) -> float:
        now = self._clock()
        gained = (now - self._at) * self.per_minute / _MINUTE
        self._level, self._at = min(self.per_minute, self._level + gained), now
        return self._level

    def wait_for(self, amount: float) -> float:
        """Return the seconds until `amount` is there, 0.0 if it is.

        More than a whole bucket is there when the bucket is full: it could never come otherwise.
        """
        missing = min(amount, self.per_minute) - self._fill()
        if missing <= 1e-9:
            return 0.0
        return missing * _MINUTE / self.per_minute if self.per_minute > 0 else _MINUTE

    def take(self, amount: float) -> None:
        """Take `amount`, whether or not it is there."""
        self._fill()
        self._level -= amount

    def give_back(self, amount: float) -> None:
        """Put back what was taken too much (or take what was too little, below zero)."""
        self._level = min(self.per_minute, self._fill() + amount)

    def rate(self, per_minute: float) -> None:
        """Change the rate; what is in the bucket stays, up to the new most."""
        self._level = min(self._fill(), per_minute)
        self.per_minute = per_minute

    @property
    def left(self) -> float:
        """Return what is there now, at least 0."""
        return max(0.0, self._fill())

    @property
    def full_in(self) -> float:
        """Return the seconds until it is full."""
        missing = self.per_minute - self._fill()
        return missing * _MINUTE / self.per_minute if self.per_minute > 0 else 0.0


class Throttle:
    """A bucket for each address; the least lately seen is forgotten, so memory is bounded.

    An IPv6 address counts as its /64 network: a host owns the whole of it.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str) -> float:
        """Count one time for `address`; return 0.0, or the seconds it has to wait."""
        network = _network(address)
        bucket = self._buckets.get(network)
        if bucket is None:
            bucket = self._buckets[network] = Bucket(self.per_minute, self._clock)
            if len(self._buckets) > _MOST_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(network)
        wait = bucket.wait_for(1)
        if wait == 0.0:
            bucket.take(1)
        return wait


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
