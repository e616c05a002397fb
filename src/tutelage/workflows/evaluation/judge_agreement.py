"""Measures judges against experts: on answers that experts judged, and only those are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.errors import DataError
from tutelage.core.events import Event
from tutelage.evaluation.candidates import BASE, TUNED
from tutelage.evaluation.human.votes import NOBODY
from tutelage.evaluation.judges import duels, marks
from tutelage.evaluation.judges.asker import STAGE, Judge, Verdicts
from tutelage.evaluation.judges.experts import (
    Agreement,
    Answer,
    Opinion,
    agree,
    outcomes_of,
    read_opinions,
    settled,
)
from tutelage.evaluation.judges.questions import Question, pointwise
from tutelage.evaluation.judges.rubric import PREFERENCE, Rubric, versus
from tutelage.evaluation.judges.trust import keep_trust, panel_id, trusted
from tutelage.store.human import HumanStudyRow, HumanTaskRow
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.human_rows import (
    Evaluated,
    criteria_of,
    marks_of,
    tasks_of,
    votes_of,
)
from tutelage.workflows.evaluation.judge import AS_SET, Case, Wishes, open_case, text_digest

STUDIES = "human studies"


def agreement(ctx: Context, file: Path | None = None, wishes: Wishes = AS_SET) -> dict[str, Any]:
    """Return how far each judge, and the panel as a whole, agrees with experts; it is kept.

    Expert verdicts come from `file`, or from the studies of people on the same evaluation. Raises
    DataError if there are none, or they are about answers that are not there.
    """
    source, case = open_case(ctx, replace(wishes, rows=None))
    if file is None:
        opinions = study_opinions(ctx, source, case.rubric)
    else:
        ours = TUNED if TUNED in source.texts else BASE
        opinions = read_opinions(file, case.rubric, list(source.rows), ours)
    case = _about(case, source, opinions)
    verdicts = case.asker(ctx).ask(_questions(case, opinions))
    name = str(file) if file else STUDIES
    panels = [case.judges, *([(j,) for j in case.judges] if len(case.judges) > 1 else [])]
    found = [_measure(ctx, case, (judges, name), (opinions, verdicts)) for judges in panels]
    spent = verdicts.spent
    if spent.stopped:
        ctx.emit(Event(STAGE, "warning", "some answers that experts judged were not asked for"))
    return {
        "evaluation": source.artifact.short,
        "mode": case.rubric.mode,
        "source": name,
        "least_kappa": case.settings.least_kappa,
        "least_rows": case.settings.least_rows,
        "judges": found,
        "may_gate": all(entry["may_gate"] for entry in found[0]["criteria"]),
        "enough": all(entry["enough"] for entry in found[0]["criteria"]),
        "spent": {"tokens": spent.tokens, "asked": spent.asked, "stopped": spent.stopped},
    }


def study_opinions(ctx: Context, source: Evaluated, rubric: Rubric) -> list[Opinion]:
    """Return what people said in studies of these very answers, as far as it fits the rubric.

    A judgement belongs to a text: that of an earlier evaluation counts where the text is the
    same. Raises DataError if nothing fits.
    """
    kind = "pairwise" if rubric.mode == "pairwise" else "rubric"
    with ctx.store.session() as session:
        studies = session.scalars(select(HumanStudyRow).where(HumanStudyRow.kind == kind)).all()
        found: list[Opinion] = []
        for study in studies:
            same = _same_texts(tasks_of(session, study).values(), source)
            if kind == "pairwise":
                votes = [v for v in votes_of(session, study) if (v.item, v.first, v.second) in same]
                found += _votes(votes)
            else:
                levels = {c.name: c.levels for c in criteria_of(study)}
                marked = [m for m in marks_of(session, study) if (m.item, m.candidate, "") in same]
                found += _marks(marked, rubric, levels)
    if not found:
        what = "two answers" if rubric.mode == "pairwise" else "answers on the judge's criteria"
        raise DataError(
            f"nobody has judged {what} of this evaluation yet",
            where=source.artifact.short,
            fix="Name a file of verdicts, or have people judge: `tutelage human new`, with the "
            "criteria that `tutelage judge rubric` prints",
        )
    return found


def _same_texts(tasks: Iterable[HumanTaskRow], source: Evaluated) -> set[tuple[str, str, str]]:
    """Return (example id, candidate, the other or nothing) where the texts are what they were."""
    found = set()
    for task in tasks:
        shown = [(task.first, task.first_text)]
        if task.second is not None and task.second_text is not None:
            shown.append((task.second, task.second_text))
        if all(source.texts.get(name, {}).get(task.item) == text for name, text in shown):
            found.add((task.item, task.first, task.second or ""))
    return found


def _votes(votes: Sequence[Any]) -> Iterator[Opinion]:
    for vote in votes:
        if vote.rater == NOBODY or TUNED not in (vote.first, vote.second):
            continue
        straight = vote.first == TUNED
        value = vote.value if straight else 1 - vote.value
        outcome = next(name for name, worth in duels.VALUES.items() if worth == value)
        other = vote.second if straight else vote.first
        yield Opinion((vote.item, other), PREFERENCE, outcome, vote.rater)


def _marks(given: Sequence[Any], rubric: Rubric, levels: dict[str, Any]) -> Iterator[Opinion]:
    for mark in given:
        for criterion in rubric.criteria:
            count = len(criterion.levels)
            if criterion.name in mark.values and len(levels[criterion.name]) == count:
                level = round(mark.values[criterion.name] * (count - 1)) + 1
                answer = (mark.item, mark.candidate)
                yield Opinion(answer, criterion.name, str(level), mark.rater)


def _about(case: Case, source: Evaluated, opinions: Sequence[Opinion]) -> Case:
    """Return the case over the rows and candidates that experts judged."""
    names = {opinion.answer[1] for opinion in opinions}
    items = {opinion.answer[0] for opinion in opinions}
    unknown = sorted(names - set(source.texts))
    if unknown:
        raise DataError(
            f"the evaluation has no answers of {unknown[0]!r}",
            fix=f"It has answers of {', '.join(source.texts)}",
        )
    kept = {name: source.texts[name] for name in source.texts if name in names}
    if case.rubric.mode == "pairwise":
        kept = {TUNED: source.texts[TUNED], **kept}
    rows = tuple(row for row in source.rows.values() if row.id in items)
    return replace(case, rows=rows, texts=kept)


def _questions(case: Case, opinions: Sequence[Opinion]) -> list[Question]:
    """Return what the judge must be asked to be held against these opinions, and no more."""
    rows = {row.id: row for row in case.rows}
    found: dict[Question, None] = {}
    for opinion in opinions:
        item, name = opinion.answer
        if item not in case.texts[name]:
            continue
        if case.rubric.mode == "pointwise":
            criterion = case.rubric.named(opinion.criterion)
            found[pointwise(case.rubric, criterion, rows[item], case.texts[name][item])] = None
        else:
            pair = {name: case.texts[name]}
            both = duels.questions(case.rubric, [rows[item]], case.texts[TUNED], pair)
            found.update(dict.fromkeys(both))
    return list(found)


def _measure(
    ctx: Context,
    case: Case,
    who: tuple[Sequence[Judge], str],
    said: tuple[Sequence[Opinion], Verdicts],
) -> dict[str, Any]:
    """Measure one judge, or all together, on every criterion that experts judged; keep it."""
    (judges, name), (opinions, verdicts) = who, said
    case = replace(case, judges=tuple(judges))
    table = case.scores(verdicts)
    known = panel_id(judges, case.settings.panel)
    found: list[Agreement] = []
    for criterion in case.rubric.asked:
        experts, split = settled(opinions, criterion)
        if not experts and not split:
            continue
        outcomes = outcomes_of(case.rubric, criterion)
        mine = _outcomes(case, table, criterion, experts)
        measured = agree(criterion, outcomes, experts, mine, ctx.config.evaluate.confidence)
        measured.figures["split"] = split
        measured.figures["texts"] = [
            text_digest(case.texts[name][item]) for item, name, _, _ in measured.figures["pairs"]
        ]
        found.append(measured)
    keep_trust(ctx.store, known, case.rubric, found, name)
    return {
        "judge": " and ".join(judge.name for judge in judges),
        "criteria": [_entry(ctx, case, known, measured) for measured in found],
    }


def _outcomes(
    case: Case, table: marks.Table, criterion: str, answers: dict[Answer, str]
) -> dict[Answer, str | None]:
    """Return what the judge said of each answer; a mean between two levels is rounded."""
    found: dict[Answer, str | None] = {}
    for item, name in answers:
        if case.rubric.mode == "pairwise":
            score = table[TUNED][versus(name)].get(item)
            found[item, name] = score.evidence.get("better") if score else None
        else:
            score = table[name][case.rubric.named(criterion).metric].get(item)
            level = score.evidence.get("level") if score else None
            found[item, name] = None if level is None else str(int(level + 0.5))
    return found


def _entry(ctx: Context, case: Case, known: str, found: Agreement) -> dict[str, Any]:
    metric = found.criterion
    if case.rubric.mode == "pointwise":
        metric = case.rubric.named(found.criterion).metric
    ok, why = trusted(ctx.store, known, case.rubric, metric, case.settings)
    figures = {k: v for k, v in found.figures.items() if k not in ("pairs", "texts")}
    return {
        "criterion": found.criterion, "kappa": found.kappa, "low": found.low, "high": found.high,
        "rows": found.rows, **figures, "may_gate": ok, "trust": why,
        "enough": found.rows >= case.settings.least_rows and found.kappa is not None,
    }  # fmt: skip
