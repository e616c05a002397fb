"""Which of several servers answers a request: the least busy of those that hold its release.

Envoy's outlier detection in small: a server that keeps failing a release with 5xx gets none of its
requests for a while, as long as another server has it. Looks at the servers, and putting releases
on them, are launchers/remote.py's.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tutelage.core.artifact import utc_now
from tutelage.serving.launchers.remote_server import RemoteServer
from tutelage.serving.wire.upstream import Engine
from tutelage.serving.wire.wire import HttpError

_FAILURES = 5  # 5xx in a row
_REST_S, _LONGEST_REST_S = 10.0, 300.0
_PAUSE_S = 1.0  # after it had no room
_MOST_RESTING = 0.5  # share of a release's servers, at most


@dataclass(frozen=True)
class Taken(Engine):
    """One request's place at a server."""

    server: RemoteServer = field(kw_only=True)
    release: str = field(kw_only=True)


@dataclass
class _Record:
    """How a server did with a release of late. Times are of time.monotonic()."""

    failures: int = 0
    rests: int = 0
    until: float = 0.0


class Backends:
    """The engines of a gateway whose launcher is remote (upstream.Engines)."""

    def __init__(
        self,
        holders: Callable[[str], Sequence[RemoteServer]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._holders, self._clock = holders, clock
        self._turn = itertools.count()
        self._taken: dict[int, int] = {}  # server -> the turn of its newest request
        self._records: dict[tuple[int, str], _Record] = {}

    def take(self, release: str) -> Engine:
        """Return a place at the least busy server; raise HttpError 503 if none has the release."""
        servers = self._holders(release)
        if not servers:
            raise HttpError(
                503, "The release is not loaded yet; try again.", code="not_loaded", retry_after=1
            )
        server = self._least_busy(self._awake(servers, release))
        server.busy[release] += 1
        self._taken[server.index] = next(self._turn)
        model = server.holds.get(release, release)
        return Taken(server.base_url, model, server.api_key, server=server, release=release)

    def give(self, engine: Engine, *, reached: bool, status: int | None = None) -> None:
        """Hear how a request went: `status` is that of the answer, if one came."""
        if not isinstance(engine, Taken):
            return
        server, release = engine.server, engine.release
        server.busy[release] -= 1
        if server.busy[release] <= 0:
            del server.busy[release]
        if not reached:
            server.doubt("a connection failed")
        elif status == 404:  # it was restarted, and its adapters are gone
            server.holds.pop(release, None)
            server.doubted.set()
        elif status is not None:
            self._note(server, release, failed=status >= 500 and status != 503)
            if status == 200 and engine.model == server.backend.model:
                server.answered = utc_now()

    def pass_on(self, engine: Engine, status: int) -> bool:
        """Return whether another server may take what this one refused, and give it back."""
        if not isinstance(engine, Taken):
            return False
        others = [s for s in self._holders(engine.release) if s is not engine.server and s.up]
        if not others:
            return False
        self.give(engine, reached=True, status=status)
        if status != 404:
            found = self._records.setdefault((engine.server.index, engine.release), _Record())
            found.until = max(found.until, self._clock() + _PAUSE_S)
        return True

    def _least_busy(self, servers: Sequence[RemoteServer]) -> RemoteServer:
        """Return the server with the fewest requests of ours, of equals the longest unasked."""
        if len(servers) == 1:
            return servers[0]
        return min(servers, key=lambda s: (sum(s.busy.values()), self._taken.get(s.index, -1)))

    def _awake(self, servers: Sequence[RemoteServer], release: str) -> Sequence[RemoteServer]:
        """Return the servers that are not resting; all, if more than half of them would be."""
        if len(servers) == 1 or not self._records:
            return servers
        now = self._clock()
        resting = [
            server for server in servers
            if (found := self._records.get((server.index, release))) and found.until > now
        ]  # fmt: skip
        if len(resting) > _MOST_RESTING * len(servers):
            return servers
        return [server for server in servers if server not in resting]

    def _note(self, server: RemoteServer, release: str, *, failed: bool) -> None:
        key = (server.index, release)
        if not failed:
            self._records.pop(key, None)
            return
        found = self._records.setdefault(key, _Record())
        found.failures += 1
        if found.failures >= _FAILURES:
            rest = min(_LONGEST_REST_S, _REST_S * 2.0**found.rests)
            found.failures, found.rests, found.until = 0, found.rests + 1, self._clock() + rest


class BackendMetrics(Collector):
    """The servers' state in Prometheus' names, read when it is asked for."""

    def __init__(self, servers: Sequence[RemoteServer], registry: CollectorRegistry) -> None:
        self._servers = servers
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        up = _gauge("up", "Whether the server answered when it was last looked at.")
        busy = _gauge("requests_running", "This gateway's requests at the server.")
        cache = _gauge("kv_cache_ratio", "Share of the server's KV cache that is in use.")
        gpu = _gauge("gpu_memory_ratio", "Share of the fullest GPU's memory that is in use.")
        put_back = _gauge("preemptions", "Requests put back for want of KV cache, since its start.")
        for server in self._servers:
            name, figures = [server.name], server.figures
            up.add_metric(name, float(server.up))
            busy.add_metric(name, sum(server.busy.values()))
            for gauge, value in (
                (cache, figures.kv_cache),
                (gpu, figures.gpu_memory),
                (put_back, figures.preemptions),
            ):
                if value is not None:
                    gauge.add_metric(name, value)
        return (up, busy, cache, gpu, put_back)


def _gauge(name: str, help_: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tutelage_backend_{name}", help_, labels=["backend"])
