"""What the parts of the filled demo share: its people, its texts and their right answers, its dice.

Nothing here writes. All that is drawn depends on the seed alone, so two demos look the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tutelage.core.artifact import utc_now
from tutelage.core.errors import EnvironmentProblem
from tutelage.core.example import SPLITS
from tutelage.core.output import OutputFormat
from tutelage.data.version import load_version
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_answer import known_labels
from tutelage.workflows.demo.demo import CHAPTERS, demo_rows
from tutelage.workflows.outputs import require_output

PEOPLE = ("anna", "ben", "chloe")
RIGHT = {"anna": 0.98, "ben": 0.92, "chloe": 0.82}  # share of right labels
EARLIER = "If nothing fits, answer with the nearest class and never with free text."
RULE = "A cause that is named outranks the organ: an injury of the eye is an injury."
LOCAL = "local"  # who the page's visitor is where there are no accounts


@dataclass
class Cast:
    """The project and what is made up about it. `truth` holds the right label of each text."""

    ctx: Context
    now: datetime
    truth: dict[str, str]
    fresh: list[str]  # texts that are in no split of the dataset, for traffic
    labels: list[str]
    output: OutputFormat
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    def ago(self, **length: float) -> datetime:
        """Return a moment so long before now."""
        return self.now - timedelta(**length)

    def wrong(self, label: str) -> str:
        """Return another label; each label is mostly mixed up with the one beside it."""
        others = [one for one in self.labels if one != label]
        if not others:
            return label
        near = self.labels.index(label) if label in self.labels else 0
        return others[near % len(others)] if self.dice.random() < 0.7 else self.dice.choice(others)

    def said(self, text: str, right: float) -> str:
        """Return a label for `text` that is the right one in `right` of the cases."""
        label = self.truth.get(text) or self.dice.choice(self.labels)
        return label if self.dice.random() < right else self.wrong(label)

    def answer(self, text: str, right: float) -> str:
        """Return the same as a model would write it."""
        return self.output.render(self.said(text, right))


def cast(ctx: Context) -> Cast:
    """Return the cast for a project that has a dataset of labels."""
    version = load_version(ctx.path_of(require_output(ctx, "curate")))
    truth = {
        row.input_text: row.label or row.answer or ""
        for split in SPLITS
        for row in version.rows(split)
    }
    labels = known_labels(ctx)
    fresh = _fresh(labels, truth)
    truth |= fresh
    return Cast(ctx, utc_now(), truth, list(fresh), labels, ctx.config.output.format())


def _fresh(labels: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """Return more texts of the same kind; where none are to be had, the known ones once more."""
    if set(labels) == set(CHAPTERS):
        try:
            rows = demo_rows(per_chapter=40, seed=11)
        except EnvironmentProblem:
            rows = []
        found = {text: label for text, label in rows if text not in known}
        if found:
            return found
    return {f"{text} (again)": label for text, label in known.items()}
