"""The embedded engine beside llama.cpp's own server and `transformers serve`, on the demo model.

Written tokens a second, prompts included in the time: one request after another and eight at once,
with a prompt of their own or a long system message that all of them share, on one adapter and on
four in turn. Every engine gets one thread on the same processor core, the same number of slots in
all, the same adapters, prompts and greedy decoding; they take turns in every round, and the figure
is the median of the rounds' ratios. A shared message is new in each round: nobody has it cached.

Also what a second release adds to memory, keys and values apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from common import machine, table
from common_engines import (
    CONTEXT,
    Server,
    llamacpp,
    on_server_core,
    transformers_serve,
    tutelage,
    write_adapter,
)
from tutelage.core.workspace import Workspace
from tutelage.inference.gguf_header import GgufHeader, read_header
from tutelage.inference.models import locate_model
from tutelage.serving.launchers.embedded import EmbeddedLauncher

AT_ONCE, ADAPTERS = 8, 4
WORDS = (
    "fever", "cough", "fracture", "asthma", "angina", "sepsis", "anaemia", "migraine", "eczema",
    "gout", "ulcer", "stroke",
)  # fmt: skip
BRIEF = "You are a medical coder. Explain each code in plain words, at length."


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds, tokens of an answer, rules of a shared message (25 tokens)."""

    rounds: int
    tokens: int
    rules: int


@dataclass(frozen=True)
class Case:
    """`at_once` requests under way, over `releases` releases in turn."""

    at_once: int
    shared: bool
    releases: int

    @property
    def name(self) -> str:
        prefix = "shared" if self.shared else "own"
        return f"{self.at_once} at once, {prefix} prompts, {self.releases} adapters"

    @property
    def count(self) -> int:
        """Requests in a round."""
        return 2 * AT_ONCE if self.at_once > 1 else 2 * ADAPTERS


CASES = [
    Case(at_once, shared, releases)
    for releases in (1, ADAPTERS)
    for shared in (False, True)
    for at_once in (1, AT_ONCE)
]


def conversations(case: Case, round_: int, rules: int) -> list[list[dict[str, str]]]:
    """Return the requests of a round: their user texts differ from the first word on."""
    random = np.random.default_rng([round_, case.at_once, case.releases, int(case.shared)])
    system = BRIEF
    if case.shared:
        lines = (f"Rule {n}: {' '.join(random.choice(WORDS, 9))}." for n in range(rules))
        system = f"Manual {random.integers(10**9)}. {BRIEF} {' '.join(lines)}"
    return [
        [
            {"role": "system", "content": system},
            {"role": "user", "content": f"{' '.join(random.choice(WORDS, 5))}, item {n}: explain."},
        ]
        for n in range(case.count)
    ]


async def rate(server: Server, case: Case, asked: list[list[dict[str, str]]], tokens: int) -> float:
    """Return the tokens a second that a server writes."""
    headers = {"authorization": f"Bearer {server.key}"} if server.key else {}
    gate = asyncio.Semaphore(case.at_once)
    limit = aiohttp.ClientTimeout(total=600)

    async with aiohttp.ClientSession(headers=headers, timeout=limit) as session:

        async def ask(place: int, messages: list[dict[str, str]]) -> int:
            body = {"messages": messages, "max_tokens": tokens, "temperature": 0.0}
            body |= server.fields(place % case.releases)
            async with gate, session.post(server.url, json=body) as response:
                answer = await response.json()
                if response.status != 200:
                    raise RuntimeError(f"{server.name}: {answer}")
                return int(answer["usage"]["completion_tokens"])

        started = time.perf_counter()
        counts = await asyncio.gather(*(ask(n, m) for n, m in enumerate(asked)))
        return sum(counts) / (time.perf_counter() - started)


async def speeds(adapters: list[Path], size: Size, peers: str) -> list[dict[str, Any]]:
    """Return a row for each case: every engine's tokens a second and our ratios to it."""
    rows = []
    for releases in (1, ADAPTERS):
        async with AsyncExitStack() as stack:
            chosen, enter = adapters[:releases], stack.enter_async_context
            servers = [await enter(tutelage(chosen, AT_ONCE))]
            servers.append(await enter(llamacpp(chosen, AT_ONCE)))
            if releases == 1 and peers == "all":
                servers.append(await enter(transformers_serve()))
            for server in servers:  # what is loaded late, and the brief in every slot
                warm = Case(AT_ONCE, False, releases)
                await rate(server, warm, conversations(warm, 10**6, 0), 2)
            for case in (case for case in CASES if case.releases == releases):
                rows.append(await _row(case, servers, size))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


async def _row(case: Case, servers: list[Server], size: Size) -> dict[str, Any]:
    measured: dict[str, list[float]] = {server.name: [] for server in servers}
    for round_ in range(size.rounds):
        for server in servers:
            asked = conversations(case, round_, size.rules)
            if server.name == "transformers serve":
                if round_:
                    continue  # once, and fewer requests, of an engine that is several times slower
                asked = asked[: max(2, case.at_once)]
            measured[server.name].append(await rate(server, case, asked, size.tokens))
    row: dict[str, Any] = {"case": case.name}
    row |= {name: round(statistics.median(values), 1) for name, values in measured.items()}
    for name in ("llama.cpp", "transformers serve"):
        pairs = zip(measured["tutelage"], measured.get(name, []), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs]
        row[f"vs {name}"] = round(statistics.median(ratios), 2) if ratios else ""
    return row


def kv_mb(header: GgufHeader, slots: int) -> float:
    """Return the keys and values of all slots in MB (10^6): float16, full length."""
    heads = int(header.of_architecture("attention.head_count"))
    width = int(header.of_architecture("embedding_length")) // heads
    kept = int(header.of_architecture("attention.head_count_kv")) * width
    return slots * CONTEXT * int(header.of_architecture("block_count")) * 2 * kept * 2 / 1e6


async def memory(adapters: list[Path], slots: int = 4) -> dict[str, Any]:
    """Return what one release and each further one cost, in MB (10^6), keys and values apart.

    The first is the whole engine with one release: program, weights, adapter, buffers. All of it
    would be there twice if a second release meant a second engine. Keys and values are shared.
    """
    header = read_header(locate_model("demo").path)
    with tempfile.TemporaryDirectory() as folder:
        options = ("--slots", str(slots), "--context", str(CONTEXT))
        launcher = EmbeddedLauncher("demo", Workspace(Path(folder)), 1, options=options)
        with on_server_core():
            engine = await launcher.start()
        url = f"{engine.base_url}/v1/chat/completions"
        taken = []
        try:
            for place, adapter in enumerate(adapters):
                await launcher.ensure(f"r{place}", adapter)
                one = Server("tutelage", url, lambda _, place=place: {"model": f"r{place}"})
                case = Case(AT_ONCE, True, 1)
                await rate(one, case, conversations(case, place, 4)[:slots], 4)  # in every slot
                taken.append(float((await launcher.stats())["pss_mb"]))
        finally:
            await launcher.stop()
    first = taken[0] - kv_mb(header, slots)
    added = [float(value) for value in np.diff(taken)]
    return {
        "first_release_mb": round(first, 1),
        "further_releases_mb": [round(value, 1) for value in added],
        "keys_and_values_mb": round(kv_mb(header, slots), 1),
        "second_over_first": round(added[0] / first, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--peers", choices=("all", "llamacpp"), default="all")
    options = parser.parse_args()
    size = Size(2, 16, 8) if options.quick else Size(7, 64, 24)
    header = read_header(locate_model("demo").path)
    with tempfile.TemporaryDirectory() as folder:
        adapters = [
            write_adapter(Path(folder) / f"adapter-{seed}", header, seed=seed)
            for seed in range(ADAPTERS)
        ]
        taken = asyncio.run(memory(adapters))
        rows = asyncio.run(speeds(adapters, size, options.peers))
    best = {row["case"]: row["vs llama.cpp"] for row in rows}
    headline = {
        "vs_best": min(value for case, value in best.items() if "own" in case),
        "vs_best_shared_prefix": min(value for case, value in best.items() if "shared" in case),
        "second_release_memory": taken["second_over_first"],
    }
    result = {"name": "engine", "machine": machine(), "rows": rows, "headline": headline}
    result["memory"] = taken
    if options.json:
        print(json.dumps(result))
        return
    print(f"tokens a second, {size.tokens} a request, median of {size.rounds} rounds")
    print(table([{**row, "transformers serve": row.get("transformers serve", "")} for row in rows]))
    print("memory", json.dumps(taken))
    print("headline", json.dumps(headline))


if __name__ == "__main__":
    main()
