"""Keeping a tuned model from being deleted as idle: when a call is due, and what came of the last.

Azure deletes a deployment that nobody called for 15 days. Who asks on time is another's matter:
a timer of the machine, or the server's schedule.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tutelage.core.errors import ConfigError, ModelError
from tutelage.core.workspace import atomic_write
from tutelage.training.hosted.api import JobsApi
from tutelage.training.hosted.http import NotThere

FILE = "keepalive.json"
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True)
class Pings:
    """What is known of a model's calls. Times are ISO 8601 with their zone."""

    model: str
    last_success: str | None = None
    last_problem: str | None = None
    every: str | None = None  # such as 7d

    def due_at(self, now: datetime) -> datetime | None:
        """Return when the next call is due; None if no interval is set."""
        if self.every is None:
            return None
        return next_due(_moment(self.last_success), interval(self.every), now)

    def is_due(self, now: datetime) -> bool:
        """Return whether to call now: always without an interval."""
        return self.every is None or due(_moment(self.last_success), interval(self.every), now)

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """Return the JSON form, with the time of the next call."""
        at = self.due_at(now)
        return {**asdict(self), "due_at": at.isoformat(timespec="seconds") if at else None}


def interval(text: str) -> timedelta:
    """Return the time that 12h, 7d or 2w stand for; raise ConfigError for anything else."""
    number, unit = text[:-1], text[-1:]
    if not (number.isdecimal() and int(number) and unit in _UNITS):
        raise ConfigError(f"{text!r} is no interval", fix="Write one such as 12h, 7d or 2w")
    return int(number) * _UNITS[unit]


def next_due(last: datetime | None, every: timedelta, now: datetime) -> datetime:
    """Return when a call is due: `every` after the last one, now if there was none."""
    return now if last is None else last + every


def due(last: datetime | None, every: timedelta, now: datetime) -> bool:
    """Return whether a call is due at `now`."""
    return now >= next_due(last, every, now)


def load_pings(folder: Path, model: str) -> Pings:
    """Return what is known of `model`'s calls."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pings = Pings(**{name: found.get(name) for name in Pings.__dataclass_fields__})
    except (OSError, ValueError, TypeError, AttributeError):
        return Pings(model)
    return pings if pings.model == model else Pings(model, every=pings.every)


def ping(api: JobsApi, folder: Path, pings: Pings, now: datetime) -> Pings:
    """Call the model once and keep what came of it.

    Raises ModelError if the model is gone, and what the service says otherwise.
    """
    try:
        api.ping(pings.model)
    except NotThere as error:
        _save(folder, Pings(pings.model, pings.last_success, str(error), pings.every))
        raise ModelError(
            f"{pings.model} is gone: the service does not know it any more",
            where=pings.model,
            fix="Run `tutelage hosted fetch` to have it deployed again, or "
            "`tutelage hosted start --again --yes` to tune a new one",
        ) from error
    except Exception as error:
        _save(folder, Pings(pings.model, pings.last_success, str(error), pings.every))
        raise
    done = Pings(pings.model, now.isoformat(), None, pings.every)
    _save(folder, done)
    return done


def replace_interval(pings: Pings, every: str | None) -> Pings:
    """Return what is known with another interval."""
    return replace(pings, every=every)


def remember(folder: Path, pings: Pings) -> None:
    """Keep the interval and what is known."""
    _save(folder, pings)


def _save(folder: Path, pings: Pings) -> None:
    atomic_write(folder / FILE, json.dumps(asdict(pings), indent=1).encode())


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
