"""Whether a judge may gate: what experts and the judge agreed on, kept in the store.

Trust hangs on the judge, its address and the criterion word for word. Nobody is trusted by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import content_hash
from tutelage.core.config_judge import JudgeSettings
from tutelage.evaluation.judges.asker import Judge
from tutelage.evaluation.judges.experts import Agreement
from tutelage.evaluation.judges.rubric import OVERALL, PREFERENCE, Rubric
from tutelage.store.base import Store
from tutelage.store.judgements import JudgeTrustRow

_LONGEST_ID = 240  # of the store's column


@dataclass(frozen=True)
class JudgeTrust:
    """One measurement of a judge against experts on one criterion."""

    judge: str
    rubric: str  # the criterion's hash
    criterion: str
    mode: str
    kappa: float | None
    low: float | None
    high: float | None
    rows: int
    figures: dict[str, Any]
    source: str
    at: datetime | None = None


def judge_id(model: str, base_url: str) -> str:
    """Return what a judge is known by: a model of the same name elsewhere is another judge."""
    return _short(f"{model} at {base_url.rstrip('/')}")


def panel_id(judges: Sequence[Judge], panel: str) -> str:
    """Return what all judges together are known by; one judge is itself."""
    if len(judges) == 1:
        return judges[0].id
    names = sorted(judge.id for judge in judges)
    return _short(f"{panel} of {' + '.join(names)}")


def _short(text: str) -> str:
    if len(text) <= _LONGEST_ID:
        return text
    return f"{text[: _LONGEST_ID - 20]}… {content_hash(text)[:16]}"


def keep_trust(
    store: Store, judge: str, rubric: Rubric, found: Sequence[Agreement], source: str
) -> None:
    """Keep measurements, in one transaction; earlier ones stay."""
    with store.begin() as session:
        session.add_all(
            JudgeTrustRow(
                judge=judge, rubric=rubric.digest(a.criterion), criterion=a.criterion,
                mode=rubric.mode, kappa=a.kappa, low=a.low, high=a.high, n=a.rows,
                figures=a.figures, source=source[-240:],
            )
            for a in found
        )  # fmt: skip


def measured(store: Store, judge: str, digest: str) -> JudgeTrust | None:
    """Return the newest measurement of a judge on a criterion's hash, or None."""
    newest = (
        select(JudgeTrustRow)
        .where(JudgeTrustRow.judge == judge, JudgeTrustRow.rubric == digest)
        .order_by(JudgeTrustRow.id.desc())
        .limit(1)
    )
    with store.session() as session:
        row = session.scalars(newest).first()
    if row is None:
        return None
    return JudgeTrust(
        row.judge, row.rubric, row.criterion, row.mode, row.kappa, row.low, row.high, row.n,
        row.figures, row.source, row.at,
    )  # fmt: skip


def trusted(
    store: Store, judge: str, rubric: Rubric, metric: str = OVERALL,
    settings: JudgeSettings | None = None,
) -> tuple[bool, str]:  # fmt: skip
    """Return whether a judge's `metric` may gate, and the sentence that says why.

    The overall mark needs trust on every criterion. `judge` is a judge's or a panel's id.
    """
    settings = settings or JudgeSettings()
    sentences = []
    for name in _rests_on(rubric, metric):
        ok, sentence = _holds(measured(store, judge, rubric.digest(name)), judge, name, settings)
        if not ok:
            return False, sentence
        sentences.append(sentence)
    return True, "; ".join(sentences)


def _rests_on(rubric: Rubric, metric: str) -> tuple[str, ...]:
    if rubric.mode == "pairwise":
        return (PREFERENCE,)
    one = [c.name for c in rubric.criteria if c.metric == metric]
    return tuple(one) or rubric.asked


def _holds(
    found: JudgeTrust | None, judge: str, name: str, settings: JudgeSettings
) -> tuple[bool, str]:
    model = judge.split(" at ")[0]
    if found is None:
        return False, (
            f"the judge {model} has not been measured against experts on {name} as it is asked "
            f"now; run `tutelage judge agreement FILE` with at least {settings.least_rows} rows"
        )
    if found.kappa is None:
        said = f"kappa can't be computed on {found.rows} rows: all verdicts are the same"
        return False, f"the judge {model} on {name}: {said}"
    span = f" ({found.low:.2f} to {found.high:.2f})" if found.low is not None else ""
    said = f"kappa {found.kappa:.2f}{span} with experts on {found.rows} rows"
    if found.rows < settings.least_rows:
        return False, f"the judge {model} on {name}: {said}, under {settings.least_rows} rows"
    if found.kappa < settings.least_kappa:
        return False, f"the judge {model} on {name}: {said}, under {settings.least_kappa:g}"
    return True, f"the judge {model} on {name}: {said}"
