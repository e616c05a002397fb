"""Every kind of event as data: for rules, the CLI, docs and dashboards."""

from __future__ import annotations

from fnmatch import fnmatchcase

from tutelage.core.errors import did_you_mean

# The kinds of events there are, and what each says.
EVENTS: dict[str, str] = {
    "rollout.running": "a rollout began, or took a step",
    "rollout.frozen": "a rollout was frozen",
    "rollout.paused": "a rollout was paused by hand",
    "rollout.completed": "a trial has ended, and stable stays",
    "rollout.promoted": "its candidate became the stable release",
    "rollout.rolled_back": "its candidate did harm and was taken out of traffic",
    "rollout.aborted": "somebody ended it, and the stable release stayed",
    "engine.crashed": "the engine stopped answering",
    "engine.restarted": "the engine answers again",
    "release.missing": "a stable release can't be loaded, so the one before it answers, or none",
    "release.loaded": "every stable release is loaded again",
    "backend.down": "one of several servers stopped answering and gets no requests",
    "backend.up": "it answers again and gets requests",
    "budget.spent": "a budget is used up for its period",
    "drift.found": "live traffic is no longer like the evaluated rows, or like what it was",
    "drift.ended": "it is again, or that release does not serve any more",
    "quality.dropped": "the scores of live answers prove that a release is worse than it may be",
    "quality.ended": "that release does not serve any more",
    "judge.silent": "the judge leaves live answers out: its budget is spent, or it does not answer",
    "improve.turn": "the schedule begins a turn of the loop, or goes on with one",
    "improve.failed": "a turn of the loop went wrong",
    "keep_alive.failed": "a hosted model did not answer the call that keeps it",
    "keep_alive.ok": "it answered again",
    "gateway.started": "the gateway takes requests",
    "gateway.stopped": "the gateway has drained and stopped",
    "alert.firing": "a rule began to fire",
    "alert.resolved": "it no longer does",
}


def names(pattern: str, kind: str) -> bool:
    """Return whether a rule's `event` means `kind`: a kind, a pattern with * or a topic."""
    return fnmatchcase(kind, pattern if "." in pattern else f"{pattern}.*")


def unknown(pattern: str) -> str | None:
    """Return what to do about a pattern that means no kind there is; None if it means one."""
    if any(names(pattern, kind) for kind in EVENTS):
        return None
    topics = list(dict.fromkeys(kind.partition(".")[0] for kind in EVENTS))
    known = topics if "." not in pattern else list(EVENTS)
    return f"{did_you_mean(pattern, known)}Topics are {', '.join(topics)}"
