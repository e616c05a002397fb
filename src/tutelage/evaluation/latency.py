"""Ask a few rows again, one at a time: what a single user waits for.

In a batch a row waits for the rows beside it. The measurement is written into the row's `detail`
(usage.ALONE), so it lies in the same journal and is not repeated when an evaluation goes on. The
answer that is scored stays the batch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.evaluation.candidates import Candidate, prompt_for
from tutelage.evaluation.rows import Journal
from tutelage.evaluation.runner import STAGE, Bench
from tutelage.evaluation.task import Task
from tutelage.evaluation.usage import ALONE


def measure_alone(
    task: Task, candidates: Sequence[Candidate], bench: Bench, journal: Journal, count: int
) -> None:
    """Time `count` rows of each candidate that writes freely, one request at a time.

    One request beforehand warms the machine up and is not counted. Rows that were timed before
    are not asked again; a request that fails leaves its row without a time.
    """
    rows = spread(task.rows, count)
    free = [candidate for candidate in candidates if candidate.mode == "free"]
    for candidate in sorted(free, key=lambda c: c.adapter):
        waiting = [
            row
            for row in rows
            if (known := journal.get(candidate.name, row.id)) is not None
            and ALONE[0] not in known.detail
        ]
        if not waiting:
            continue
        bench.engine.set_adapter(bench.adapter if candidate.adapter else None)
        bench.engine.generate([prompt_for(candidate, waiting[0], task)])
        for done, row in enumerate(waiting, start=1):
            _time(task, candidate, bench, journal, row)
            title = f"{candidate.title}, one at a time"
            bench.emit(Event(STAGE, "progress", title, done, len(waiting)))


def spread(rows: Sequence[Example], count: int) -> list[Example]:
    """Return up to `count` rows that are asked something, evenly over short and long ones."""
    asked = sorted(
        (row for row in rows if not row.is_text), key=lambda r: (len(r.input_text), r.id)
    )
    if count >= len(asked):
        return asked
    return [asked[(2 * place + 1) * len(asked) // (2 * count)] for place in range(count)]


def _time(task: Task, candidate: Candidate, bench: Bench, journal: Journal, row: Example) -> None:
    known = journal.get(candidate.name, row.id)
    found = bench.engine.generate([prompt_for(candidate, row, task)])[0]
    if known is None or found.finish_reason == "error":
        return
    first = found.first_token_ms
    measured = (
        round(found.latency_ms, 3), None if first is None else round(first, 3),
        found.usage.completion_tokens, found.finish_reason,
    )  # fmt: skip
    detail = {**known.detail, **dict(zip(ALONE, measured, strict=True))}
    journal.append([replace(known, detail=detail)])
