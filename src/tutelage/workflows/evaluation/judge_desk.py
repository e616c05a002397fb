"""Judges from Python: what `tutelage judge` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.evaluation.judges.rubric import Mode
from tutelage.workflows.context import Context


class JudgeDesk:
    """`project.judge`: models that mark answers, and how far experts agree with them.

    What is left out is as evaluate.judge says. `evaluation` is the start of an evaluation's hash,
    the newest by default; `against` names whom tuned is compared with, `rows` limits the rows.
    """

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def run(
        self,
        *,
        mode: Mode | None = None,
        against: Sequence[str] = (),
        rows: int | None = None,
        tokens: int | None = None,
        money: float | None = None,
        evaluation: str | None = None,
    ) -> dict[str, Any]:
        """Have an evaluation's answers judged; what was judged before is not asked again.

        `tokens` and `money` are budgets of all its verdicts. Raises ConfigError without a judge,
        ModelError if it does not answer.
        """
        from tutelage.workflows.evaluation.judge import Wishes, judge

        names = tuple(against) or None
        return judge(self._ctx, Wishes(mode, names, rows, tokens, money, evaluation))

    def agreement(
        self,
        file: str | Path | None = None,
        *,
        mode: Mode | None = None,
        evaluation: str | None = None,
    ) -> dict[str, Any]:
        """Measure the judges against experts: a file of verdicts, or the studies of people."""
        from tutelage.workflows.evaluation.judge import Wishes
        from tutelage.workflows.evaluation.judge_agreement import agreement

        path = Path(file) if file is not None else None
        return agreement(self._ctx, path, Wishes(mode, evaluation=evaluation))

    def show(
        self,
        *,
        mode: Mode | None = None,
        against: Sequence[str] = (),
        rows: int | None = None,
        evaluation: str | None = None,
    ) -> dict[str, Any]:
        """Return what the judges said so far, and whether they may gate; nobody is asked."""
        from tutelage.workflows.evaluation.judge import Wishes, show

        names = tuple(against) or None
        return show(self._ctx, Wishes(mode, names, rows, evaluation=evaluation))

    def rubric(self, mode: Mode | None = None) -> str:
        """Return the criteria that the judges are asked, as YAML."""
        from tutelage.workflows.evaluation.judge import rubric_yaml

        return rubric_yaml(self._ctx, mode)
