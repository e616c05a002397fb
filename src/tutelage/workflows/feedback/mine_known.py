"""What traffic is compared with: the dataset's rows in one space with it, and what is known.

The space is that of the project's embedder where the texts are few, else one of words that takes
any number of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from tutelage.core.example import Example, Message, normalise
from tutelage.data.linear import Vectors
from tutelage.feedback.mining.known import Knowledge
from tutelage.feedback.mining.scan import CHUNK, asked_text, text_key
from tutelage.inference.embed import load_embedder, resolve
from tutelage.inference.embed_cache import embed_cached
from tutelage.inference.word_space import fit_word_space
from tutelage.release.routes import deployments, route
from tutelage.store.annotations import AnnotatorRow, ItemRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.data.pool import given_items

_FIT_ROWS = 20_000  # rows of the dataset that the space is fitted on
_WIDE, _NARROW = 256, 128  # dimensions
_MANY = 100_000  # records from which on the space is narrow
_NEURAL = 20_000  # texts above which a neural embedder would take hours
_AT_ONCE = 500


@dataclass(frozen=True)
class Bench:
    """A space and what the dataset knows in it. `rows` counts the dataset's rows."""

    project: Callable[[Sequence[str]], Vectors]
    knowledge: Knowledge | None
    rows: int


def make_bench(ctx: Context, sample: Sequence[str], total: int, seed: int) -> Bench:
    """Return the space of traffic and dataset; `total` records are to be looked at."""
    rows = _known_rows(ctx)
    texts = [row.input_text for row in rows]
    project = make_space(ctx, texts, sample, total, seed)
    if not texts:
        return Bench(project, None, 0)
    knowledge = Knowledge(texts, [row.label for row in rows], project(texts), seed)
    return Bench(project, knowledge, len(rows))


def make_space(
    ctx: Context, texts: Sequence[str], sample: Sequence[str], total: int, seed: int
) -> Callable[[Sequence[str]], Vectors]:
    """Return what turns texts into unit vectors, comparable from call to call."""
    quality = ctx.config.data.quality
    count = len(texts) + total
    if resolve(quality.embedder, count) == "tfidf" or count > _NEURAL:
        size = _NARROW if total > _MANY else _WIDE
        return fit_word_space([*texts[:_FIT_ROWS], *sample], size, seed).project
    embedder = load_embedder(
        quality.embedder, count, endpoint=quality.endpoint, root=ctx.workspace.root
    )
    folder = ctx.workspace.home / "embeddings"
    return lambda given: embed_cached(embedder, given, folder)


def _known_rows(ctx: Context) -> list[Example]:
    """Return the train and validation rows of the newest version; test rows are not looked at."""
    version = newest_version(ctx)
    return [*version.rows("train"), *version.rows("validation")] if version is not None else []


def live_releases(ctx: Context) -> set[str]:
    """Return the releases that answer now, a candidate among them; none without a deployment."""
    found: set[str] = set()
    for deployment in deployments(ctx.store):
        way = route(ctx.store, deployment.name)
        found |= {name for name in (way.stable, way.canary) if name is not None}
    return found


def left_out_keys(ctx: Context, *, any_edit: bool = False) -> dict[str, set[int]]:
    """Return the numbers of texts that need no label any more, by the reason.

    An edit settles a text if an expert made it, or two people made the same; with `any_edit`,
    whoever made it.
    """
    version = newest_version(ctx)
    rows = version.all_rows() if version is not None else []
    settled = "corrected already" if any_edit else "corrected by an expert, or by two people alike"
    return {
        "a row of the dataset already": {text_key(row.input_text) for row in rows},
        "given to experts already": _given(ctx),
        settled: _corrected(ctx, any_edit),
    }


def _given(ctx: Context) -> set[int]:
    names = sorted(given_items(ctx))
    found: set[int] = set()
    for start in range(0, len(names), _AT_ONCE):
        with ctx.store.session() as session:
            query = select(ItemRow.example).where(ItemRow.id.in_(names[start : start + _AT_ONCE]))
            for example in session.scalars(query):
                turns = [Message.model_validate(turn) for turn in example["messages"]]
                text = "\n".join(turn.content for turn in turns if turn.role != "system")
                found.add(text_key(text))
    return found


def _corrected(ctx: Context, any_edit: bool) -> set[int]:
    query = (
        select(RecordRow.messages, SignalRow.value, SignalRow.author)
        .join(SignalRow, SignalRow.record == RecordRow.id)
        .where(SignalRow.kind == "edit")
    )
    found: set[int] = set()
    said: dict[tuple[int, str], set[str]] = defaultdict(set)
    with ctx.store.session() as session:
        experts = set(session.scalars(select(AnnotatorRow.name)))
        for messages, value, author in session.execute(query.execution_options(yield_per=CHUNK)):
            text = asked_text(messages)
            if text is None:
                continue
            people = said[text_key(text), normalise(str(value["value"]))]
            people.add(author or "")
            if any_edit or author in experts or len(people) > 1:
                found.add(text_key(text))
    return found
