"""Which hooks a project's gateway runs, in the order in which they are asked."""

from __future__ import annotations

from tutelage.feedback.privacy.late import Forgetting
from tutelage.serving.access.budgets import Budgets
from tutelage.serving.access.limits import RateLimits
from tutelage.serving.hooks import Hook
from tutelage.serving.mirror import Mirror
from tutelage.serving.records.retention import Retention
from tutelage.serving.state import GatewayState
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.live_evaluation import live_hooks
from tutelage.workflows.improve.schedule import schedule_hooks
from tutelage.workflows.serving.guards import drift_monitor
from tutelage.workflows.serving.looks import looks
from tutelage.workflows.serving.serve_engine import keep_alive
from tutelage.workflows.serving.serve_monitor import monitor_hooks


def hooks(ctx: Context, state: GatewayState) -> tuple[Hook, ...]:
    """Return the hooks this project asks for. Those that refuse come before those that copy."""
    found: list[Hook] = [RateLimits(state), Budgets(state), Retention(state)]
    found += monitor_hooks(ctx, state)
    found += drift_monitor(ctx, state)
    found += looks(ctx)
    found += live_hooks(ctx, state)
    found.append(keep_alive(ctx, state))
    found += schedule_hooks(ctx, state.events)
    found.append(Forgetting(state))
    found.append(Mirror(state))
    return tuple(found)
