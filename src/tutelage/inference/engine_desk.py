"""Keeps the loaded releases of one engine and runs their requests; knows no HTTP.

A release's requests queue here for its slots, so a backend never sees more than it can hold. A
release that is removed takes no new request, finishes the ones it has, and then frees its memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tutelage.inference.engine_base import Backend, Ending, Piece, Seat
from tutelage.inference.engine_memory import give_back_memory
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import ChatRequest

_THREADS = 128  # blocked in native code, not computing; a release uses at most its slots


class _Place:
    """A loaded release and how many requests hold it."""

    def __init__(self, seat: Seat, adapter: Path | None) -> None:
        self.seat = seat
        self.adapter = adapter
        self.slots = asyncio.Semaphore(seat.slots)
        self.held = 0
        self.free = asyncio.Event()
        self.free.set()

    def hold(self) -> None:
        self.held += 1
        self.free.clear()

    def let_go(self) -> None:
        self.held -= 1
        if self.held == 0:
            self.free.set()


class Desk:
    """The releases an engine answers for. All methods run on one event loop."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._places: dict[str, _Place] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine")

    @property
    def releases(self) -> list[str]:
        return sorted(self._places)

    @property
    def queue(self) -> int:
        """Return how many requests are running or waiting."""
        return sum(place.held for place in self._places.values())

    async def load(self, release: str, adapter: Path | None) -> None:
        """Make `release` answer; the same release and adapter again changes nothing.

        Raise ModelError if it can't be loaded, RequestProblem (409) if the id is taken.
        """
        async with self._loading:
            known = self._places.get(release)
            if known is None:
                loop = asyncio.get_running_loop()
                seat = await loop.run_in_executor(self._pool, self._open, adapter)
                self._places[release] = _Place(seat, adapter)
            elif known.adapter != adapter:
                message = f"the release {release!r} is loaded with another adapter"
                raise RequestProblem(message, status=409, code="release_exists")

    def _open(self, adapter: Path | None) -> Seat:
        try:
            return self.backend.open(adapter)
        finally:
            give_back_memory()

    async def unload(self, release: str) -> bool:
        """Take `release` away once its requests have ended; False if it was not there."""
        place = self._places.pop(release, None)
        if place is None:
            return False
        task = asyncio.create_task(self._retire(place))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.shield(task)
        return True

    async def _retire(self, place: _Place) -> None:
        await place.free.wait()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, place.seat.close)
        await loop.run_in_executor(self._pool, give_back_memory)

    async def answer(self, request: ChatRequest) -> AsyncIterator[Piece | Ending]:
        """Yield the pieces of an answer and then its ending.

        Closing the iterator early stops the work. Raise RequestProblem (404) for a release that is
        not loaded.
        """
        place = self._places.get(request.release)
        if place is None:
            known = ", ".join(self.releases) or "none"
            message = f"the release {request.release!r} is not loaded here; loaded: {known}"
            raise RequestProblem(message, status=404, code="model_not_found")
        place.hold()
        try:
            async with place.slots:
                async for item in self._run(place.seat, request):
                    yield item
        finally:
            place.let_go()

    async def _run(self, seat: Seat, request: ChatRequest) -> AsyncIterator[Piece | Ending]:
        """Yield the pieces as they come if they are streamed; else all at the end.

        To wake this loop for every piece takes processor time from the model.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        kept: list[Piece] = []
        unwanted = threading.Event()

        def tell(piece: Piece) -> bool:
            if request.stream:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            else:
                kept.append(piece)
            return unwanted.is_set()

        work = loop.run_in_executor(self._pool, seat.answer, request, tell)
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            ended = work.result()
            for piece in kept:
                yield piece
            yield ended
        finally:
            unwanted.set()
            while not work.done():  # the slot is busy until the backend notices
                try:
                    await asyncio.wait({work})
                except asyncio.CancelledError:
                    continue
            if not work.cancelled():
                work.exception()  # seen: a failure after the client left concerns nobody

    async def close(self) -> None:
        """End once no request is running: nothing is put in the place of what goes."""
        places, self._places = list(self._places.values()), {}
        await asyncio.gather(*(place.free.wait() for place in places), *self._leaving)
        await asyncio.get_running_loop().run_in_executor(self._pool, self.backend.end)
        self._pool.shutdown(wait=False)
