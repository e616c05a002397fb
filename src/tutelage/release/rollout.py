"""How traffic moves to a candidate: a pure state machine, no clock, no IO.

    pending ── ready ──> running(step 0) ──> running(step i) ──> promoted
       │                    │      ▲
       │                    ▼      │
       │                  paused ──┘        (frozen: the weight stays, no step is taken)
       └──────────────> rolled_back | aborted        (the weight is 0)

Only `fail` rolls back by itself. No data freezes, then returns to stable. Inconclusive waits.
A collector that can't be trusted freezes until it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tutelage.release.rollback import StepVerdict

StateName = Literal["pending", "running", "paused", "promoted", "rolled_back", "aborted"]
ACTIVE: tuple[StateName, ...] = ("pending", "running", "paused")
TERMINAL: tuple[StateName, ...] = ("promoted", "rolled_back", "aborted")


@dataclass(frozen=True)
class RolloutPlan:
    """What was asked for: `steps` in percent of traffic, rising, ending with 100."""

    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 100.0)
    min_requests: int = 50  # canary requests before a step is left
    min_total: int = 300  # canary requests before all traffic moves
    freeze_after_s: float = 3600.0  # without a canary request
    return_after_s: float = 86400.0  # without a canary request: back to stable

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as the store keeps it."""
        return {
            "steps": list(self.steps),
            "min_requests": self.min_requests,
            "min_total": self.min_total,
            "freeze_after_s": self.freeze_after_s,
            "return_after_s": self.return_after_s,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RolloutPlan:
        """Return the plan that `as_dict` wrote; unknown keys are left alone."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        known["steps"] = tuple(float(step) for step in known.get("steps", cls.steps))
        return cls(**known)


@dataclass(frozen=True)
class RolloutState:
    """Where a rollout stands: `step` is an index into the plan's steps."""

    plan: RolloutPlan
    state: StateName = "pending"
    step: int = 0

    @property
    def weight(self) -> float:
        """Percent of traffic that the candidate gets."""
        if self.state in ("running", "paused"):
            return self.plan.steps[self.step]
        return 100.0 if self.state == "promoted" else 0.0

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self.state in TERMINAL


@dataclass(frozen=True)
class Counts:
    """Canary requests: in this step, in all, and seconds since the last one (or the step began)."""

    step: int
    total: int
    quiet_s: float = 0.0


@dataclass(frozen=True)
class Transition:
    """One move: the state and step after it, the weight it means (percent), and why."""

    to: StateName
    step: int
    weight: float
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def begin(state: RolloutState) -> Transition | None:
    """Return pending → running: the candidate is loaded, its hashes and golden prompts hold."""
    if state.state != "pending":
        return None
    return _to(state, "running", 0, "the candidate is ready")


def finish(state: RolloutState, to: StateName, reason: str) -> Transition | None:
    """Return the move to a terminal state that an operator (or a hard fault) asked for."""
    if state.terminal or to not in TERMINAL:
        return None
    return _to(state, to, state.step, reason)


def advance(state: RolloutState, verdict: StepVerdict, counts: Counts) -> Transition | None:
    """Return the move that the evidence calls for, or None to stay."""
    if state.terminal:
        return None
    if verdict.verdict == "fail":
        return _to(state, "rolled_back", state.step, "; ".join(verdict.reasons), verdict)
    if state.state == "pending":
        return None
    if verdict.verdict == "collector_error":
        return _freeze(state, "; ".join(verdict.reasons) or "the log can't be trusted", verdict)
    if verdict.verdict == "no_data" or counts.quiet_s >= state.plan.freeze_after_s:
        return _without_data(state, verdict, counts)
    if state.state == "paused":
        return _to(state, "running", state.step, "requests are coming again", verdict)
    if verdict.verdict != "pass":
        return None
    return _next_step(state, verdict, counts)


def _next_step(state: RolloutState, verdict: StepVerdict, counts: Counts) -> Transition | None:
    plan = state.plan
    if counts.step < plan.min_requests:
        return None
    last = state.step == len(plan.steps) - 1
    if (last or plan.steps[state.step + 1] >= 100) and counts.total < plan.min_total:
        return None
    held = f"{counts.step} canary requests at {plan.steps[state.step]:g} % held every limit"
    if last:
        return _to(state, "promoted", state.step, held, verdict)
    return _to(state, "running", state.step + 1, held, verdict)


def _without_data(state: RolloutState, verdict: StepVerdict, counts: Counts) -> Transition | None:
    quiet = f"no canary request for {counts.quiet_s / 60:.0f} min"
    if counts.quiet_s >= state.plan.return_after_s:
        return _to(state, "aborted", state.step, f"{quiet}: back to stable", verdict)
    if counts.quiet_s >= state.plan.freeze_after_s:
        return _freeze(state, quiet, verdict)
    return None


def _freeze(state: RolloutState, reason: str, verdict: StepVerdict) -> Transition | None:
    if state.state == "paused":
        return None
    return _to(state, "paused", state.step, f"frozen: {reason}", verdict)


def _to(
    state: RolloutState,
    to: StateName,
    step: int,
    reason: str,
    verdict: StepVerdict | None = None,
) -> Transition:
    after = RolloutState(state.plan, to, step)
    return Transition(to, step, after.weight, reason, dict(verdict.evidence) if verdict else {})
