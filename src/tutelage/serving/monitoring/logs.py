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
from collections.abc import Callable, Iterator
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
FIELDS = ("event", "deployment", "release", "rollout", "key", "subject", "status")
_VALUES = re.compile(r"\[parameters: .*", re.S)  # a database's error repeats the rows it was given
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_requests = logging.getLogger("tutelage.requests")
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
_level_before = [logging.NOTSET]  # of the package's logger, until the last gateway has stopped


class JsonLine(logging.Formatter):
    """One record as one JSON object. A traceback is its frames and the error's type, no values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        made = getattr(record, "line", None)
        if made is not None:
            return _encode({"at": _iso(record.created), **made})
        line: dict[str, Any] = {
            "at": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{_OWN}."),
            "message": _message(record),
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
        return _encode(line)


def _message(record: logging.LogRecord) -> str:
    """Return a record's message without the rows that a database's error repeats."""
    return _VALUES.sub("[parameters left out]", record.getMessage())[:_LONGEST]


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


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


class _Listener(QueueListener):
    """Waits for room before it ends, instead of failing where the queue is full."""

    def __init__(self, room: queue.Queue[Any], handler: logging.Handler) -> None:
        super().__init__(room, handler)
        self._room = room

    def enqueue_sentinel(self) -> None:
        self._room.put(None)


class _Shown(logging.Handler):
    """Tells a person what is amiss: when, where, one sentence. Tracebacks stay in the file."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        when = f"{datetime.fromtimestamp(record.created):%H:%M:%S}"
        deployment = getattr(record, "deployment", None)
        sentence = _message(record).partition("\n")[0]  # a database's error goes on with its SQL
        self._show(f"{when} {f'{deployment}: ' if deployment else ''}{sentence}")


def _nobody(text: str) -> None:
    return None


@contextmanager
def gateway_log(
    settings: Telemetry, folder: Path, show: Callable[[str], None] = _nobody
) -> Iterator[None]:
    """Write the package's log lines as the settings say while this lasts.

    With `file`, `show` is called with each warning and error, in the thread that it comes from.
    """
    if settings.log == "off":
        yield
        return
    logger, level = logging.getLogger(_OWN), getattr(logging, settings.level.upper())
    lines = _lines(settings.log, folder)
    lines.setFormatter(JsonLine())
    room: queue.Queue[Any] = queue.Queue(_ROOM)
    queued, listener = _Queued(room), _Listener(room, lines)
    handlers: list[logging.Handler] = [queued]
    if settings.log == "file":
        handlers.append(_Shown(show))
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
        if not _requests.isEnabledFor(logging.INFO):
            return
        message = "answered" if outcome.status == 200 else "not answered"
        record = logging.LogRecord(_requests.name, logging.INFO, "", 0, message, None, None)
        record.line = _line(ask, outcome, message)  # made here: a record's own fields cost more
        _requests.handle(record)


def _line(ask: Ask, outcome: Outcome, message: str) -> dict[str, Any]:
    line = {
        "level": "info",
        "logger": "requests",
        "message": message,
        "event": "request",
        "request": ask.record,
        "deployment": ask.deployment,
        "release": ask.release[:12],
        "arm": ask.arm,
        "status": outcome.status,
        "latency_ms": round(outcome.latency_ms, 2),
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "stream": ask.stream,
    }
    more: dict[str, Any] = {
        "rollout": ask.rollout,
        "step": ask.step,
        "key": ask.key,
        "first_token_ms": _rounded(outcome.first_token_ms),
        "finish_reason": outcome.finish_reason or None,
        "failed_checks": [k for k, check in outcome.checks.items() if not check.get("ok", True)],
        "client_request": _plain(ask.headers.get("x-request-id")),
        "trace": trace_of(ask),
    }
    line.update((name, value) for name, value in more.items() if value is not None and value != [])
    return line


def trace_of(ask: Ask) -> str | None:
    """Return the trace id, 32 hex digits, of a request that came with a W3C traceparent."""
    header = ask.headers.get("traceparent")
    found = _TRACEPARENT.match(header) if header else None
    return found[1] if found else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _plain(text: str | None) -> str | None:
    """Return a client's own request id if it looks like one."""
    return text if text and re.fullmatch(r"[\w.:/-]{1,64}", text) else None
