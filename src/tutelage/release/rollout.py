"""How traffic moves to a candidate: a pure state machine, no clock, no IO.

    pending ── ready ──> running(step 0) ──> running(step i) ──> promoted | completed
       │                  │  ▲      │  ▲
       │            pause │  │      │  │ requests come again
       │                  ▼  │      ▼  │
       │                paused     frozen    (the share stays, no step is taken)
       └──────────────> rolled_back | aborted    (the share is 0)

Only `fail` rolls back by itself. No data freezes, then returns to stable. Inconclusive waits.
A collector that can't be trusted freezes until it can. `paused` is an operator's: only a fail,
or an operator, ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tutelage.release.verdict import StepVerdict

StateName = Literal[
    "pending", "running", "paused", "frozen", "promoted", "completed", "rolled_back", "aborted"
]
LIVE: tuple[StateName, ...] = ("running", "paused", "frozen")  # requests count as its evidence
ACTIVE: tuple[StateName, ...] = ("pending", *LIVE)
TERMINAL: tuple[StateName, ...] = ("promoted", "completed", "rolled_back", "aborted")
# What follows the last step: the candidate becomes stable, the rollout ends with stable as it
# was, or it stays as it is until an operator ends it.
End = Literal["promote", "complete", "stay"]


@dataclass(frozen=True)
class RolloutPlan:
    """What was asked for: `steps` in percent of traffic, rising, and what follows the last.

    The first `shadow` steps are percents of requests that are mirrored: stable answers them, the
    candidate's answers are seen by nobody. With `replicas` over 1 step i is taken by moving
    replica i to the candidate.
    """

    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 100.0)
    min_requests: int = 50  # canary requests before a step is left
    min_total: int = 300  # canary requests before all traffic moves
    freeze_after_s: float = 3600.0  # without a canary request
    return_after_s: float | None = 86400.0  # without a canary request: back to stable; None: never
    shadow: int = 0
    end: End = "promote"
    replicas: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as the store keeps it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "steps": list(self.steps)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RolloutPlan:
        """Return the plan that `as_dict` wrote; unknown keys are left alone."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        known["steps"] = tuple(float(step) for step in known.get("steps", cls.steps))
        return cls(**known)

    def answered(self, step: int) -> float:
        """Return the percent of requests that the candidate answers in a step."""
        return 0.0 if step < self.shadow else self.steps[step]


@dataclass(frozen=True)
class RolloutState:
    """Where a rollout stands: `step` is an index into the plan's steps.

    `noted` names what the journal says of this step already, so that it is said once.
    """

    plan: RolloutPlan
    state: StateName = "pending"
    step: int = 0
    noted: frozenset[str] = frozenset()

    @property
    def weight(self) -> float:
        """Percent of traffic that the candidate answers."""
        if self.state in LIVE:
            return self.plan.answered(self.step)
        return 100.0 if self.state == "promoted" else 0.0

    @property
    def mirrored(self) -> float:
        """Percent of requests that the candidate answers too, unseen."""
        shadowing = self.state in LIVE and self.step < self.plan.shadow
        return self.plan.steps[self.step] if shadowing else 0.0

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


def pause(state: RolloutState, reason: str) -> Transition | None:
    """Return the move that an operator's pause means; None unless traffic is moving."""
    if state.state not in ("running", "frozen"):
        return None
    return _to(state, "paused", state.step, reason)


def resume(state: RolloutState, reason: str) -> Transition | None:
    """Return the move back to running; None unless it stands still."""
    if state.state not in ("paused", "frozen"):
        return None
    return _to(state, "running", state.step, reason)


def finish(state: RolloutState, to: StateName, reason: str) -> Transition | None:
    """Return the move to a terminal state that an operator (or a hard fault) asked for."""
    if state.terminal or to not in TERMINAL:
        return None
    return _to(state, to, state.step, reason)


def advance(state: RolloutState, verdict: StepVerdict, counts: Counts) -> Transition | None:
    """Return the move that the evidence calls for, or None to stay.

    A move to the same state and step only writes to the journal why no step is taken.
    """
    if state.terminal:
        return None
    if verdict.verdict == "fail":
        return _to(state, "rolled_back", state.step, "; ".join(verdict.reasons), verdict)
    if state.state in ("pending", "paused"):
        return None
    if verdict.verdict == "collector_error":
        return _freeze(state, "; ".join(verdict.reasons) or "the log can't be trusted", verdict)
    if verdict.verdict == "no_data" or counts.quiet_s >= state.plan.freeze_after_s:
        return _without_data(state, verdict, counts)
    if state.state == "frozen":
        return _to(state, "running", state.step, "requests are coming again", verdict)
    if verdict.verdict != "pass":
        return _note(state, verdict.verdict, "; ".join(verdict.reasons), verdict)
    return _next_step(state, verdict, counts)


def _next_step(state: RolloutState, verdict: StepVerdict, counts: Counts) -> Transition | None:
    plan = state.plan
    last = state.step == len(plan.steps) - 1
    if counts.step < plan.min_requests or (last and plan.end == "stay"):
        return None
    to_all = plan.end == "promote" if last else plan.answered(state.step + 1) >= 100
    if (last or to_all) and counts.total < plan.min_total:
        return None
    if to_all and not last and verdict.withheld:  # at the end no baseline is left to tell more
        return _note(state, "withheld", verdict.withheld, verdict)
    word = "mirrored" if state.step < plan.shadow else "canary"
    held = f"{counts.step} {word} requests at {plan.steps[state.step]:g} % held every limit"
    if not last:
        return _to(state, "running", state.step + 1, held, verdict)
    return _to(state, "promoted" if to_all else "completed", state.step, held, verdict)


def _without_data(state: RolloutState, verdict: StepVerdict, counts: Counts) -> Transition | None:
    quiet = f"no canary request for {counts.quiet_s / 60:.0f} min"
    return_after = state.plan.return_after_s
    if return_after is not None and counts.quiet_s >= return_after:
        return _to(state, "aborted", state.step, f"{quiet}: back to stable", verdict)
    if counts.quiet_s >= state.plan.freeze_after_s:
        return _freeze(state, quiet, verdict)
    return None


def _freeze(state: RolloutState, reason: str, verdict: StepVerdict) -> Transition | None:
    if state.state == "frozen":
        return None
    return _to(state, "frozen", state.step, f"frozen: {reason}", verdict)


def _note(state: RolloutState, word: str, reason: str, verdict: StepVerdict) -> Transition | None:
    if word in state.noted:
        return None
    return _to(state, state.state, state.step, f"waits: {reason}", verdict, note=word)


def _to(
    state: RolloutState,
    to: StateName,
    step: int,
    reason: str,
    verdict: StepVerdict | None = None,
    *,
    note: str | None = None,
) -> Transition:
    after = RolloutState(state.plan, to, step)
    evidence: dict[str, Any] = {}
    if verdict is not None:
        evidence = {"verdict": verdict.verdict, **verdict.evidence}
    if note is not None:
        evidence["note"] = note
    return Transition(to, step, after.weight, reason, evidence)
