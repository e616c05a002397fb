"""The desks of the loop: what users said, how releases do and compare, what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.workflows.serving.serving_desks import ServingDesks

if TYPE_CHECKING:
    from tutelage.workflows.feedback.ab import AbDesk
    from tutelage.workflows.feedback.dashboard import DashboardDesk
    from tutelage.workflows.feedback.feedback_desk import FeedbackDesk


class LoopDesks(ServingDesks):
    """One property a family of commands; those of serving are inherited."""

    @property
    def feedback(self) -> FeedbackDesk:
        """What users said and did, by record, and which records may be trained on."""
        from tutelage.workflows.feedback.feedback_desk import FeedbackDesk

        return FeedbackDesk(self.context)

    @property
    def ab(self) -> AbDesk:
        """A/B tests: which of two releases users are better off with."""
        from tutelage.workflows.feedback.ab import AbDesk

        return AbDesk(self.context)

    @property
    def dashboard(self) -> DashboardDesk:
        """Quality, latency, cost and feedback over time, release by release."""
        from tutelage.workflows.feedback.dashboard import DashboardDesk

        return DashboardDesk(self.context)
