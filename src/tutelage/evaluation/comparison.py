"""Two candidates over the same rows: every metric's paired difference, and the rows that changed.

The p-values of all metrics are corrected together by Holm's method. Which of the two is better is
said for a metric only if its interval and its corrected p agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.artifact import finite
from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.evaluation.criterion import figures_of, percent
from tutelage.evaluation.measures import (
    MEASURES,
    Pairs,
    is_rate,
    level,
    lower_is_better,
    quantile_of,
    told,
    values,
)
from tutelage.evaluation.scoring import Scored
from tutelage.evaluation.significance import holm

_BESIDE = tuple(name for name in MEASURES if quantile_of(name) is None)


@dataclass(frozen=True)
class Side:
    """One of the two: what it is called, and its answers and scores."""

    label: str
    scored: Scored


def require_same_rows(a: Side, b: Side, ids: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError if the two were not asked the same rows. `ids` are by label: a, b."""
    ours, theirs = set(ids["a"]), set(ids["b"])
    if ours != theirs:
        both = len(ours & theirs)
        raise DataError(
            f"the two were asked different rows: {both} in both, {len(ours - theirs)} only for "
            f"{a.label}, {len(theirs - ours)} only for {b.label}",
            fix="Evaluate both on the same dataset version",
        )


def compare_sides(
    a: Side,
    b: Side,
    rows: Sequence[Example],
    clusters: Mapping[str, str],
    *,
    primary: str,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the comparison as plain data; a difference is a's gain over b, less where less is
    better. `clusters` maps the rows' ids, in order.
    """
    metrics = _shared(a, b, primary)
    found = []
    for metric in metrics:
        pairs = Pairs.of(a.scored, b.scored, metric, clusters)
        if len(pairs.ours) == 0:
            continue
        gain = pairs.gain(metric, confidence=confidence, seed=seed)
        levels = {
            name: level(side.scored, metric, clusters, confidence=confidence, seed=seed).estimate
            for name, side in (("a", a), ("b", b))
        }
        found.append(
            {"metric": metric, **levels, **figures_of(gain), "se": finite(gain.se),
             "wins": gain.wins, "losses": gain.losses, "lower_is_better": lower_is_better(metric)}
        )  # fmt: skip
    for entry, p in zip(found, holm([entry["p"] for entry in found]), strict=True):
        entry["p_holm"] = p
        entry["outcome"] = _outcome(entry, confidence)
        entry["sentence"] = _sentence(entry, a.label, b.label, confidence)
    changed = _changed(a, b, rows, primary)
    return {
        "a": a.label,
        "b": b.label,
        "primary": primary,
        "rows": len(clusters),
        "clusters": len(set(clusters.values())),
        "confidence": confidence,
        "metrics": found,
        "changed": changed,
        "sentence": found[0]["sentence"] if found else "no row was scored for both",
    }


def _shared(a: Side, b: Side, primary: str) -> list[str]:
    """Return the metrics both have, the primary first, then refusals and tokens."""
    both = [metric for metric in a.scored.scores if metric in b.scored.scores]
    ordered = sorted(both, key=lambda metric: metric != primary)
    return [*ordered, *_BESIDE]


def _outcome(entry: Mapping[str, Any], confidence: float) -> str:
    if entry["p_holm"] > 1 - confidence:
        return "no difference seen"
    if entry["low"] > 0:
        return "a is better"
    return "b is better" if entry["high"] < 0 else "no difference seen"


def _sentence(entry: Mapping[str, Any], a: str, b: str, confidence: float) -> str:
    metric = entry["metric"]
    shown = {key: difference_told(metric, entry[key]) for key in ("estimate", "low", "high")}
    apart = entry["detectable"]
    able = "unknown" if apart is None else difference_told(metric, apart).lstrip("+")
    says = {"a is better": f"{a} is better", "b is better": f"{b} is better"}
    return (
        f"{metric}: {a} {told(metric, entry['a'])} vs {b} {told(metric, entry['b'])}: gain "
        f"{shown['estimate']}, {percent(confidence)} interval {shown['low']}…{shown['high']}, "
        f"p = {entry['p_holm']:.2g} after correction, n = {entry['n']}: "
        f"{says.get(entry['outcome'], entry['outcome'])}; smallest detectable difference {able}"
    )


def difference_told(metric: str, value: float) -> str:
    """Return a difference as people say it: +4.2 points, −31 ms."""
    if is_rate(metric):
        return f"{value * 100:+.1f} points".replace("-", "−")
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{told(metric, abs(value))}"


def _changed(a: Side, b: Side, rows: Sequence[Example], primary: str) -> dict[str, Any]:
    """Return the rows whose primary score differs, the largest differences first."""
    ours, theirs = values(a.scored, primary), values(b.scored, primary)
    better: list[tuple[float, dict[str, Any]]] = []
    worse: list[tuple[float, dict[str, Any]]] = []
    for row in rows:
        mine, other = ours.get(row.id), theirs.get(row.id)
        if mine is None or other is None or mine == other:
            continue
        entry = {
            "id": row.id, "input": row.input_text, "expected": row.answer,
            "a": _text(a, row.id), "b": _text(b, row.id), "score_a": mine, "score_b": other,
        }  # fmt: skip
        (better if mine > other else worse).append((abs(mine - other), entry))
    return {
        name: [entry for _, entry in sorted(group, key=lambda pair: -pair[0])]
        for name, group in (("a_better", better), ("b_better", worse))
    }


def _text(side: Side, item: str) -> str | None:
    answer = side.scored.rows.get(item)
    return answer.text if answer else None


def metric_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the comparison as (headers, rows) of a table, a row a metric."""
    headers = ["metric", document["a"], document["b"], "gain", "interval", "p", "rows", "says",
               "detectable"]  # fmt: skip
    says = {
        "a is better": f"{document['a']} is better",
        "b is better": f"{document['b']} is better",
    }
    table = []
    for entry in document["metrics"]:
        metric, apart = entry["metric"], entry["detectable"]
        low, high = (difference_told(metric, entry[end]) for end in ("low", "high"))
        table.append(
            [
                metric, told(metric, entry["a"]), told(metric, entry["b"]),
                difference_told(metric, entry["estimate"]),
                f"{low} … {high}",
                f"{entry['p_holm']:.2g}", str(entry["n"]),
                says.get(entry["outcome"], entry["outcome"]),
                "–" if apart is None else difference_told(metric, apart).lstrip("+"),
            ]
        )  # fmt: skip
    return headers, table
