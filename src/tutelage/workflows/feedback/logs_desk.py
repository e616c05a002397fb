"""Logs from Python: what `tutelage logs` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tutelage.feedback.log_formats.facts import Names
from tutelage.workflows.context import Context
from tutelage.workflows.feedback import logs, logs_export
from tutelage.workflows.feedback.logs_export import Chosen, LogsExported


class LogsDesk:
    """`project.logs`: logs of other tools in, records out."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def add(
        self,
        sources: str | Path | Sequence[str | Path],
        *,
        format: str = "auto",
        names: Names | None = None,
        input: str | None = None,
        answer: str | None = None,
    ) -> logs.LogsImported:
        """Keep logged calls as records; `names` says which columns hold user, group and id."""
        given = [sources] if isinstance(sources, (str, Path)) else sources
        reading = logs.log_reading(self._ctx, format, names=names).with_columns(input, answer)
        return logs.import_logs(self._ctx, [str(one) for one in given], reading)

    def export(
        self,
        output: str | Path,
        *,
        format: str | None = None,
        chosen: Chosen | None = None,
        min_score: float = 0.75,
        prompt: bool = False,
        force: bool = False,
    ) -> LogsExported:
        """Write records: jsonl, csv, openai, or tuning (the train side's good answers alone)."""
        return logs_export.export_logs(
            self._ctx, Path(output), format=format, chosen=chosen, min_score=min_score,
            prompt=prompt, force=force,
        )  # fmt: skip

    def tail(self, count: int = 20, *, chosen: Chosen | None = None) -> list[dict[str, Any]]:
        """Return the newest records, oldest first."""
        return logs_export.tail(self._ctx, count, chosen=chosen)

    def follow(self, *, chosen: Chosen | None = None) -> Iterator[dict[str, Any]]:
        """Yield records as they come."""
        return logs_export.follow(self._ctx, chosen=chosen)
