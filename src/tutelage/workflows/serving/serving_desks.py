"""The desks of what serves: rollouts, deployments, keys, use, checks and what was watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.workflows.feedback.drift_desk import DriftDesk
    from tutelage.workflows.feedback.forget import PrivacyDesk
    from tutelage.workflows.feedback.live_desk import LiveDesk
    from tutelage.workflows.feedback.logs_desk import LogsDesk
    from tutelage.workflows.feedback.mine_desk import MiningDesk
    from tutelage.workflows.release.deploy import DeploymentsDesk
    from tutelage.workflows.release.rollout_desk import RolloutsDesk
    from tutelage.workflows.serving.guards_desk import GuardsDesk
    from tutelage.workflows.serving.keys import KeysDesk
    from tutelage.workflows.serving.monitor_desk import MonitorDesk
    from tutelage.workflows.serving.usage import UsageDesk


class ServingDesks:
    """One property a family of commands."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def rollouts(self) -> RolloutsDesk:
        """Moving traffic to a release: start, watch, pause, end."""
        from tutelage.workflows.release.rollout_desk import RolloutsDesk

        return RolloutsDesk(self.context)

    @property
    def monitor(self) -> MonitorDesk:
        """What happened to what is served, what fires, and who was told."""
        from tutelage.workflows.serving.monitor_desk import MonitorDesk

        return MonitorDesk(self.context)

    @property
    def deployments(self) -> DeploymentsDesk:
        """The names that clients call, the servers behind them, and what is kept alive."""
        from tutelage.workflows.release.deploy import DeploymentsDesk

        return DeploymentsDesk(self.context)

    @property
    def keys(self) -> KeysDesk:
        """API keys: who may call the gateway, what, how fast and how much."""
        from tutelage.workflows.serving.keys import KeysDesk

        return KeysDesk(self.context)

    @property
    def usage(self) -> UsageDesk:
        """Tokens and cost by release, key, deployment and day; what is left of budgets."""
        from tutelage.workflows.serving.usage import UsageDesk

        return UsageDesk(self.context)

    @property
    def guards(self) -> GuardsDesk:
        """Checks of live traffic: what is in force, trials on a file, what they said."""
        from tutelage.workflows.serving.guards_desk import GuardsDesk

        return GuardsDesk(self.context)

    @property
    def live(self) -> LiveDesk:
        """Scores of served answers: what they say of each release, and the worst of them."""
        from tutelage.workflows.feedback.live_desk import LiveDesk

        return LiveDesk(self.context)

    @property
    def privacy(self) -> PrivacyDesk:
        """What is held of a user, forgetting them, and who was forgotten."""
        from tutelage.workflows.feedback.forget import PrivacyDesk

        return PrivacyDesk(self.context)

    @property
    def mining(self) -> MiningDesk:
        """What production says is worth a label, and corrections that spread."""
        from tutelage.workflows.feedback.mine_desk import MiningDesk

        return MiningDesk(self.context)

    @property
    def logs(self) -> LogsDesk:
        """Records of production: logs of other tools in, records out, what comes in now."""
        from tutelage.workflows.feedback.logs_desk import LogsDesk

        return LogsDesk(self.context)

    @property
    def drift(self) -> DriftDesk:
        """Whether requests, answers and verdicts still are what they were."""
        from tutelage.workflows.feedback.drift_desk import DriftDesk

        return DriftDesk(self.context)
