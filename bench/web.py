"""The page under work: 10 experts label at once over a store with 100,000 items.

Each expert is a client that speaks the page's own protocol: it opens the label page, keeps its
websocket, presses keys, and says as a browser does when an item is on the screen; only the drawing
is left out. Between two keys it waits as a quick person does (1.5
seconds in the mean). An action lasts from the key until the page has sent the next item. Every
tenth answer is taken back and given again, and every twelfth item is skipped; meanwhile each
opens other pages. At the end the store is read: nobody may have had another's item, and every
answer that was given is there once.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import html
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import socketio
from sqlalchemy import func, insert, select

from tutelage.core.artifact import utc_now
from tutelage.core.example import Example, Message
from tutelage.data.annotation.items import from_example
from tutelage.store.annotations import AnnotationRow, AssignmentRow, BatchRow, ItemRow
from tutelage.workflows.context import open_context
from tutelage.workflows.data.experts_people import add_annotators

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

PEOPLE = [f"expert-{number:02d}" for number in range(10)]
LABELS = ("billing", "delivery", "returns", "account")
ITEMS, CHUNK = 100_000, 5_000
THINK_S = 1.5  # mean time between two keys of one expert
ARRIVE_S = 10.0  # in which they come to the page
GOAL_MS = 300.0
PATIENCE_S = 30.0
OTHER = ("/", "/review", "/agreement", "/guidelines", "/traffic")
CONFIG = """\
name: help-desk
task: classification
model: demo
prompt: Name the topic of the request.
output: {field: topic, labels: [billing, delivery, returns, account]}
data:
  sources: [data/*.jsonl]
  columns: {input: text, output: label}
"""


def make_project(root: Path, items: int) -> None:
    """Write a project whose experts share one batch of `items` open items."""
    (root / "data").mkdir(parents=True)
    (root / "data" / "rows.jsonl").write_text('{"text": "where is it", "label": "delivery"}\n')
    (root / "tutelage.yaml").write_text(CONFIG)
    ctx = open_context(root)
    add_annotators(ctx, PEOPLE)
    at, batch = utc_now(), "b" * 12
    with ctx.store.begin() as session:
        session.add(BatchRow(id=batch, people=PEOPLE, overlap=1, source="file", seed=7, at=at))
        session.flush()
        for start in range(0, items, CHUNK):
            made = [_item(number) for number in range(start, min(items, start + CHUNK))]
            session.execute(
                insert(ItemRow),
                [
                    {"id": one.id, "example": one.example.model_dump(mode="json"),
                     "source": "file", "example_id": None, "split": None, "label": None,
                     "answer": None, "added_at": at}
                    for one in made
                ],
            )  # fmt: skip
            session.execute(
                insert(AssignmentRow),
                [
                    {"batch": batch, "item": one.id, "annotator": None, "shared": True,
                     "place": start + place, "state": "open", "leased_at": None,
                     "lease_until": None, "done_at": None}
                    for place, one in enumerate(made)
                ],
            )  # fmt: skip
    ctx.store.close()


def _item(number: int) -> Any:
    text = f"request {number:06d}: the parcel with order {number * 7919 % 99_991} is late, and now?"
    return from_example(Example(messages=(Message(role="user", content=text),)), "file")


class Expert:
    """One person with the label page open. `took` holds (action, milliseconds)."""

    def __init__(self, url: str, name: str, seed: int) -> None:
        self._url, self.name = url, name
        self._dice = random.Random(seed)
        self._wire = socketio.AsyncClient(reconnection=False)
        self._shown = asyncio.Event()
        self._client = ""
        self._key: tuple[int, str] = (0, "")
        self.took: list[tuple[str, float]] = []
        self.items: set[str] = set()
        self.given = 0
        self.skipped = 0

    async def work(self, actions: int, web: aiohttp.ClientSession) -> None:
        """Label until `actions` keys were pressed, looking at other pages now and then."""
        await asyncio.sleep(self._dice.uniform(0, ARRIVE_S))
        await self._open(web)
        for number in range(1, actions + 1):
            await asyncio.sleep(self._dice.expovariate(1 / THINK_S))
            if number % 10 == 0:
                await self._press("undo", "z")
                self.given -= 1
                await asyncio.sleep(self._dice.expovariate(1 / THINK_S))
            if number % 12 == 11:
                await self._press("skip", "s")
                self.skipped += 1
            else:
                await self._press("label", str(self._dice.randint(1, len(LABELS))))
                self.given += 1
            if number % 15 == 7:
                await self._look(web, self._dice.choice(OTHER))
        await self._wire.disconnect()

    async def _open(self, web: aiohttp.ClientSession) -> None:
        started = time.perf_counter()
        async with web.get(f"{self._url}/label", params={"as": self.name}) as answer:
            page = await answer.text()
        query = ast.literal_eval(_between(page, "query: ", ",\n"))
        self._client = query["client_id"]
        elements = json.loads(html.unescape(_between(page, "String.raw`", "`)")))
        self._key = next(_listeners(elements, "ttKey"))
        self._note(page)
        self._wire.on("run_javascript", self._answer)
        self._wire.on("update", self._drawn)
        query |= {"document_id": self.name, "tab_id": self.name, "old_tab_id": ""}
        words = "&".join(f"{key}={str(value).lower()}" for key, value in query.items())
        await self._wire.connect(
            f"{self._url}?{words}", socketio_path="/_nicegui_ws/socket.io",
            transports=["websocket"],
        )  # fmt: skip
        if not query.get("implicit_handshake"):
            assert await self._wire.call("handshake", query)
        await self._drawn(elements)
        self.took.append(("open label", (time.perf_counter() - started) * 1000))

    async def _look(self, web: aiohttp.ClientSession, path: str) -> None:
        started = time.perf_counter()
        async with web.get(self._url + path) as answer:
            await answer.read()
            assert answer.status == 200, f"{path}: {answer.status}"
        self.took.append(("open another page", (time.perf_counter() - started) * 1000))

    async def _press(self, what: str, key: str) -> None:
        self._shown.clear()
        started = time.perf_counter()
        await self._emit(*self._key, json.dumps(key))
        await asyncio.wait_for(self._shown.wait(), PATIENCE_S)
        self.took.append((what, (time.perf_counter() - started) * 1000))

    async def _emit(self, element: int, listener: str, *arguments: str) -> None:
        await self._wire.emit(
            "event",
            {"id": element, "client_id": self._client, "listener_id": listener,
             "args": list(arguments)},
        )  # fmt: skip

    async def _drawn(self, elements: dict[str, Any]) -> None:
        """Say, as a browser does once it has drawn an item, that it is on the screen."""
        self._note(json.dumps(elements))
        for element, listener in _listeners(elements, "vnodeMounted"):
            await self._emit(element, listener)
            self._shown.set()

    async def _answer(self, message: dict[str, Any]) -> None:
        """Answer what the page asks of a browser."""
        if message.get("request_id"):
            await self._wire.emit(
                "javascript_response",
                {"request_id": message["request_id"], "client_id": self._client, "result": True},
            )

    def _note(self, text: str) -> None:
        self.items |= set(re.findall(r"request (\d{6}):", text))


def _between(page: str, start: str, end: str) -> str:
    at = page.index(start) + len(start)
    return page[at : page.index(end, at)]


def _listeners(elements: dict[str, Any], kind: str) -> Iterator[tuple[int, str]]:
    """Yield the element and the listener of every event of a kind, whatever its case."""
    for number, element in elements.items():
        for event in element.get("events", []) if isinstance(element, dict) else ():
            if event["type"].replace("-", "").replace("_", "").lower() == kind.lower():
                yield int(number), str(event["listener_id"])


async def run(url: str, actions: int) -> list[Expert]:
    """Let all experts work at once; return them with what they saw."""
    experts = [Expert(url, name, seed) for seed, name in enumerate(PEOPLE)]
    async with aiohttp.ClientSession() as web:
        await asyncio.gather(*(one.work(actions, web) for one in experts))
    return experts


def checked(root: Path, experts: list[Expert]) -> dict[str, int]:
    """Return what must be zero: items that two had, answers lost, answers written twice."""
    had = Counter(item for one in experts for item in one.items)
    ctx = open_context(root)
    with ctx.store.session() as session:
        newest = select(func.max(AnnotationRow.number)).group_by(
            AnnotationRow.item, AnnotationRow.annotator
        )
        rows = session.execute(
            select(AnnotationRow.item, AnnotationRow.label).where(AnnotationRow.number.in_(newest))
        ).all()
    ctx.store.close()
    answered = [item for item, label in rows if label is not None]
    given = sum(one.given for one in experts)
    return {
        "double_assignments": sum(count > 1 for count in had.values()),
        "answers_lost": max(0, given - len(answered)),
        "answered_twice": len(answered) - len(set(answered)),
    }


def rows_of(experts: list[Expert]) -> list[dict[str, Any]]:
    """Return a row for each kind of action, and one for all."""
    by_kind: dict[str, list[float]] = {}
    for kind, spent in (each for one in experts for each in one.took):
        by_kind.setdefault(kind, []).append(spent)
    by_kind["all"] = [spent for values in by_kind.values() for spent in values]
    return [
        {"action": kind, "count": len(values), "p50_ms": _quantile(values, 0.5),
         "p95_ms": _quantile(values, 0.95), "worst_ms": round(max(values), 1)}
        for kind, values in by_kind.items()
    ]  # fmt: skip


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def measure(items: int, actions: int) -> dict[str, Any]:
    """Make the project, start the page, let the experts work, check the store."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        make_project(root, items)
        command = [sys.executable, "-m", "tutelage", "web", "--json", "--port", "0",
                   "--project", str(root)]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
            try:
                assert page.stdout is not None
                url = json.loads(page.stdout.readline())["url"]
                experts = asyncio.run(run(url, actions))
            finally:
                page.terminate()
        wrong = checked(root, experts)
    rows = rows_of(experts)
    headline = {"p50_ms": rows[-1]["p50_ms"], "p95_ms": rows[-1]["p95_ms"], **wrong}
    return {"name": "web", "machine": common.machine(), "experts": len(PEOPLE), "items": items,
            "goal_p95_ms": GOAL_MS, "rows": rows, "headline": headline}  # fmt: skip


def main() -> int:
    """Print the table, or one JSON object; 1 if two had an item or an answer is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--actions", type=int, default=120, help="keys of each expert")
    parser.add_argument("--quick", action="store_true", help="30 keys of each expert")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = measure(args.items, 30 if args.quick else args.actions)
    if args.json:
        print(json.dumps(result))
    else:
        print(common.table(result["rows"]))
        print(result["headline"])
    wrong = ("double_assignments", "answers_lost", "answered_twice")
    return int(any(result["headline"][name] for name in wrong))


if __name__ == "__main__":
    raise SystemExit(main())
