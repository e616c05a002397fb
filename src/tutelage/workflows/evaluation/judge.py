"""Judges at work on an evaluation's answers: asking, scoring, and measuring them against experts.

The answers are those an evaluation kept; no model of the project is loaded. Scores join the one
score table with the source "judge".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import delete

from tutelage.core.artifact import content_hash
from tutelage.core.config import Endpoint
from tutelage.core.config_judge import JudgeSettings
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.example import Example
from tutelage.evaluation.candidates import TUNED
from tutelage.evaluation.judges import duels, marks
from tutelage.evaluation.judges.asker import Asker, Judge, Limits, Verdicts
from tutelage.evaluation.judges.questions import Question
from tutelage.evaluation.judges.rubric import Mode, Rubric, make_rubric, settings_of, versus
from tutelage.evaluation.judges.trust import judge_id
from tutelage.inference.base import Decoding, Generator
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.human_rows import Evaluated, evaluated

Texts = dict[str, dict[str, str]]  # candidate → example id → answer


@dataclass(frozen=True)
class Wishes:
    """What one call asks for beyond the settings; None: as evaluate.judge says."""

    mode: Mode | None = None
    against: tuple[str, ...] | None = None
    rows: int | None = None
    tokens: int | None = None
    money: float | None = None
    evaluation: str | None = None  # start of its hash; None: the newest


AS_SET = Wishes()


@dataclass(frozen=True)
class Case:
    """Everything a judge needs: the rubric, the rows, and whose answers are judged."""

    settings: JudgeSettings
    rubric: Rubric
    judges: tuple[Judge, ...]
    rows: tuple[Example, ...]
    texts: Texts  # pointwise: those that are marked; pairwise: tuned and the others
    clusters: Mapping[str, str]

    @property
    def others(self) -> Texts:
        """Pairwise: whom the tuned model's answers are held against."""
        return {name: given for name, given in self.texts.items() if name != TUNED}

    def questions(self) -> list[Question]:
        """Return all there is to ask."""
        if self.rubric.mode == "pairwise":
            return duels.questions(self.rubric, self.rows, self.texts[TUNED], self.others)
        return marks.questions(self.rubric, self.rows, self.texts)

    def scores(self, verdicts: Verdicts) -> marks.Table:
        """Return what the verdicts come to, by candidate, metric and example id."""
        if self.rubric.mode == "pointwise":
            how = self.settings.panel
            return marks.scores(self.rubric, self.rows, self.texts, verdicts, self.judges, how)
        ours = self.texts[TUNED]
        found = {
            versus(name): duels.scores(
                self.rubric, self.rows, (ours, theirs), verdicts, self.judges
            )
            for name, theirs in self.others.items()
        }
        return {TUNED: found}

    def asker(self, ctx: Context) -> Asker:
        """Return who asks, within the settings' limits."""
        s = self.settings
        decoding = Decoding(temperature=s.temperature, max_tokens=s.answer_tokens)
        limits = Limits(decoding, s.concurrency, s.tokens, s.money)
        return Asker(ctx.store, self.judges, limits, ctx.emit)


def make_case(
    ctx: Context,
    rows: Sequence[Example],
    texts: Mapping[str, Mapping[str, str]],
    clusters: Mapping[str, str],
    wishes: Wishes = AS_SET,
) -> Case:
    """Return what is judged of these rows and answers.

    Raises ConfigError without a judge, DataError if no answer is there to judge.
    """
    settings = _settings(ctx, wishes)
    rubric = make_rubric(ctx.config, wishes.mode)
    names = settings.candidates
    if rubric.mode == "pairwise":
        names = [TUNED, *settings.against]
    chosen = {name: dict(texts[name]) for name in dict.fromkeys(names) if name in texts}
    least = 2 if rubric.mode == "pairwise" else 1
    if len(chosen) < least or (rubric.mode == "pairwise" and TUNED not in chosen):
        raise DataError(
            f"the evaluation has no answers of {' and '.join(names)}",
            fix=f"It has: {', '.join(texts) or 'none'}; name others in evaluate.judge",
        )
    drawn = sorted(rows, key=lambda row: content_hash(["judged", row.id]))[: settings.rows]
    judges = make_judges(ctx, settings)
    return Case(settings, rubric, judges, tuple(drawn), chosen, clusters)


def _settings(ctx: Context, wishes: Wishes) -> JudgeSettings:
    settings = settings_of(ctx.config)
    given = {
        "against": list(wishes.against) if wishes.against else None,
        "rows": wishes.rows, "tokens": wishes.tokens, "money": wishes.money,
    }  # fmt: skip
    return settings.model_copy(update={k: v for k, v in given.items() if v is not None})


def make_judges(ctx: Context, settings: JudgeSettings) -> tuple[Judge, ...]:
    """Return the judges that tutelage.yaml names.

    Raises ConfigError if it names none, or a budget in money lacks a price.
    """
    found = ctx.config.judge
    if not found:
        raise ConfigError(
            "tutelage.yaml names no judge",
            where=str(ctx.workspace.config_path),
            fix="Add `judge: {base_url: …, model: …, api_key_env: …}`; any OpenAI-compatible "
            "server will do",
        )
    names = [endpoint.model for endpoint in found]
    judges = []
    for endpoint in found:
        known = judge_id(endpoint.model, endpoint.base_url)
        name = endpoint.model if names.count(endpoint.model) == 1 else known
        prices = _prices(ctx, endpoint)
        if settings.money is not None and prices is None:
            raise ConfigError(
                f"evaluate.judge.money is set, but there is no price of {endpoint.model!r}",
                where=str(ctx.workspace.config_path),
                fix=f"Add `prices: {{tokens: {{{endpoint.model}: {{prompt: …, completion: …}}}}}}` "
                "or set tokens instead",
            )
        judges.append(Judge(name, known, partial(_open, endpoint, settings), prices))
    return tuple({judge.id: judge for judge in judges}.values())


def _open(endpoint: Endpoint, settings: JudgeSettings) -> Generator:
    from tutelage.inference.openai import OpenAIGenerator

    return OpenAIGenerator(
        endpoint.base_url, endpoint.model, endpoint.api_key_env, concurrency=settings.concurrency
    )


def _prices(ctx: Context, endpoint: Endpoint) -> tuple[float, float] | None:
    """Return what a token sent and a token written cost, or None where it is not known."""
    price = ctx.config.prices.tokens.get(endpoint.model)
    return (price.prompt / 1e6, price.completion / 1e6) if price else None


def open_case(ctx: Context, wishes: Wishes = AS_SET) -> tuple[Evaluated, Case]:
    """Return an evaluation and what is judged of it."""
    source = evaluated(ctx, wishes.evaluation)
    case = make_case(ctx, list(source.rows.values()), source.texts, source.clusters, wishes)
    return source, case


def judge(ctx: Context, wishes: Wishes = AS_SET) -> dict[str, Any]:
    """Score an evaluation's answers; return the document that `show` gives.

    What was judged before is not asked again. Raises ModelError if a judge does not answer.
    """
    from tutelage.workflows.evaluation.judge_report import document

    source, case = open_case(ctx, wishes)
    verdicts = case.asker(ctx).ask(case.questions())
    table = case.scores(verdicts)
    keep_scores(ctx, source.artifact.hash, table)
    return document(ctx, source.artifact, case, table, verdicts)


def show(ctx: Context, wishes: Wishes = AS_SET) -> dict[str, Any]:
    """Return what the judges said so far of an evaluation's answers; nobody is asked."""
    from tutelage.workflows.evaluation.judge_report import document

    source, case = open_case(ctx, wishes)
    verdicts = case.asker(ctx).recall(case.questions())
    return document(ctx, source.artifact, case, case.scores(verdicts), verdicts)


def keep_scores(ctx: Context, evaluation: str, table: marks.Table) -> None:
    """Bring the evaluation's score rows of these metrics to what the judges say now."""
    with ctx.store.begin() as session:
        for candidate, metrics in table.items():
            session.execute(
                delete(ScoreRow).where(
                    ScoreRow.evaluation == evaluation,
                    ScoreRow.candidate == candidate,
                    ScoreRow.source == marks.SOURCE,
                    ScoreRow.metric.in_(list(metrics)),
                )
            )
            session.add_all(
                ScoreRow(
                    evaluation=evaluation, item=item, candidate=candidate, metric=metric,
                    value=score.value, evidence=score.evidence, source=marks.SOURCE,
                )
                for metric, given in metrics.items()
                for item, score in given.items()
            )  # fmt: skip


def rubric_yaml(ctx: Context, mode: Mode | None = None) -> str:
    """Return the rubric as YAML: for evaluate.judge.rubric, and for `tutelage human new`."""
    import yaml

    rubric = make_rubric(ctx.config, mode)
    entries = [
        {"name": c.name, "question": c.question, "levels": list(c.levels)} for c in rubric.criteria
    ]
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=100)


def text_digest(text: str) -> str:
    """Return the name of an answer, by which what experts said of it is found again."""
    return content_hash(text)[:16]
