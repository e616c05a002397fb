"""What an answer is checked for without a reference: format, refusal, insults, leaks, scorers.

A check gives 1 where it holds and 0 where it does not; the rules are those of the gateway's guards
(serving/guards), whatever deploy.guards has turned off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.core.config import Project
from tutelage.core.config_guards import AnswerChecks, ContentLayer, RequestChecks, SchemaLayer
from tutelage.core.config_live import LiveEvaluation
from tutelage.core.errors import ConfigError
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.asked import Asked
from tutelage.evaluation.scorers.base import Place, Score, Scorer, make_scorer
from tutelage.feedback.live.answers import Answered
from tutelage.release.bundle import ReleaseManifest, manifest_of
from tutelage.serving.guards.base import GuardContext
from tutelage.serving.guards.content import ContentGuard
from tutelage.serving.guards.schema import SchemaGuard
from tutelage.store.releases import ReleaseRow

# The metric each check of the content guard counts for.
_CONTENT = {
    "empty": "format",
    "control": "format",
    "template": "format",
    "cut": "format",
    "refusal": "no_refusal",
    "toxicity": "no_toxicity",
    "secrets": "no_leak",
    "pii": "no_leak",
}
_TOO_LONG = "length"  # the guard's word for a text it can't read whole
_PROBE = Example(messages=(Message(role="user", content="one"),))
_SILENT = dict.fromkeys(RequestChecks.model_fields, "off")


class ReleaseChecks:
    """The rules that one release's answers are held against."""

    def __init__(
        self, manifest: ReleaseManifest, project: Project, scorers: Mapping[str, Scorer]
    ) -> None:
        settings = project.live_evaluation or LiveEvaluation()
        output = OutputFormat(manifest.output.field, manifest.output.labels)
        context = GuardContext(
            output, manifest.output.json_schema, manifest.specials, manifest.prompt
        )
        self.metrics = metrics_of(settings, labels=bool(output.labels))
        self._scorers = scorers
        self._redacted = project.deploy.redact
        self._shape = SchemaGuard(_with(context, SchemaLayer()))
        layer = _content_layer(project.deploy.guards.content, self.metrics)
        self._content = ContentGuard(_with(context, layer))

    def scores(self, answered: Answered) -> dict[str, Score]:
        """Return a score a metric, each with why it is not 1."""
        found = self._checked(answered)
        for name, scorer in self._scorers.items():
            found[name] = scorer.score(answered.row, answered.text)
        return found

    def _checked(self, answered: Answered) -> dict[str, Score]:
        wrong = dict[str, str]()
        unread = ""
        turns = answered.row.messages
        said = self._content.check_response(answered.text, answered.finish_reason, turns)
        for objection in said:
            if objection.check == _TOO_LONG:
                unread = objection.why
            else:
                wrong.setdefault(_CONTENT[objection.check], objection.why)
        shape = self._shape.check_response(answered.text, answered.finish_reason, turns)
        if shape is not None:
            wrong.setdefault("format", shape)
        wrong |= _noted(answered.noted)
        return {name: self._score(name, wrong.get(name), unread) for name in self.metrics}

    def _score(self, name: str, why: str | None, unread: str) -> Score:
        if why is not None:
            return Score(0.0, {"source": "rule", "why": why})
        if unread and name in ("no_toxicity", "no_leak"):
            return Score(None, {"source": "rule", "why": unread})
        if name == "no_leak" and self._redacted:
            return Score(None, {"source": "rule", "why": "the log is redacted"})
        return Score(1.0, {"source": "rule"})


def metrics_of(settings: LiveEvaluation, *, labels: bool) -> tuple[str, ...]:
    """Return the checks that make sense: a closed list of labels has no room for a refusal."""
    return tuple(name for name in settings.checks if not (labels and name == "no_refusal"))


def own_scorers(project: Project, root: Path) -> dict[str, Scorer]:
    """Return the scorers of `live_evaluation.scorers` by the name of their metric.

    Raises ConfigError for an unknown one, a wrong option, and one that needs a reference answer.
    """
    settings = project.live_evaluation or LiveEvaluation()
    made: dict[str, Scorer] = {}
    for number, given in enumerate(settings.scorers, start=1):
        values = {"name": given} if isinstance(given, str) else dict(given)
        plugin = str(values.pop("name"))
        name = str(values.pop("as", plugin))
        entry = Asked(plugin, values, f"live_evaluation.scorers, entry {number}")
        output, schema = project.output.format(), project.output.json_schema
        place = Place(output, schema, root=root, where=entry.where)
        scorer = make_scorer(plugin, options=entry.options, place=place)
        _require_plain(plugin, scorer, entry.where)
        made[name] = scorer
    return made


def _require_plain(plugin: str, scorer: Scorer, where: str) -> None:
    """Raise ConfigError for a scorer that needs more than an answer; your own code is not run."""
    if plugin == "function":
        return
    found = scorer.score(_PROBE, "one")
    if found.value is None:
        raise ConfigError(
            f"the scorer {plugin!r} can't score an answer alone ({found.evidence.get('why', '')})",
            where=where,
            fix="Use one that needs no more than the answer, such as regex, length or json_valid",
        )


def checks_of(
    project: Project, scorers: Mapping[str, Scorer]
) -> Callable[[ReleaseRow], ReleaseChecks]:
    """Return what gives the checks of a release, built once each."""
    built: dict[str, ReleaseChecks] = {}

    def of(row: ReleaseRow) -> ReleaseChecks:
        if row.id not in built:
            built[row.id] = ReleaseChecks(manifest_of(row), project, scorers)
        return built[row.id]

    return of


def _with(context: GuardContext, options: Any) -> GuardContext:
    return GuardContext(
        context.output, context.json_schema, context.specials, context.prompt, options=options
    )


def _content_layer(asked: ContentLayer, metrics: Sequence[str]) -> ContentLayer:
    """Return the project's content layer with the checks of `metrics` on, and no other."""
    answer = {check: "flag" if _CONTENT[check] in metrics else "off" for check in _CONTENT}
    return asked.model_copy(
        update={
            "action": "flag",
            "request": RequestChecks.model_validate(_SILENT),
            "answer": AnswerChecks.model_validate(answer),
        }
    )


def _noted(notes: Mapping[str, Any]) -> dict[str, str]:
    """Return what the gateway's content guard saw in the answer as the client got it."""
    note = notes.get("content") or {}
    return {
        _CONTENT[check]: str(note.get("why", ""))
        for check in note.get("checks") or ()
        if check in _CONTENT and not note.get("ok", True)
    }
