"""What budgets cost and how exact they are: requests that hold and settle on one store.

Each gateway is a process of its own with a ledger; its clients ask, are answered after 5 ms, and
ask again. The time a request waits for its hold and the processor time it takes, without a
limit in sight. Then a budget that a crowd uses up: how many were let in, and what was spent. Above
all that, what the hooks cost a request that has no limit, or rate limits alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

ANSWER_S = 0.005
PERIOD = "2026-11-26"
MOST, ACTUAL = 300.0, 15.0  # tokens held and used


def _gateway(
    path: str,
    unit: str,
    limit: float,
    sizes: tuple[float, float],
    crowd: tuple[int, int],
    name: str,
) -> dict[str, Any]:
    """Run one gateway's clients until `crowd[1]` requests each, or the budget is spent."""
    from tutelage.serving.access.accounts import Account
    from tutelage.serving.access.ledger import BudgetInUse, BudgetSpent, Ledger
    from tutelage.serving.access.ledger_book import Claim
    from tutelage.store.base import open_store

    store = open_store(f"sqlite:///{path}")
    ledger = Ledger(store, lambda row: {})
    claim = Claim(Account("shop", None, unit, "day", limit), PERIOD, sizes[0])
    waits: list[float] = []

    async def client(number: int) -> None:
        for turn in range(crowd[1]):
            record = f"{name}-{number}-{turn}"
            began = time.perf_counter()
            try:
                await ledger.reserve(record, [claim])
            except BudgetSpent:
                return
            except BudgetInUse:
                continue
            waits.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(ANSWER_S)
            ledger.settle(record, {unit: sizes[1]})

    async def work() -> None:
        await asyncio.gather(*(client(number) for number in range(crowd[0])))

    ledger.start()
    wall, processor = time.perf_counter(), time.process_time()
    asyncio.run(work())
    processor = time.process_time() - processor
    wall = time.perf_counter() - wall
    ledger.close()
    store.close()
    return {"waits": waits, "processor": processor, "wall": wall}


def run(
    gateways: int, unit: str, limit: float, sizes: tuple[float, float], crowd: tuple[int, int]
) -> dict[str, Any]:
    """Return the figures of `gateways` processes on one store; `crowd` is clients, requests."""
    from sqlalchemy import select

    from tutelage.store.base import open_store
    from tutelage.store.usage import BudgetRow

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        open_store(f"sqlite:///{path}").close()
        with multiprocessing.get_context("spawn").Pool(gateways) as pool:
            jobs = [
                pool.apply_async(_gateway, (path, unit, limit, sizes, crowd, f"g{number}"))
                for number in range(gateways)
            ]
            found = [job.get() for job in jobs]
        store = open_store(f"sqlite:///{path}")
        with store.session() as session:
            spent = sum(session.scalars(select(BudgetRow.spent)))
        store.close()
    waits = sorted(wait for one in found for wait in one["waits"])
    return {
        "gateways": gateways,
        "clients": crowd[0] * gateways,
        "unit": unit,
        "requests": len(waits),
        "spent": spent,
        "wait_p50_ms": round(waits[len(waits) // 2], 2),
        "wait_p99_ms": round(waits[int(len(waits) * 0.99)], 2),
        "processor_us": round(sum(one["processor"] for one in found) / len(waits) * 1e6),
        "requests_a_second": round(len(waits) / max(one["wall"] for one in found)),
    }


def hot_path(deploy: dict[str, Any], requests: int) -> float:
    """Return the microseconds that the hooks take of a request that falls under no budget."""
    from types import SimpleNamespace

    from tutelage.core.config import Project
    from tutelage.core.example import Message
    from tutelage.serving.access.budgets import Budgets
    from tutelage.serving.access.keys import Caller, KeyRing
    from tutelage.serving.access.limits import RateLimits
    from tutelage.serving.hooks import Ask, Outcome
    from tutelage.store.base import open_store

    keys = KeyRing(required=True)
    keys.replace({"digest": Caller("shop", "client")})
    outcome = Outcome(200, None, "warm", "stop", 11, 4, 5.0, None, {})
    messages = (Message(role="user", content="what is the colour of the sun at noon? " * 10),)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/store.db")
        project = Project(name="colours", model="demo", deploy=deploy)
        state: Any = SimpleNamespace(project=project, keys=keys, store=store)
        hooks = (RateLimits(state), Budgets(state))

        async def work() -> None:
            for number in range(requests):
                ask = Ask(
                    f"rec_{number}", "colours", "release", "stable", None, None, "shop", "client",
                    None, "group", False, messages, 256, dict, 0.0, {},
                )  # fmt: skip
                for hook in hooks:
                    await hook.admit(ask)
                for hook in hooks:
                    hook.finished(ask, outcome)

        began = time.process_time()
        asyncio.run(work())
        took = time.process_time() - began
        store.close()
    return round(took / requests * 1e6, 1)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--json", action="store_true", help="one JSON object alone")
    options = parser.parse_args()
    each = 50 if options.quick else 200
    free = [
        {
            "what": "no limit in sight",
            **run(gateways, "tokens", 1e12, (MOST, ACTUAL), (clients, each)),
        }
        for gateways in (1, 2)
        for clients in (1, 8, 32)
    ]
    limits = (("requests", 500.0, (1.0, 1.0)), ("tokens", 7500.0, (MOST, ACTUAL)))
    spent = [
        {"what": "used up", "limit": limit, **run(gateways, unit, limit, sizes, (16, 1000))}
        for gateways in (1, 2)
        for unit, limit, sizes in limits
    ]
    many = 10_000 if options.quick else 100_000
    rates = {"requests_per_minute": 10**9, "tokens_per_minute": 10**9}
    hooks = [
        {"what": "no limit", "processor_us": hot_path({}, many)},
        {"what": "rate limits", "processor_us": hot_path(rates, many)},
    ]
    headline = {
        "no_limit_us": hooks[0]["processor_us"],
        "rate_limits_us": hooks[1]["processor_us"],
        "wait_p50_ms": free[0]["wait_p50_ms"],
        "wait_p50_ms_32": free[2]["wait_p50_ms"],
        "processor_us_32": free[2]["processor_us"],
        "requests_over": max(r["spent"] - r["limit"] for r in spent if r["unit"] == "requests"),
        "tokens_over": max(r["spent"] - r["limit"] for r in spent if r["unit"] == "tokens"),
    }
    result = {
        "name": "budgets", "machine": common.machine(), "rows": [*hooks, *free, *spent],
        "headline": headline,
    }  # fmt: skip
    if options.json:
        print(json.dumps(result))
        return
    for row in result["rows"]:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(headline)


if __name__ == "__main__":
    main()
