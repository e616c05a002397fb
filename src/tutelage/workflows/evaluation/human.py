"""Make a study: which answers of an evaluation are judged, by whom, and in which order.

A study is written in one transaction, whole or not at all, and never changed.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from tutelage.core.errors import DataError, did_you_mean, nearest
from tutelage.data.annotation.plan import check, plan
from tutelage.evaluation.human.rubric import Criterion, read_rubric
from tutelage.evaluation.human.sample import (
    SAMPLINGS,
    Answered,
    Sampling,
    draw,
    rater_order,
)
from tutelage.evaluation.human.votes import pairs_of
from tutelage.store.human import HumanAssignmentRow, HumanStudyRow, HumanTaskRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_people import known_name
from tutelage.workflows.evaluation.human_rows import Evaluated, evaluated


@dataclass(frozen=True)
class Order:
    """A study that is wanted.

    `candidates` are the evaluation's names of them, by default tuned and the better base; without
    `rubric` (a YAML file) or `criteria` every two are compared. `rows` limits the sample,
    `overlap` people judge each row, and `shared` lets whoever is free take the next one.
    `reference` shows the reference answer too.
    """

    people: tuple[str, ...]
    candidates: tuple[str, ...] = ()
    rubric: Path | None = None
    sample: Sampling = "differ"
    rows: int | None = None
    overlap: int = 1
    shared: bool = False
    reference: bool = False
    evaluation: str | None = None  # start of its hash; None: the newest
    seed: int = 7
    criteria: tuple[Criterion, ...] = ()  # in place of a rubric's file

    @property
    def marked(self) -> bool:
        """Whether each answer is marked by itself."""
        return self.rubric is not None or bool(self.criteria)


def new_study(ctx: Context, order: Order) -> dict[str, Any]:
    """Make a study; return study, evaluation, kind, candidates, rows, tasks, people and more.

    Raises DataError if a name, the sample or the rubric can't be used, or nothing is to judge.
    """
    people = [known_name(name) for name in order.people]
    check(people, order.overlap)
    _check(order)
    source = evaluated(ctx, order.evaluation)
    names = _candidates(source, order)
    criteria = read_rubric(order.rubric) if order.rubric is not None else order.criteria
    pool = _answered(source, names)
    how: Sampling = order.sample
    if criteria and how == "differ":
        how = "all" if order.rows is None else "random"  # each answer is judged by itself
    chosen = draw(pool, names, how, order.rows, seed=order.seed)
    differing = sum(row.differs(names) for row in pool)
    if not chosen or (not criteria and not any(row.differs(names) for row in chosen)):
        raise _nothing(len(pool), names)
    sample = {
        "how": how, "rows": len(chosen), "of": len(pool), "differ": differing,
        "reference": order.reference,
    }  # fmt: skip
    study = HumanStudyRow(
        id=secrets.token_hex(6),
        evaluation=source.artifact.hash,
        kind="rubric" if criteria else "pairwise",
        candidates=names,
        criteria=[criterion.as_dict() for criterion in criteria],
        people=people,
        overlap=order.overlap,
        shared=order.shared,
        sample=sample,
        seed=order.seed,
        secret=secrets.token_hex(32),
    )
    with ctx.store.begin() as session:
        session.add(study)
        session.flush()
        tasks = _tasks(session, study, source, chosen, criteria)
        given = _assign(session, study, tasks)
    return {
        "study": study.id,
        "evaluation": source.artifact.short,
        "kind": study.kind,
        "candidates": names,
        "criteria": [criterion.name for criterion in criteria],
        "sample": sample,
        "tasks": len(tasks),
        "asked": sum(task.asked for task in tasks),
        "judgements": sum(given.values()),
        "overlap": order.overlap,
        "shared": order.shared,
        "people": {name: given.get(name, 0) for name in people},
    }


def _check(order: Order) -> None:
    if order.sample not in SAMPLINGS:
        near = nearest(str(order.sample), list(SAMPLINGS))
        hint = f"; did you mean {near}?" if near else ""
        raise DataError(
            f"{order.sample!r} is no way to draw rows", fix=f"Use {', '.join(SAMPLINGS)}{hint}"
        )
    if order.rows is not None and order.rows < 1:
        raise DataError(f"{order.rows} rows can't be judged", fix="Ask for one row or more")


def _candidates(source: Evaluated, order: Order) -> list[str]:
    """Return the candidates to judge, each known to the evaluation and named once."""
    known = sorted(source.texts)
    names = list(order.candidates)
    if not names:
        against = (source.artifact.meta.get("primary") or {}).get("against")
        names = [name for name in ("tuned", against) if name in source.texts]
        if len(names) < 2 and not order.marked:
            raise DataError(
                "the evaluation has no tuned model and base to compare",
                where=source.artifact.short,
                fix=f"Name two with --candidates; there are {', '.join(known)}",
            )
    for name in names:
        if name not in source.texts:
            hint = did_you_mean(name, known)
            raise DataError(
                f"the evaluation has no candidate {name!r}",
                where=source.artifact.short,
                fix=f"{hint}There are {', '.join(known)}",
            )
    least = 1 if order.marked else 2
    if len(set(names)) < len(names) or len(names) < least:
        raise DataError(
            f"{', '.join(names) or 'nothing'} can't be compared",
            fix="Name two different candidates or more, or add --rubric to judge one by itself",
        )
    return names


def _answered(source: Evaluated, names: Sequence[str]) -> list[Answered]:
    """Return the rows that every candidate answered."""
    return [
        Answered(
            item, source.clusters[item], row.label or "",
            {name: source.texts[name][item] for name in names},
        )
        for item, row in source.rows.items()
        if all(item in source.texts[name] for name in names)
    ]  # fmt: skip


def _nothing(rows: int, names: Sequence[str]) -> DataError:
    listed = " and ".join(names)
    if not rows:
        return DataError(f"no row was answered by {listed}", fix="Name other candidates")
    return DataError(
        f"{listed} wrote the same text for every row, so there is nothing to judge",
        fix="Name other candidates, or judge one by itself with --rubric",
    )


def _tasks(
    session: Session,
    study: HumanStudyRow,
    source: Evaluated,
    chosen: Sequence[Answered],
    criteria: Sequence[Criterion],
) -> list[HumanTaskRow]:
    """Write what is to be judged; two equal texts are kept as a tie that nobody is asked."""
    tasks = []
    for row in chosen:
        example = source.rows[row.item]
        asked: list[tuple[str, str | None]] = (
            [(name, None) for name in study.candidates]
            if criteria
            else [(a, b) for a, b in pairs_of(study.candidates)]
        )
        for first, second in asked:
            text, other = row.texts[first], row.texts[second] if second else None
            tasks.append(
                HumanTaskRow(
                    study=study.id,
                    item=row.item,
                    cluster=row.cluster,
                    messages=[m.model_dump(exclude_none=True) for m in example.context],
                    reference=example.answer if study.sample["reference"] else None,
                    first=first,
                    second=second,
                    first_text=text,
                    second_text=other,
                    asked=other is None or text.strip() != other.strip(),
                )
            )
    session.add_all(tasks)
    session.flush()
    return tasks


def _assign(
    session: Session, study: HumanStudyRow, tasks: Sequence[HumanTaskRow]
) -> Counter[str | None]:
    """Give the tasks out: a person judges all of a row's; each person has an order of their own."""
    asked: dict[str, list[int]] = {}
    for task in tasks:
        if task.asked:
            asked.setdefault(task.item, []).append(task.id)
    wanted: dict[str | None, list[int]] = {}
    if study.shared:
        rng = random.Random(study.seed)
        slots = [number for own in asked.values() for number in own]
        wanted[None] = []
        for _ in range(study.overlap):  # everything once before anything twice
            rng.shuffle(slots)
            wanted[None] += slots
    else:
        for slot in plan(list(asked), study.people, study.overlap, seed=study.seed):
            wanted.setdefault(slot.annotator, []).extend(asked[slot.item])
        wanted = {name: rater_order(own, name or "", study.seed) for name, own in wanted.items()}
    session.add_all(
        HumanAssignmentRow(
            id=secrets.token_hex(8), study=study.id, task=task, rater=name, place=place,
            state="open",
        )
        for name, own in wanted.items()
        for place, task in enumerate(own)
    )  # fmt: skip
    return Counter({name: len(own) for name, own in wanted.items()})
