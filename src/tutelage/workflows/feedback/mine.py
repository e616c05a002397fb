"""`tutelage mine`: what production says is worth an expert's minute, ranked, with the reasons.

One look reads the request log of a time, weighs what speaks against each answer, and keeps the
rows it wants in the store. The label queue is that of `tutelage data label`; a row on the test or
validation side is asked for at random, to judge models by, and never trained on.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event
from tutelage.core.example import SPLITS
from tutelage.data.annotation.items import Item
from tutelage.feedback.live.scores import live_scores
from tutelage.feedback.mining import pick
from tutelage.feedback.mining.clusters import Grouped, Wanted, group
from tutelage.feedback.mining.failure import Forms
from tutelage.feedback.mining.mined import Cluster, Mined, MinedRow, Reason
from tutelage.feedback.mining.panel import Split, splits
from tutelage.feedback.mining.scan import (
    LONGEST,
    Traffic,
    Window,
    asked_text,
    count_records,
    fetch,
    numbers,
    sample_texts,
    scan,
)
from tutelage.feedback.mining.served import fade, serving
from tutelage.feedback.mining.strengths import (
    OFTEN,
    WEIGHTS,
    Looker,
    Source,
    Strengths,
    freshness,
    from_answers,
    from_entropy,
    from_failures,
    from_scores,
    from_verdicts,
    soften,
)
from tutelage.feedback.mining.words import Explainer
from tutelage.feedback.outcome import outcomes
from tutelage.feedback.signals import declare
from tutelage.store.mining import MinedRecordRow, MineRow
from tutelage.store.records import RecordRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_answer import is_labelled
from tutelage.workflows.data.experts_items import production_item
from tutelage.workflows.data.experts_rows import known_rows
from tutelage.workflows.data.pool import given_items
from tutelage.workflows.feedback.mine_known import Bench, left_out_keys, live_releases, make_bench

STAGE = "mine"
_SPARE = 1.25  # rows ranked a row wanted: some turn out to be known once redacted
_UNLIMITED = 10_000  # rows of one look at most


@dataclass(frozen=True)
class _Looked:
    """What one scan gave: the traffic, the strengths of the signals, and who says so."""

    traffic: Traffic
    strengths: Strengths
    live: dict[str, tuple[float, str]]
    judges: dict[str, Split]
    serving: set[str]  # releases; none where nothing is deployed
    until: datetime


@dataclass(frozen=True)
class _Chosen:
    """Texts in the order they are asked for; `how` tells those that were drawn."""

    texts: list[int]
    how: dict[int, Reason]
    grouped: Grouped
    cluster: dict[int, str]
    wanted: int


def mine(
    ctx: Context,
    *,
    budget: int = 50,
    now: datetime | None = None,
    since: datetime | None = None,
    held_out: float = 0.15,
    explore: float = 0.05,
    seed: int = 7,
) -> Mined:
    """Return up to `budget` requests that are worth a label, the most wanted first, and keep them.

    `held_out` of the budget is drawn at random from the validation and test sides, `explore` at
    random from the train side: a sample of what the signals miss. `since` and `now` bound the time
    that is looked at. Raises DataError if no record can be labelled.
    """
    _check(budget, held_out, explore)
    window = Window(since, now or utc_now())
    total = count_records(ctx.store, window)
    if not total:
        raise DataError(
            "there is no record of production to look at",
            where=ctx.config.name,
            fix="Serve a release first, import logs, or look further back",
        )
    forms = Forms(ctx.config.output.format(), labelled=is_labelled(ctx.config))
    ctx.emit(Event(STAGE, "progress", "learning what the dataset knows", 0, total))
    sample = sample_texts(ctx.store, window, seed=seed)
    bench = make_bench(ctx, sample, total, seed)
    looked = _look(ctx, window, forms, bench, total)
    barred = _barred(ctx, looked.traffic)
    shares = _shares(budget, held_out, explore)
    chosen = _choose(ctx, looked, bench, (barred.mask, sample), shares, seed)
    explainer = Explainer(ctx.store, looked.traffic, looked.strengths, forms, bench.knowledge)
    explainer.live, explainer.judges = looked.live, looked.judges
    explainer.serving = looked.serving
    explainer.declared = declare(ctx.config.feedback)
    rows = _rows(ctx, looked, chosen, explainer, bench, budget)
    if not rows:
        raise _nothing(barred.left_out, looked.traffic)
    found = Mined(
        run=secrets.token_hex(6),
        rows=tuple(rows),
        clusters=chosen.grouped.clusters,
        records=len(looked.traffic.ids) + looked.traffic.untexted,
        texts=len(looked.traffic.keys),
        wanted=chosen.wanted,
        left_out=dict(barred.left_out),
        known=bench.rows,
        since=window.since.isoformat() if window.since else None,
        until=window.until.isoformat(),
    )
    _keep(ctx, found, window, budget, seed)
    ctx.emit(Event(STAGE, "done", f"{len(rows):,} of {found.texts:,} texts are worth a label"))
    return found


def _check(budget: int, held_out: float, explore: float) -> None:
    if not 1 <= budget <= _UNLIMITED:
        raise ConfigError(f"a budget of {budget} rows", fix=f"Name 1 to {_UNLIMITED:,} rows")
    for name, share in (("held-out", held_out), ("explore", explore)):
        if not 0 <= share <= 1:
            raise ConfigError(f"a share of {share:g} for {name}", fix="Name a share from 0 to 1")
    if held_out + explore > 1:
        raise ConfigError("held-out and explore together are more than 1", fix="Lower one of them")


def _shares(budget: int, held_out: float, explore: float) -> tuple[int, int, int]:
    """Return how many rows are asked for by signals, at random, and of the held-out sides."""
    aside, random = round(budget * held_out), round(budget * explore)
    return budget - aside - random, random, aside


def _look(ctx: Context, window: Window, forms: Forms, bench: Bench, total: int) -> _Looked:
    looker = Looker(bench.knowledge)

    def on_texts(texts: Sequence[str], labels: Sequence[str | None]) -> None:
        looker.take(bench.project(texts), labels)

    def told(done: int, _: int) -> None:
        ctx.emit(Event(STAGE, "progress", "reading records", done, total))

    traffic = scan(ctx.store, window, forms, on_texts, told)
    declared = declare(ctx.config.feedback)
    users = outcomes(ctx.store, declared, since=window.since, until=window.until)
    live = _live(ctx, window)
    values: dict[Source, NDArray[np.float32]] = {}
    record: dict[Source, NDArray[np.int64]] = {}
    values["failed"], record["failed"] = from_failures(traffic)
    values["users"], record["users"] = from_verdicts(traffic, users)
    values["live"], record["live"] = from_scores(traffic, {k: v[0] for k, v in live.items()})
    judges = splits(ctx.store, window)
    apart = {name: (1 - split.strength) / 2 for name, split in judges.items()}
    values["judges"], record["judges"] = from_scores(traffic, apart)
    values["entropy"], record["entropy"] = from_entropy(traffic)
    now = live_releases(ctx)
    served = serving(traffic, now)
    values["releases"], values["varies"] = from_answers(traffic, served)
    if not is_labelled(ctx.config):
        soften(ctx.store, traffic, [values["releases"], values["varies"]])
    values |= looker.strengths()
    newest = numbers(traffic.newest, np.int32).astype(np.int64)
    for name, whose in {**record, "against": newest}.items():
        fade(values[name], whose, served)
    return _Looked(traffic, Strengths(values, record), live, judges, now, window.until)


def _live(ctx: Context, window: Window) -> dict[str, tuple[float, str]]:
    """Return the lowest live score of each record, and its metric."""
    found: dict[str, tuple[float, str]] = {}
    for score in live_scores(ctx.store, since=window.since, until=window.until):
        if score.value is not None and score.value < found.get(score.record, (2.0, ""))[0]:
            found[score.record] = score.value, score.metric
    return found


@dataclass(frozen=True)
class _Barred:
    """Which texts are not asked for, (M,), and how many by reason."""

    mask: NDArray[np.bool_]
    left_out: Counter[str]


def _barred(ctx: Context, traffic: Traffic) -> _Barred:
    mask = np.zeros(len(traffic.keys), bool)
    left_out: Counter[str] = Counter()
    for reason, keys in left_out_keys(ctx).items():
        own = [place for key in keys if (place := traffic.keys.get(key)) is not None]
        fresh = [place for place in own if not mask[place]]
        mask[fresh] = True
        if fresh:
            left_out[reason] = len(fresh)
    if traffic.untexted:
        left_out["kept without texts, or not ending with a question"] = traffic.untexted
    return _Barred(mask, left_out)


def _choose(
    ctx: Context,
    looked: _Looked,
    bench: Bench,
    pool: tuple[NDArray[np.bool_], Sequence[str]],
    shares: tuple[int, int, int],
    seed: int,
) -> _Chosen:
    """Choose texts: by signals and unlike each other, at random, and of the held-out sides."""
    barred, sample = pool
    by_signal, at_random, aside = (round(n * _SPARE) for n in shares)
    traffic, strengths = looked.traffic, looked.strengths
    times, side = numbers(traffic.count, np.int32), numbers(traffic.side, np.int8)
    score = strengths.score()
    fresh = freshness(traffic, looked.until)
    value = (score**2 * fresh * np.maximum(times, 1) ** OFTEN).astype(np.float32)
    asked = (times * fresh).astype(np.float32)
    train, held = ~barred & (side == 0), ~barred & (side > 0)
    judged = pick.drawn(asked, held, aside, seed).tolist()
    by_signal += max(aside - len(judged), 0)
    ctx.emit(Event(STAGE, "progress", "choosing what to ask for"))
    places = pick.candidates(value, train & (times > 0), by_signal, seed)
    texts = _texts(ctx, traffic, places)
    vectors = bench.project(texts)
    kinds = [[reason for reason, _ in strengths.reasons_of(int(p))] for p in places]
    named = [[WEIGHTS[source][0] for source in own] for own in kinds]
    wanted = Wanted(texts, vectors, times[places], score[places], named)
    grouped = group(wanted, sample, seed)
    order = [int(places[i]) for i in pick.spread(value[places], vectors, by_signal)]
    free = train.copy()
    free[order] = False
    random = pick.drawn(asked, free, at_random + max(by_signal - len(order), 0), seed + 1).tolist()
    how = dict.fromkeys(random, Reason("random", 0.0, "drawn at random: what the signals miss"))
    names = [SPLITS[i] for i in side[judged]]
    how |= {
        text: Reason("held_out", 0.0, f"drawn at random for the {name} side: to judge, not train")
        for text, name in zip(judged, names, strict=True)
    }
    cluster = {int(p): name for p, name in zip(places, grouped.names, strict=True)}
    together = pick.interleave(order, random, judged)
    wanted_count = int((train & (score > 0)).sum())
    return _Chosen(together, how, grouped, cluster, wanted_count)


def _texts(ctx: Context, traffic: Traffic, places: NDArray[np.int64]) -> list[str]:
    """Return the texts of these places, from the newest record of each."""
    names = [traffic.ids[traffic.newest[place]] for place in places]
    columns = (RecordRow.id, RecordRow.messages)
    found = {row.id: asked_text(row.messages) or "" for row in fetch(ctx.store, names, columns)}
    return [found.get(name, "")[:LONGEST] for name in names]


def _rows(
    ctx: Context,
    looked: _Looked,
    chosen: _Chosen,
    explainer: Explainer,
    bench: Bench,
    budget: int,
) -> list[MinedRow]:
    """Return the ranked rows, as many as the budget, with items, reasons and answers."""
    traffic, score = looked.traffic, looked.strengths.score()
    newest = {text: traffic.ids[traffic.newest[text]] for text in chosen.texts}
    items = _items(ctx, traffic, chosen.texts)
    given = given_items(ctx)
    texts = [
        text for text in chosen.texts
        if text in items and items[text].example_id is None and items[text].id not in given
    ][:budget]  # fmt: skip
    if not texts:
        return []
    vectors = bench.project([items[text].text[:LONGEST] for text in texts])
    with ctx.store.session() as session:
        explainer.shown = {row.id: row.name for row in session.scalars(select(ReleaseRow))}
    reasons = explainer.reasons(texts, vectors)
    rows = []
    for rank, (text, why) in enumerate(zip(texts, reasons, strict=True), start=1):
        item, drawn = items[text], chosen.how.get(text)
        release = str(item.example.meta.get("release", ""))
        rows.append(
            MinedRow(
                record=newest[text],
                rank=rank,
                score=round(float(score[text]), 4),
                reasons=(drawn, *why) if drawn is not None else why,
                cluster=chosen.cluster.get(text, ""),
                split=item.split or "train",
                text=item.text,
                answer=item.answer or "",
                release=explainer.shown.get(release, release),
                times=int(traffic.count[text]),
                item=item.id,
            )
        )
    return rows


def _items(ctx: Context, traffic: Traffic, texts: Sequence[int]) -> dict[int, Item]:
    """Return the item of each text, on the most held-out side that its text was seen on."""
    names = {traffic.ids[traffic.newest[text]]: text for text in texts}
    found: dict[int, Item] = {}
    ids = list(names)
    for start in range(0, len(ids), 500):
        with ctx.store.session() as session:
            query = select(RecordRow).where(RecordRow.id.in_(ids[start : start + 500]))
            for row in session.scalars(query):
                item = production_item(ctx, row)
                if item is not None:
                    text = names[row.id]
                    found[text] = replace(item, split=SPLITS[traffic.side[text]])
    known = known_rows(ctx, list(found.values()))
    return dict(zip(found, known, strict=True))


def _keep(ctx: Context, found: Mined, window: Window, budget: int, seed: int) -> None:
    figures: dict[str, Any] = {
        "records": found.records, "texts": found.texts, "wanted": found.wanted,
        "known": found.known, "left_out": dict(found.left_out),
        "clusters": [{**c.as_dict(), "examples": []} for c in found.clusters],
    }  # fmt: skip
    with ctx.store.begin() as session:
        session.add(
            MineRow(
                id=found.run, since=window.since, until=window.until, budget=budget, seed=seed,
                batch=None, figures=figures,
            )
        )  # fmt: skip
        session.flush()
        session.add_all(
            MinedRecordRow(
                run=found.run, rank=row.rank, record=row.record, item=row.item, split=row.split,
                score=row.score, times=row.times, cluster=row.cluster[:120],
                reasons=[{"kind": r.kind, "strength": r.strength, "words": r.words}
                         for r in row.reasons],
            )
            for row in found.rows
        )  # fmt: skip


def _nothing(left_out: Counter[str], traffic: Traffic) -> DataError:
    counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
    return DataError(
        f"of {len(traffic.keys):,} texts none is left to label" + (f": {counts}" if counts else ""),
        where="production",
        fix="Wait for more requests, or look further back with --since",
    )


def clusters_of(figures: dict[str, Any]) -> tuple[Cluster, ...]:
    """Return the clusters of a kept look; their examples were not kept."""
    return tuple(
        Cluster(**{**one, "examples": tuple(one["examples"])})
        for one in figures.get("clusters", ())
    )
