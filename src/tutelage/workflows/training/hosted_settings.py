"""What the settings say of tuning at a service, and which of them a service has no use for."""

from __future__ import annotations

from tutelage.core.config import Hosted
from tutelage.core.errors import ConfigError
from tutelage.core.events import Event
from tutelage.training.hosted.base import STAGE
from tutelage.workflows.context import Context

_TOLD = {"method", "seed", "tracker", "force", "hour_price"}  # of train, harmless beside a service


def hosted_settings(ctx: Context) -> Hosted:
    """Return the hosted section; raise ConfigError if there is none."""
    if ctx.config.hosted is None:
        raise ConfigError(
            "there is no hosted section, so no service is named",
            where=str(ctx.workspace.config_path),
            fix="Add one, such as `hosted: {model: gpt-4.1-mini-2025-04-14}`",
        )
    return ctx.config.hosted


def tell_unused(ctx: Context) -> None:
    """Say which settings of `train` a service has no use for; raise ConfigError for stages."""
    train = ctx.config.train
    if train.before:
        raise ConfigError(
            "a service trains no stages", where="train.before", fix="Remove it, or train here"
        )
    unused = [f"train.{name}" for name in sorted(train.model_fields_set - _TOLD)]
    if unused:
        text = (
            f"the service is not told {', '.join(unused)}: it takes hosted.epochs, "
            "hosted.batch_size and hosted.learning_rate_multiplier"
        )
        ctx.emit(Event(STAGE, "warning", text))
