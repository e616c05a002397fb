"""Gateways as real processes that can be killed, and clients that remember what they were told.

The processes are forked from one that has imported everything, so that a start costs little.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tutelage.workflows.serving.serve", "tests.fakes.gateway_process"])


def _serve(root: Path, told: Connection, prepare: Callable[[], None] | None) -> None:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.serving.serve import run_serve

    logging.disable(logging.CRITICAL)  # thousands of lines of trouble that is made on purpose
    if prepare is not None:
        prepare()
    run_serve(open_context(root), port=0, on_ready=told.send)


class GatewayProcess:
    """One life of a gateway over the project at `root`."""

    def __init__(
        self, root: Path, *, prepare: Callable[[], None] | None = None, wait_s: float = 60
    ) -> None:
        ours, theirs = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_serve, args=(root, theirs, prepare), daemon=True)
        self._process.start()
        theirs.close()
        try:
            if not ours.poll(wait_s):
                raise RuntimeError("the gateway did not start in time")
            self.url: str = ours.recv()
        except EOFError:
            self._process.join(10)
            code = self._process.exitcode
            raise RuntimeError(f"the gateway ended with {code} before it started") from None

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.join(30)

    def stop(self) -> int | None:
        """Ask it to drain and end; return its exit status."""
        self._process.terminate()
        self._process.join(60)
        return self._process.exitcode

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.is_alive():
            self.kill()


class GatewayCommand:
    """A gateway in a process of its own making, for what must be set before it starts."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "tests.fakes.gateway_process", str(root)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | dict(environment),
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url.startswith("http"):
            raise RuntimeError("the gateway did not start")

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> int:
        """Ask it to drain and end; return its exit status."""
        self._process.terminate()
        return self._process.wait(60)

    def __enter__(self) -> GatewayCommand:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass
class Note:
    """Feedback that a client wants kept, sent under one idempotency key until acknowledged."""

    key: str
    body: dict[str, Any]

    @property
    def signals(self) -> set[tuple[str, str]]:
        """What must be in the store once it is acknowledged: (record, kind)."""
        record = self.body["record_id"]
        return {(record, kind) for kind in ("rating", "edit") if kind in self.body}


@dataclass
class Told:
    """What clients were told, over all lives of the gateway."""

    answers: dict[str, str] = field(default_factory=dict)  # record -> arm
    arms: dict[str, set[str]] = field(default_factory=dict)  # user -> arms it was sent to
    acknowledged: list[Note] = field(default_factory=list)
    open: deque[Note] = field(default_factory=deque)  # sent or not, never acknowledged
    retried: int = 0
    statuses: Counter[int] = field(default_factory=Counter)  # of chat; 0 is a broken connection
    feedback_statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    unreached: bool = False  # what was waited for did not come

    @property
    def broken(self) -> int:
        return self.statuses[0]


class Clients:
    """`count` clients that ask and rate, each on a connection of its own."""

    def __init__(self, url: str, told: Told, *, count: int = 8, users: int = 1000) -> None:
        self.url, self.told, self.count, self.users = url, told, count, users

    async def work(self, enough: Callable[[], bool], *, seconds: float = 120) -> None:
        """Ask and rate until `enough()`, the gateway is gone or `seconds` have passed."""
        deadline = time.monotonic() + seconds

        async def one(number: int) -> None:
            timeout = aiohttp.ClientTimeout(total=60)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                while not enough() and time.monotonic() < deadline:
                    try:
                        await self._turn(session, number)
                    except (aiohttp.ClientError, OSError, TimeoutError):
                        self.told.statuses[0] += 1
                        return

        await asyncio.gather(*(one(number) for number in range(self.count)))
        self.told.unreached |= time.monotonic() >= deadline

    async def _turn(self, session: aiohttp.ClientSession, number: int) -> None:
        told, count = self.told, sum(self.told.statuses.values())
        if told.open:
            told.retried += 1
            await self._rate(session, told.open.popleft())
            return
        user = f"user-{count % self.users}"
        body = {
            "model": "colours",
            "messages": [{"role": "user", "content": f"thing {number} {count}"}],
            "user": user,
        }
        started = time.monotonic()
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            answer = await reply.json()
        told.statuses[reply.status] += 1
        told.slowest_s = max(told.slowest_s, time.monotonic() - started)
        if reply.status != 200:
            await asyncio.sleep(0.01)
            return
        record, arm = answer["id"], reply.headers["x-tutelage-arm"]
        told.answers[record] = arm
        told.arms.setdefault(user, set()).add(arm)
        await self._rate(session, Note(f"note-{record}", _note(record, count)))

    async def _rate(self, session: aiohttp.ClientSession, note: Note) -> None:
        headers = {"idempotency-key": note.key}
        try:
            sent = session.post(f"{self.url}/v1/feedback", json=note.body, headers=headers)
            async with sent as reply:
                await reply.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.told.open.append(note)
            raise
        self.told.feedback_statuses[reply.status] += 1
        if reply.status == 200:
            self.told.acknowledged.append(note)
        else:
            self.told.open.append(note)


def _note(record: str, count: int) -> dict[str, Any]:
    note: dict[str, Any] = {"record_id": record, "rating": "up" if count % 2 else "down"}
    if count % 3 == 0:
        note["edit"] = "cold"
    return note


@dataclass
class Kept:
    """What the store holds, held against what clients were told."""

    answers_missing: int
    acknowledged: int
    acknowledged_missing: int
    duplicates: int
    integrity: str

    @property
    def whole(self) -> bool:
        found = (self.answers_missing, self.acknowledged_missing, self.duplicates)
        return found == (0, 0, 0) and self.integrity == "ok"


def audit(store: Any, told: Told) -> Kept:
    """Compare the store with what clients were told; the gateway must have ended."""
    from tutelage.store.records import RecordRow, SignalRow

    with store.session() as session:
        records = [row[0] for row in session.query(RecordRow.id)]
        signals = [tuple(row) for row in session.query(SignalRow.record, SignalRow.kind)]
        integrity = "ok"
        if store.engine.dialect.name == "sqlite":
            connection = session.connection()
            integrity = str(connection.exec_driver_sql("PRAGMA integrity_check").scalar())
    expected = {pair for note in told.acknowledged for pair in note.signals}
    return Kept(
        answers_missing=len(set(told.answers) - set(records)),
        acknowledged=len(told.acknowledged),
        acknowledged_missing=len(expected - set(signals)),
        duplicates=len(signals) - len(set(signals)) + len(records) - len(set(records)),
        integrity=integrity,
    )


async def read_stream(url: str, text: str) -> tuple[str, str]:
    """Ask for a stream; return how it ended (complete, error, cut or a status) and its text.

    Complete means what a client takes for it: a finish reason and [DONE].
    """
    body = {"model": "colours", "messages": [{"role": "user", "content": text}], "stream": True}
    seen, ending = "", "cut"
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as reply,
    ):
        if reply.status != 200:
            return str(reply.status), ""
        with contextlib.suppress(aiohttp.ClientPayloadError):
            async for line in reply.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    ending = "complete" if line.startswith(b"data: [DONE]") else ending
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    ending = "error"
                for choice in event.get("choices", ()):
                    seen += choice["delta"].get("content") or ""
    return ending, seen


def main() -> None:
    """Serve the project that the first argument names; print the address when ready."""
    from tutelage.workflows.context import open_context
    from tutelage.workflows.serving.serve import run_serve

    def say(url: str) -> None:
        print(url, flush=True)

    logging.disable(logging.CRITICAL)
    run_serve(open_context(Path(sys.argv[1])), port=0, on_ready=say)


if __name__ == "__main__":
    main()
