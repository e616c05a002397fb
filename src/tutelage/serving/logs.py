"""JSON lines of the gateway: one line an event, one object a line, never a text of a request.

Lines are written by a thread of their own from a bounded queue, so a slow disk delays nobody;
what does not fit is counted. The file may be moved away at any time (logrotate): it is opened
again. Rotation is left to the system.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path
from typing import Any

from tutelage.core.config_alerts import Telemetry
from tutelage.serving.hooks import Ask, Hook, Outcome

request_id: ContextVar[str | None] = ContextVar("tutelage_request", default=None)

FILE = "gateway.jsonl"
_ROOM = 10_000  # lines
_LONGEST = 4000  # characters of a message
_OWN = "tutelage"
# What a line may carry besides its message; anything else that is attached to a record is dropped.
FIELDS = (
    "event", "deployment", "release", "arm", "rollout", "step", "key", "subject", "status",
    "latency_ms", "first_token_ms", "prompt_tokens", "completion_tokens", "finish_reason",
    "stream", "failed_checks", "client_request", "trace",
)  # fmt: skip
_VALUES = re.compile(r"\[parameters: .*", re.S)  # a database's error repeats the rows it was given
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_requests = logging.getLogger("tutelage.requests")
_level_before = [logging.NOTSET]  # of the package's logger, until the last gateway has stopped


class JsonLine(logging.Formatter):
    """One record as one JSON object. A traceback is its frames and the error's type, no values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{_OWN}."),
            "message": _VALUES.sub("[parameters left out]", record.getMessage())[:_LONGEST],
        }
        asked = getattr(record, "request", None)
        if asked:
            line["request"] = asked
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["frames"] = [
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(line, ensure_ascii=False, default=str)


class _Queued(QueueHandler):
    """Hands records on as they are; `lost` counts those for which there was no room."""

    lost = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.request = getattr(record, "request", None) or request_id.get()
        record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1


@contextmanager
def gateway_log(settings: Telemetry, folder: Path) -> Iterator[None]:
    """Write the package's log lines as the settings say while this lasts.

    With `file`, warnings are shown on stderr too.
    """
    if settings.log == "off":
        yield
        return
    logger, level = logging.getLogger(_OWN), getattr(logging, settings.level.upper())
    lines = _lines(settings.log, folder)
    lines.setFormatter(JsonLine())
    queued = _Queued(queue.Queue(_ROOM))
    listener = QueueListener(queued.queue, lines)
    handlers: list[logging.Handler] = [queued]
    if settings.log == "file":
        shown = logging.StreamHandler(sys.stderr)
        shown.setLevel(logging.WARNING)
        handlers.append(shown)
    if not any(isinstance(handler, _Queued) for handler in logger.handlers):
        _level_before[0] = logger.level
    listener.start()
    try:
        logger.setLevel(level)
        for handler in handlers:
            logger.addHandler(handler)
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        if not any(isinstance(h, _Queued) for h in logger.handlers):
            logger.setLevel(_level_before[0])
        listener.stop()
        lines.close()


def _lines(kind: str, folder: Path) -> logging.Handler:
    if kind == "stderr":
        return logging.StreamHandler(sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    return WatchedFileHandler(folder / FILE, encoding="utf-8", delay=True)


class RequestLines(Hook):
    """One line a request: ids, times and counts."""

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Log the request that ended."""
        failed = [name for name, check in outcome.checks.items() if not check.get("ok", True)]
        _requests.info(
            "answered" if outcome.status == 200 else "not answered",
            extra={
                "event": "request",
                "request": ask.record,
                "deployment": ask.deployment,
                "release": ask.release[:12],
                "arm": ask.arm,
                "rollout": ask.rollout,
                "step": ask.step,
                "key": ask.key,
                "status": outcome.status,
                "latency_ms": round(outcome.latency_ms, 2),
                "first_token_ms": _rounded(outcome.first_token_ms),
                "prompt_tokens": outcome.prompt_tokens,
                "completion_tokens": outcome.completion_tokens,
                "finish_reason": outcome.finish_reason or None,
                "stream": ask.stream,
                "failed_checks": failed or None,
                "client_request": _plain(ask.headers.get("x-request-id")),
                "trace": trace_of(ask),
            },
        )


def trace_of(ask: Ask) -> str | None:
    """Return the trace id, 32 hex digits, of a request that came with a W3C traceparent."""
    found = _TRACEPARENT.match(ask.headers.get("traceparent", ""))
    return found[1] if found else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _plain(text: str | None) -> str | None:
    """Return a client's own request id if it looks like one."""
    return text if text and re.fullmatch(r"[\w.:/-]{1,64}", text) else None
