"""Judges from Python: what `tutelage judge` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.evaluation.judges.rubric import Mode
from tutelage.workflows.context import Context
from tutelage.workflows.judge import AS_SET, Wishes


class JudgeDesk:
    """`project.judge`: models that mark answers, and how far experts agree with them."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def run(self, wishes: Wishes = AS_SET) -> dict[str, Any]:
        """Have the newest evaluation's answers judged; what was judged before is not asked again.

        Raises ConfigError without a judge, ModelError if it does not answer.
        """
        from tutelage.workflows.judge import judge

        return judge(self._ctx, wishes)

    def agreement(self, file: Path | None = None, wishes: Wishes = AS_SET) -> dict[str, Any]:
        """Measure the judges against experts: a file of verdicts, or the studies of people."""
        from tutelage.workflows.judge_agreement import agreement

        return agreement(self._ctx, file, wishes)

    def show(self, wishes: Wishes = AS_SET) -> dict[str, Any]:
        """Return what the judges said so far, and whether they may gate; nobody is asked."""
        from tutelage.workflows.judge import show

        return show(self._ctx, wishes)

    def rubric(self, mode: Mode | None = None) -> str:
        """Return the criteria that the judges are asked, as YAML."""
        from tutelage.workflows.judge import rubric_yaml

        return rubric_yaml(self._ctx, mode)
