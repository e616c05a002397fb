"""How the states of rollouts, alerts and turns look: the kind of their chip, and plain words."""

from __future__ import annotations

from datetime import datetime

from nicegui import ui

from tutelage.web.parts.layout import Kind
from tutelage.web.parts.text import text
from tutelage.web.parts.words import ago, capital

ROLLOUT: dict[str, Kind] = {
    "pending": "info",
    "running": "info",
    "paused": "warn",
    "frozen": "warn",
    "promoted": "good",
    "completed": "good",
    "rolled_back": "bad",
    "aborted": "idle",
}
VERDICT: dict[str, Kind] = {
    "pass": "good",
    "fail": "bad",
    "inconclusive": "warn",
    "no_data": "idle",
    "collector_error": "bad",
}
LEVEL: dict[str, Kind] = {"error": "bad", "warning": "warn", "info": "info"}
GATEWAY: dict[str, Kind] = {
    "ready": "good",
    "starting": "warn",
    "stopping": "warn",
    "down": "bad",
    "silent": "bad",
    "off": "idle",
}
TURN: dict[str, Kind] = {"done": "good", "kept": "idle", "cancelled": "idle"}
TESTS = {
    "latency_p50": "latency over p50",
    "latency_p90": "latency over p90",
    "latency_p99": "latency over p99",
    "errors": "failed requests",
    "flags": "flagged answers",
    "error_rate": "own error rate",
}
STRATEGIES = {
    "canary": "Canary: a small share first, then more",
    "blue_green": "Blue-green: rehearse, then all at once",
    "rolling": "Rolling: server by server",
    "ab": "A/B: a fixed share of users, to compare",
    "shadow": "Shadow: a copy of requests, answers unseen",
}


def words(state: str) -> str:
    """Return a state as people read it."""
    return state.replace("_", " ")


def at(moment: str | datetime | None) -> datetime | None:
    """Return a point in time from ISO 8601, itself, or None."""
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment


def since(moment: str | datetime | None) -> str:
    """Return how long ago a point in time was."""
    return ago(at(moment))


def prose(sentence: str, classes: str = "") -> ui.element:
    """Add a sentence of ours; what stands between backticks is a command."""
    with ui.element("p").classes(classes) as paragraph:
        for place, part in enumerate(capital(sentence).split("`")):
            if part:
                text("code" if place % 2 else "span", part)
    return paragraph
