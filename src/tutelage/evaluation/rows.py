"""What each candidate wrote for each row, kept on disk while it is made.

The journal is one JSON line an answer, synced after every batch: a killed evaluation continues
after the last whole batch. A torn last line is dropped, and failed requests are asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.core.workspace import disk_errors
from tutelage.inference.base import Completion


@dataclass(frozen=True)
class RowResult:
    """One answer: `finish` is stop, length, error, or chosen (not written: picked from a list).

    `detail` may hold `sure` and `sure_most` (bounds of the choice's share of the probability),
    `samples` (the texts drawn for the same row, with their place), `reference_nll` (nats) and
    `reference_tokens`.
    """

    candidate: str
    item: str  # example id
    text: str
    finish: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    latency_ms: float = 0.0
    batch: int = 0  # rows of one batch were answered together
    first_token_ms: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    sample: int = 0  # 0: the row's answer; 1, 2, ...: answers drawn for pass@k

    @property
    def failed(self) -> bool:
        """True if there is no answer to score."""
        return self.finish == "error"


def from_completion(
    candidate: str, item: str, completion: Completion, batch: int, sample: int = 0
) -> RowResult:
    """Return the row of a generated answer."""
    usage = completion.usage
    return RowResult(
        candidate,
        item,
        completion.text,
        completion.finish_reason,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        round(completion.latency_ms, 3),
        batch,
        completion.first_token_ms,
        {k: v for k, v in completion.meta.items() if isinstance(v, (str, int, float, bool))},
        sample,
    )


class Journal:
    """rows.jsonl of one evaluation in progress."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[tuple[str, str, int], RowResult] = {}
        self._drawn: dict[tuple[str, str], dict[int, RowResult]] = {}
        self._load()

    def get(self, candidate: str, item: str, sample: int = 0) -> RowResult | None:
        """Return the finished answer of a candidate for an example, or None."""
        row = self._rows.get((candidate, item, sample))
        return None if row is None or row.failed else row

    def any(self, candidate: str, item: str) -> RowResult | None:
        """Return the newest answer, failed requests included, or None.

        Answers drawn besides it stand in its `detail` as `samples`, a text each, None if failed.
        """
        row = self._rows.get((candidate, item, 0))
        drawn = self._drawn.get((candidate, item))
        if row is None or not drawn:
            return row
        texts = [None if drawn[n].failed else drawn[n].text for n in sorted(drawn)]
        return replace(row, detail={**row.detail, "samples": texts})

    def append(self, rows: Iterable[RowResult]) -> None:
        """Keep finished rows; they are on the disk when this returns."""
        rows = list(rows)
        lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
        for row in rows:
            self._keep(row)

    def _keep(self, row: RowResult) -> None:
        self._rows[row.candidate, row.item, row.sample] = row
        if row.sample:
            self._drawn.setdefault((row.candidate, row.item), {})[row.sample] = row

    def _load(self) -> None:
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self.path.open("r+b") as stream:
                stream.truncate(len(whole))
        for line in whole.splitlines():
            self._keep(RowResult(**json.loads(line)))
