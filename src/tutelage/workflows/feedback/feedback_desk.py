"""Feedback from Python: what `tutelage feedback …` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.workflows.context import Context
from tutelage.workflows.feedback import feedback, segment


class FeedbackDesk:
    """`project.feedback`: what users said and did, and which records may be trained on."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def add(
        self, record: str, *, author: str | None = None, at: str | None = None, **said: Any
    ) -> dict[str, Any]:
        """Keep feedback on a record, durably: `rating`, `edit`, `comment`, and `signals`."""
        body = {"record_id": record, "author": author, "at": at, **said}
        return feedback.add(self._ctx, body)

    def import_file(self, path: str | Path, author: str | None = None) -> dict[str, Any]:
        """Keep the deliveries in a .jsonl or .csv file; the same file twice changes nothing."""
        return feedback.import_file(self._ctx, Path(path), author)

    def recent(
        self, *, kind: str | None = None, since: str | None = None, limit: int = 20
    ) -> list[dict[str, Any]]:
        """Return the signals that came last, the newest first."""
        return feedback.recent(self._ctx, kind=kind, since=since, limit=limit)

    def show(self, record: str) -> dict[str, Any]:
        """Return a record with its texts, its signals and its score."""
        return feedback.show(self._ctx, record)

    def summary(self, *, since: str | None = None, until: str | None = None) -> dict[str, Any]:
        """Return how often each signal came, and the mean score by release."""
        return feedback.summary(self._ctx, since=since, until=until)

    def signals(self) -> list[dict[str, Any]]:
        """Return what each signal means in this project."""
        return feedback.signals(self._ctx)

    def traffic(self, *, everything: bool = False) -> dict[str, int]:
        """Read signals from the order of requests now."""
        return feedback.traffic(self._ctx, everything=everything)

    def hold_apart(self, *, everything: bool = False) -> dict[str, Any]:
        """Move the twins of held-out rows out of training."""
        return segment.hold_apart(self._ctx, everything=everything)

    def moved(self, limit: int = 20) -> list[dict[str, Any]]:
        """Return the records that were moved out of training, with the reasons."""
        return segment.moved_records(self._ctx, limit)
