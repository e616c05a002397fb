"""How many requests are at the engine and how many wait for it; one more is refused at once.

A bounded queue in order of arrival. It does not know what a request is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType

from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.wire.wire import HttpError


class Slots:
    """At most `running` requests at the engine and `waiting` in the queue; one more is a 429.

    Who has waited `wait_s` seconds is refused too: its client has likely given up.
    """

    def __init__(
        self, running: int, waiting: int, telemetry: Telemetry, *, wait_s: float = 120.0
    ) -> None:
        self._free = running
        self._size = running
        self._most_waiting = waiting
        self._wait_s = wait_s
        self._queue: deque[asyncio.Future[None]] = deque()
        self._held_s = 0.5  # moving average of the time a slot is held
        self._telemetry = telemetry

    async def __aenter__(self) -> float:
        """Take a slot; return the time it was taken. Raises HttpError 429 if there is no room."""
        if self._free > 0:
            self._free -= 1
        else:
            self.require_room()
            await self._wait()
        self._telemetry.running.inc()
        return time.perf_counter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()
        self._telemetry.running.dec()

    def learn(self, held_s: float) -> None:
        """Tell how long one slot was held, for Retry-After."""
        self._held_s += 0.1 * (held_s - self._held_s)

    def require_room(self) -> None:
        """Raise HttpError 429 if a newcomer could not even wait."""
        if self._free <= 0 and len(self._queue) >= self._most_waiting:
            raise self._refusal("The queue is full; try again later.")

    @property
    def free(self) -> int:
        """Slots that nobody holds or waits for."""
        return self._free

    @property
    def retry_after(self) -> float:
        """Seconds until a newcomer may find room in the queue."""
        return self._held_s * (len(self._queue) + 1) / self._size

    def _refusal(self, message: str) -> HttpError:
        return HttpError(429, message, code="queue_full", retry_after=self.retry_after)

    def _release(self) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot passes on; `_free` stays
                return
        self._free += 1

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._queue.append(waiter)
        self._telemetry.waiting.inc()
        timer = loop.call_later(self._wait_s, self._too_long, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._queue:
                self._queue.remove(waiter)
            elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release()  # the slot came in the moment the client left
            raise
        finally:
            timer.cancel()
            self._telemetry.waiting.dec()

    def _too_long(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            self._queue.remove(waiter)
            waiter.set_exception(self._refusal("The engine is too busy; try again later."))
