"""What a judge is asked of an answer: criteria with described levels, a project's own or built in.

It asks nobody. A criterion's hash is what trust and cached verdicts hang on: change its words and
the judge must be measured again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tutelage.core.artifact import content_hash
from tutelage.core.config import Project
from tutelage.core.config_judge import JudgeSettings

Mode = Literal["pointwise", "pairwise"]
PROMPT_VERSION = 1  # of judges/questions.py's wording: a verdict holds for one version
OVERALL = "judge"  # the metric that is the mean over the criteria
PREFERENCE = "preference"  # the one criterion of a pairwise comparison


@dataclass(frozen=True)
class Criterion:
    """One question, answered by naming a level; `levels` are worst first."""

    name: str
    question: str
    levels: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The name of its scores."""
        return f"{OVERALL}_{self.name}"

    def value(self, level: float) -> float:
        """Return a level's number (from 1) as 0..1; a mean of levels may lie between two."""
        return (level - 1) / (len(self.levels) - 1)


@dataclass(frozen=True)
class Rubric:
    """The criteria of a project, and how they are asked."""

    mode: Mode
    criteria: tuple[Criterion, ...]
    reference: bool  # the judge sees the reference answer
    task: str  # the instructions that the answers were written under

    def digest(self, name: str) -> str:
        """Return the hash (64 hex digits) of the criterion `name` as it is asked.

        A comparison is one question over all criteria, so it hangs on all of them. The project's
        prompt is no part of it: a verdict's key holds that, trust survives a new prompt.
        """
        asked = self.criteria if self.mode == "pairwise" else (self.named(name),)
        return content_hash(
            {
                "version": PROMPT_VERSION,
                "mode": self.mode,
                "criteria": [[c.name, c.question, c.levels] for c in asked],
                "reference": self.reference,
            }
        )

    def named(self, name: str) -> Criterion:
        """Return the criterion of that name; KeyError if there is none."""
        return next(c for c in self.criteria if c.name == name)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names that verdicts are given under."""
        return (PREFERENCE,) if self.mode == "pairwise" else tuple(c.name for c in self.criteria)


def settings_of(project: Project) -> JudgeSettings:
    """Return the section evaluate.judge, or its defaults."""
    return project.evaluate.judge or JudgeSettings()


def make_rubric(project: Project, mode: Mode | None = None) -> Rubric:
    """Return the project's rubric, or the one that is built in for its task."""
    settings = settings_of(project)
    own = tuple(Criterion(c.name, c.question, tuple(c.levels)) for c in settings.rubric)
    return Rubric(
        mode or settings.mode,
        own or built_in(project.task),
        settings.reference,
        project.prompt.strip(),
    )


@cache
def built_in(task: str) -> tuple[Criterion, ...]:
    """Return the built-in criteria for a task."""
    import yaml

    text = (Path(__file__).parent / "rubrics.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    return tuple(Criterion(c["name"], c["question"], tuple(c["levels"])) for c in found[task])


def metric_names(rubric: Rubric, against: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the names of all scores that a rubric gives, the overall one first."""
    if rubric.mode == "pairwise":
        return tuple(versus(other) for other in against)
    return (OVERALL, *(c.metric for c in rubric.criteria))


def versus(other: str) -> str:
    """Return the metric of comparisons with a candidate: 1 won, 0.5 tied, 0 lost."""
    return f"{OVERALL}_vs_{other}"
