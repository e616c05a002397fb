"""A project's desks: what belongs together behind one name, made when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.workflows.loop_desks import LoopDesks

if TYPE_CHECKING:
    from tutelage.workflows.data.desk import DataDesk, ExpertsDesk, QualityDesk, VersionsDesk
    from tutelage.workflows.evaluation.human_desk import HumanDesk
    from tutelage.workflows.evaluation.judge_desk import JudgeDesk
    from tutelage.workflows.improve.improve_desk import ImproveDesk
    from tutelage.workflows.release.prompt_desk import PromptsDesk
    from tutelage.workflows.release.release_desk import ReleasesDesk
    from tutelage.workflows.training.training_desk import TrainingDesk


class Desks(LoopDesks):
    """One property a family of commands; those of serving and of the loop are inherited."""

    @property
    def data(self) -> DataDesk:
        """Files in and out, checks and repairs, duplicates, identifiers."""
        from tutelage.workflows.data.desk import DataDesk

        return DataDesk(self.context)

    @property
    def versions(self) -> VersionsDesk:
        """The dataset versions there are, and what changed between them."""
        from tutelage.workflows.data.desk import VersionsDesk

        return VersionsDesk(self.context)

    @property
    def experts(self) -> ExpertsDesk:
        """Who labels what, what they said, and how far they agree."""
        from tutelage.workflows.data.desk import ExpertsDesk

        return ExpertsDesk(self.context)

    @property
    def quality(self) -> QualityDesk:
        """Which rows to doubt, to keep, to label next, and what more rows would bring."""
        from tutelage.workflows.data.desk import QualityDesk

        return QualityDesk(self.context)

    @property
    def training(self) -> TrainingDesk:
        """Plans, the search of settings, export, jobs at a service; `train` does the training."""
        from tutelage.workflows.outputs import require_output
        from tutelage.workflows.training.training_desk import TrainingDesk

        return TrainingDesk(self.context, require_output(self.context, "curate"))

    @property
    def human(self) -> HumanDesk:
        """Blind human evaluation: studies, sheets out and in, judgements, results."""
        from tutelage.workflows.evaluation.human_desk import HumanDesk

        return HumanDesk(self.context)

    @property
    def prompts(self) -> PromptsDesk:
        """Versions of the prompt: draft, test, review, publish, restore, compare."""
        from tutelage.workflows.release.prompt_desk import PromptsDesk

        return PromptsDesk(self.context)

    @property
    def releases(self) -> ReleasesDesk:
        """Releases: what they are made of, their checks, imports, and who answers."""
        from tutelage.workflows.release.release_desk import ReleasesDesk

        return ReleasesDesk(self.context)

    @property
    def judge(self) -> JudgeDesk:
        """Models that mark answers, and how far experts agree with them."""
        from tutelage.workflows.evaluation.judge_desk import JudgeDesk

        return JudgeDesk(self.context)

    @property
    def loop(self) -> ImproveDesk:
        """Turns of the loop: begin, go on, decide, cancel; when it turns by itself."""
        from tutelage.workflows.improve.improve_desk import ImproveDesk

        return ImproveDesk(self.context)
