"""How fast production's traces reach the store, durably, and whether a kill costs any of them.

`records`: rows as the gateway keeps them go through its request log (written ahead, then committed
with synchronous=FULL) as fast as they are made, until the last is in the store. `scores`, `traffic`
and `twins` read what is there then: half of the records are rated and one in a hundred corrected;
`peak_mb` is the most memory the script had until then, its own rows included. `deliveries`: a
file of feedback is imported. `storm`: calls of POST /v1/feedback, repeated, out of order, wrong
and of unknown records, go to a gateway that is killed with -9 in the middle and started again;
calls without an answer are sent again. Then the store is compared with what was said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import insert, select

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from tests.fakes.feedback_storm import (
    Call,
    add_records,
    expected_scores,
    kept,
    make_storm,
)
from tests.fakes.gateway import gateway_project
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.openai_backend import FakeBackend

from common import machine, table
from tutelage.core.artifact import utc_now
from tutelage.core.config_feedback import Feedback
from tutelage.core.output import OutputFormat
from tutelage.feedback.outcome import outcomes
from tutelage.feedback.segment_twins import held_out_inputs, move_twins
from tutelage.feedback.signals import DECLARED, read_feedback
from tutelage.feedback.traffic_signals import read_traffic
from tutelage.serving.records.request_log import RequestLog
from tutelage.store.base import open_store
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import open_context
from tutelage.workflows.feedback.feedback import import_file

_LETTERS = random.Random(0)
WORDS = ["".join(_LETTERS.choices("aeioustnrldm", k=_LETTERS.randint(3, 9))) for _ in range(3_000)]


def record(number: int, draw: random.Random) -> dict[str, Any]:
    """Return a row like those of Banking77: a question of a dozen words, a JSON answer."""
    return {
        "id": f"rec_{number:024x}",
        "deployment": "coder", "release": "a" * 64, "rollout": None, "step": None,
        "arm": "stable", "user": f"user-{number % 997}", "key_name": None,
        "split": "test" if number % 7 == 0 else "train",
        "group_key": f"{number % 997:064x}",
        "messages": [{"role": "user", "content": " ".join(draw.choices(WORDS, k=12))}],
        "response": '{"intent": "card_arrival"}', "finish_reason": "stop", "status": 200,
        "error": None, "latency_ms": 12.5, "first_token_ms": 4.2, "prompt_tokens": 40,
        "completion_tokens": 8, "checks": {"schema": {"ok": True, "why": ""}}, "at": utc_now(),
    }  # fmt: skip


def records(folder: Path, count: int) -> dict[str, Any]:
    """Send `count` rows through the request log; return how fast they were in the store."""
    store = open_store(f"sqlite:///{folder / 'records.db'}")
    draw = random.Random(1)
    rows = [record(number, draw) for number in range(count)]
    log = RequestLog(store, ahead=folder / "ahead")
    log.start()
    started = time.perf_counter()
    shed = sum(not log.record(row) for row in rows)
    queued = time.perf_counter() - started
    flushed = log.flush(300)
    seconds = time.perf_counter() - started
    log.close()
    with store.session() as session:
        there = session.query(RecordRow).count()
    store.close()
    assert flushed
    assert there == count - shed
    return {
        "what": "records", "count": count, "lost": shed, "seconds": round(seconds, 2),
        "per_s": round(count / seconds), "queued_per_s": round(count / queued),
    }  # fmt: skip


def reading(folder: Path) -> list[dict[str, Any]]:
    """Read the records: scores of the rated ones, signals of the traffic, twins of test rows."""
    store = open_store(f"sqlite:///{folder / 'records.db'}")
    with store.session() as session:
        names = list(session.scalars(select(RecordRow.id)))
    said = []
    for number, name in enumerate(names):
        if number % 2 == 0:
            said.append({"record_id": name, "rating": number % 4 / 4})
        elif number % 51 == 0:
            said.append({"record_id": name, "edit": "another answer"})
    rows = [row for body in said for row in read_feedback(body, OutputFormat()).rows]
    with store.begin() as session:
        session.execute(insert(SignalRow), rows)
    jobs: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("scores", lambda: len(outcomes(store, DECLARED))),
        ("traffic", lambda: read_traffic(store, Feedback(), now=utc_now()).written),
        ("twins", lambda: len(move_twins(store, held_out_inputs(store)))),
    )
    found = []
    for name, work in jobs:
        started = time.perf_counter()
        count = work()
        seconds = time.perf_counter() - started
        found.append(
            {
                "what": name, "count": len(names), "lost": 0, "seconds": round(seconds, 2),
                "per_s": round(len(names) / seconds), "found": count,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )  # fmt: skip
    store.close()
    return found


def deliveries(folder: Path, count: int) -> dict[str, Any]:
    """Import a file of `count` deliveries with two signals each, twice; return how fast."""
    (folder / "tutelage.yaml").write_text("name: ingest\nmodel: demo\n")
    ctx = open_context(folder)
    path = folder / "said.jsonl"
    with path.open("w") as lines:
        for number in range(count):
            body = {"record_id": f"rec_{number}", "rating": number % 2, "comment": "well enough"}
            lines.write(json.dumps(body) + "\n")
    started = time.perf_counter()
    found = import_file(ctx, path)
    seconds = time.perf_counter() - started
    again = import_file(ctx, path)
    with ctx.store.session() as session:
        there = session.query(SignalRow).count()
    ctx.store.close()
    assert there == found["signals"] == again["repeated"] == 2 * count
    return {
        "what": "deliveries", "count": count, "lost": 0, "seconds": round(seconds, 2),
        "per_s": round(count / seconds),
    }  # fmt: skip


async def send(
    url: str, calls: dict[Call, None], found: Counter[tuple[int, int]], kill: Any
) -> None:
    """Send `calls` until all are answered or the gateway is gone; answered ones leave them."""
    rest = list(calls)
    half = len(calls) // 2 if kill else -1

    async def work(client: aiohttp.ClientSession) -> None:
        while rest:
            call = rest.pop()
            headers = {"idempotency-key": call.key} if call.key else {}
            try:
                async with client.post(url, json=call.body, headers=headers) as reply:
                    await reply.read()
            except aiohttp.ClientError:
                return  # it stays there, to be sent again
            found[call.status, reply.status] += 1
            del calls[call]
            if len(calls) == half:
                kill()

    patience = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=patience) as client:
        await asyncio.gather(*(work(client) for _ in range(48)))


def storm(folder: Path, count: int) -> dict[str, Any]:
    """Send `count` calls over a kill -9; return what was lost and what was counted twice."""
    found: Counter[tuple[int, int]] = Counter()
    with FakeBackend() as backend:
        ctx = gateway_project(folder / "storm", backend.url)
        add_records(ctx.store)
        made = make_storm(count, seed=5)
        first, *middle, last = made.calls
        calls = dict.fromkeys(middle)
        started = time.perf_counter()
        with GatewayProcess(ctx.workspace.root) as gateway:
            url = f"{gateway.url}/v1/feedback"
            asyncio.run(send(url, {first: None}, found, None))
            asyncio.run(send(url, calls, found, gateway.kill))
        unanswered, before = len(calls), kept(ctx.store)
        with GatewayProcess(ctx.workspace.root) as gateway:
            url = f"{gateway.url}/v1/feedback"
            asyncio.run(send(url, calls, found, None))
            asyncio.run(send(url, {last: None}, found, None))
            gateway.stop()
        seconds = time.perf_counter() - started
        after = kept(ctx.store)
        scores, expected = outcomes(ctx.store, DECLARED), expected_scores(made)
        ctx.store.close()
    return {
        "what": "storm", "count": len(made.calls), "seconds": round(seconds, 2),
        "per_s": round(len(made.calls) / seconds), "unanswered_at_kill": unanswered,
        "kept_at_kill": len(before), "signals": len(made.said),
        "lost": len(made.said.keys() - after.keys()),
        "made_up": len(after.keys() - made.said.keys()),
        "wrong_time_or_value": sum(after.get(k) != told for k, told in made.said.items()),
        "wrong_status": sum(n for (want, got), n in found.items() if want != got),
        "wrong_scores": sum(abs(scores.get(k, -1) - v) > 1e-9 for k, v in expected.items()),
        "refused": found[400, 400] + found[422, 422],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="a fifth of everything")
    parser.add_argument("--records", type=int, help="rows through the request log (100,000)")
    options = parser.parse_args()
    scale = 5 if options.quick else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            records(folder, options.records or 100_000 // scale),
            *reading(folder),
            deliveries(folder, 50_000 // scale),
            storm(folder, 10_000 // scale),
        ]
    flaws = ("lost", "made_up", "wrong_time_or_value", "wrong_status", "wrong_scores")
    headline = {
        "records_per_s": rows[0]["per_s"],
        "deliveries_per_s": rows[-2]["per_s"],
        "reading_s": round(sum(row["seconds"] for row in rows[1:-2]), 1),
        "storm_calls": rows[-1]["count"],
        "flaws": sum(row.get(flaw, 0) for row in rows for flaw in flaws),
    }
    result = {"name": "ingest", "machine": machine(), "rows": rows, "headline": headline}
    if options.json:
        print(json.dumps(result))
        return
    print(table(rows))
    print(json.dumps(rows[-1]))
    print(json.dumps(headline))


if __name__ == "__main__":
    main()
