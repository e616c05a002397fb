"""How the prompt's versions and their tests are named and coloured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.web.parts import layout
from tutelage.web.parts.layout import Kind

STATES: dict[str, tuple[str, Kind]] = {
    "draft": ("Draft", "info"),
    "review": ("Ready for review", "info"),
    "approved": ("Approved", "good"),
    "rejected": ("Rejected", "bad"),
    "published": ("Published", "good"),
    "retired": ("Was published", "idle"),
}
OUTCOMES: dict[str, tuple[str, Kind]] = {
    "improved": ("Better", "good"),
    "regressed": ("Worse", "bad"),
    "no_difference": ("No difference seen", "warn"),
}
ACTIONS = {
    "drafted": "kept it as a draft",
    "tested": "tested it",
    "approved": "approved it",
    "rejected": "rejected it",
    "published": "published it",
    "restored": "published it again",
}


def state_chip(state: str) -> None:
    """Draw where a version stands."""
    layout.chip(*STATES.get(state, (state, "idle")))


def outcome_chip(test: Mapping[str, Any] | None) -> None:
    """Draw how a version's last test came out."""
    if test is None:
        layout.chip("Not tested", "idle")
        return
    outcome = str(test.get("outcome") or "")
    layout.chip(*OUTCOMES.get(outcome, (outcome or "unknown", "idle")))
