"""Kills the engine with -9 again and again while clients read, and times its return.

The supervised engine and the gateway's client of it, with one reader of streams and one of whole
answers. For each kill: how long until the first whole answer again, and whether an answer that was
cut off looked complete: greedy answers are repeatable, so a stream that ended as a finished one
does, or a whole answer, must be word for word what the undisturbed engine writes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

from common import machine, table
from tutelage.core.workspace import Workspace
from tutelage.serving.launchers.embedded import EmbeddedLauncher
from tutelage.serving.wire.upstream import Upstream
from tutelage.serving.wire.wire import HttpError

TOKENS, PATIENCE_S = 32, 60.0
BODY: dict[str, Any] = {
    "model": "stable",
    "messages": [{"role": "user", "content": "Explain what a fracture of the femur is."}],
    "max_tokens": TOKENS,
}


class Readers:
    """Two clients that ask until told to stop, and what they were given."""

    def __init__(self, upstream: Upstream, expected: str) -> None:
        self.upstream, self.expected = upstream, expected
        self.whole = self.refused = self.false = 0
        self.answered = asyncio.Event()
        self.stopping = False

    async def run(self, streams: bool) -> None:
        """Ask again and again; a refusal is counted, a wrong complete answer too."""
        while not self.stopping:
            try:
                text = await (self._stream() if streams else self._whole())
            except HttpError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            self.whole += 1
            self.false += text != self.expected
            self.answered.set()

    async def _whole(self) -> str:
        return (await self.upstream.complete(BODY)).text

    async def _stream(self) -> str:
        parts = []
        async with aclosing(self.upstream.stream(BODY)) as pieces:
            async for together in pieces:
                parts += [piece.text for piece in together]
        return "".join(parts)


async def drill(kills: int, seed: int) -> dict[str, Any]:
    """Return the seconds from each kill to the next whole answer, and what clients saw."""
    chance, seconds = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder:
        launcher = EmbeddedLauncher("demo", Workspace(Path(folder)), 1)
        await launcher.start()
        upstream = Upstream(lambda: launcher.engine.base_url if launcher.engine else "")
        await upstream.start()
        tasks: list[asyncio.Task[None]] = []
        try:
            await launcher.ensure("stable", None)
            readers = Readers(upstream, (await upstream.complete(BODY)).text)
            tasks += [asyncio.create_task(readers.run(streams)) for streams in (True, False)]
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.05, 1.0))  # somewhere in an answer
                assert launcher.engine is not None
                os.kill(launcher.engine.pid, signal.SIGKILL)
                started = time.perf_counter()
                pid = launcher.engine.pid
                while launcher.engine.pid == pid:  # an answer read before counts as before
                    await asyncio.sleep(0.005)
                readers.answered.clear()
                await asyncio.wait_for(readers.answered.wait(), PATIENCE_S)
                seconds.append(time.perf_counter() - started)
            readers.stopping = True
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await upstream.close()
            await launcher.stop()
    return {
        "kills": kills,
        "median_s": round(statistics.median(seconds), 2),
        "longest_s": round(max(seconds), 2),
        "whole_answers": readers.whole,
        "refused": readers.refused,
        "cut_off_but_marked_complete": readers.false,
    }


def main() -> None:
    """Kill, time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="10 kills")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    row = asyncio.run(drill(10 if options.quick else options.kills, options.seed))
    headline = {
        "longest_s": row["longest_s"],
        "cut_off_but_marked_complete": row["cut_off_but_marked_complete"],
    }
    result = {
        "name": "engine_kills",
        "machine": machine(),
        "rows": [row],
        "headline": headline,
    }
    if options.json:
        print(json.dumps(result))
        return
    print(table([row]))
    print("headline", json.dumps(headline))


if __name__ == "__main__":
    main()
