"""The gate of a turn: the candidate against the stable release, on old rows and on new ones.

The project's own criteria come first, over all test rows (evaluation/gate.py). Then the test rows
that the stable release was judged on before, and apart from them those that came since: what was
learned may not cost what was known. Rows decide, with their intervals; too few say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.artifact import Artifact, finite
from tutelage.data.version import load_version
from tutelage.evaluation.candidates import BASE, STABLE, TUNED
from tutelage.evaluation.criterion import Outcome
from tutelage.evaluation.significance_margin import NonInferiority, non_inferior
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.evaluation.evaluate import evaluate
from tutelage.workflows.evaluation.evaluate_reload import read_scores
from tutelage.workflows.living import living


@dataclass(frozen=True)
class Part:
    """The comparison on one part of the test rows: `name` is old or new."""

    name: str
    rows: int
    ours: float | None
    theirs: float | None
    outcome: Outcome
    sentence: str
    figures: dict[str, Any]


@dataclass(frozen=True)
class Held:
    """What the gate says. `evaluation` is the full hash of what it rests on."""

    outcome: Outcome
    sentence: str
    evaluation: str
    parts: tuple[Part, ...]
    verdict: str  # by the project's own criteria

    def as_dict(self) -> dict[str, Any]:
        """Return the evidence for the journal."""
        parts = {part.name: {"rows": part.rows, "candidate": part.ours, "stable": part.theirs,
                             "outcome": part.outcome, "sentence": part.sentence, **part.figures}
                 for part in self.parts}  # fmt: skip
        return {"verdict": self.verdict, "evaluation": self.evaluation[:12], **parts}


def hold(ctx: Context, dataset: Artifact, adapter: Artifact, previous: str) -> Held:
    """Evaluate the candidate and return what all of it comes to.

    `previous` is the version that the stable release was trained on.
    """
    outcome = evaluate(ctx, dataset, adapter)
    meta = outcome.artifact.meta
    metric = str(meta["primary"]["metric"])
    table = read_scores(ctx, outcome.artifact)
    other = STABLE if STABLE in table else BASE
    ours, theirs = (_values(table, name, metric) for name in (TUNED, other))
    version = load_version(ctx.path_of(dataset))
    before = living(ctx, find_artifact(ctx.store, previous))
    known: set[str] = set()
    if before is not None:
        known = {row.id for row in load_version(ctx.path_of(before)).rows("test")}
    test = [row.id for row in version.rows("test") if row.id in ours and row.id in theirs]
    margin = ctx.config.evaluate.guards.stable
    parts = tuple(
        compare(name, ids, ours, theirs, margin, [version.cluster_of(i) for i in ids])
        for name, ids in (
            ("old", [i for i in test if i in known]),
            ("new", [i for i in test if i not in known]),
        )
    )
    verdict = str(meta["verdict"])
    found, told = conclude(verdict, str(meta.get("sentence") or ""), parts)
    return Held(found, told, outcome.artifact.hash, parts, verdict)


def _values(table: Mapping[str, Any], name: str, metric: str) -> dict[str, float]:
    scores = table.get(name, {}).get(metric, {})
    return {item: score.value for item, score in scores.items() if score.value is not None}


def compare(
    name: str,
    ids: Sequence[str],
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    margin: float,
    clusters: Sequence[str],
) -> Part:
    """Return whether the candidate is not worse than stable on these rows by more than `margin`.

    It fails where it is worse for certain, by however little, or by more than the margin.
    """
    if not ids:
        return Part(
            name, 0, None, None, "not_enough_evidence", f"there are no {name} test rows", {}
        )
    a, b = [ours[i] for i in ids], [theirs[i] for i in ids]
    found = non_inferior(a, b, margin, clusters=clusters)
    d = found.difference
    outcome: Outcome = "fail" if d.high < 0 else found.outcome
    told = (
        f"on {len(ids)} {name} test row{'s' * (len(ids) != 1)} {_words(found)} "
        f"({sum(a) / len(a):.1%} against {sum(b) / len(b):.1%}, "
        f"95 % {d.low * 100:+.1f} to {d.high * 100:+.1f} points)"
    )
    figures = finite({"difference": d.estimate, "low": d.low, "high": d.high, "margin": margin,
                      "wins": d.wins, "losses": d.losses})  # fmt: skip
    return Part(name, len(ids), sum(a) / len(a), sum(b) / len(b), outcome, told, figures)


def _words(found: NonInferiority) -> str:
    d = found.difference
    if d.low > 0:
        return "the candidate is better"
    if d.high < 0:
        return "the candidate is worse"
    limit = f"{found.margin * 100:g} points"
    if found.outcome == "pass":
        return f"the candidate is not worse by {limit}"
    if found.outcome == "fail":
        return f"the candidate is worse by more than {limit}"
    return f"it is not certain that the candidate is not worse by {limit}"


def conclude(verdict: str, why: str, parts: Sequence[Part]) -> tuple[Outcome, str]:
    """Return the outcome of the project's verdict and both parts, and the sentence for it.

    One fail fails, one open question leaves it open. A part without rows decides nothing, but at
    least one part must have some.
    """
    asked = [part for part in parts if part.rows]
    told = "; ".join(part.sentence for part in asked)
    if verdict == "fail" or any(part.outcome == "fail" for part in asked):
        failed = [part.sentence for part in asked if part.outcome == "fail"]
        return "fail", "; ".join([*([why.rstrip(".")] if verdict == "fail" else []), *failed])
    if verdict != "pass":
        return "not_enough_evidence", "; ".join(filter(None, [why.rstrip("."), told]))
    if not asked or any(part.outcome != "pass" for part in asked):
        return "not_enough_evidence", told or "there are no test rows to compare on"
    return "pass", told
