"""Settings that say nothing about the method they stand beside: told, never silently ignored."""

from __future__ import annotations

from collections.abc import Callable

from tutelage.core.config import Train
from tutelage.core.errors import ConfigError
from tutelage.training.planner_rules import OBJECTIVES, SPREAD, Situation

_ADAPTER = ("rank", "alpha", "dropout")  # sizes of an adapter, where it has them
_MEANT_FOR: dict[str, tuple[str, ...]] = {
    "class_weights": ("classify", "cloze"),
    "cloze": ("cloze",),
    "beta": ("dpo", "kto"),
    "preference_loss": ("dpo",),
    "label_smoothing": ("dpo",),
    "sft_weight": ("dpo",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
}


def check_tune(situation: Situation, overrides: Train) -> None:
    """Raise ConfigError for a `tune` beside a method that says itself what is trained."""
    method, tune = situation.method, overrides.tune
    if tune is None or method in OBJECTIVES or tune.lower() == method.lower():
        return
    raise ConfigError(
        f"train.tune {tune!r} can't stand beside the method {method!r}, which says itself what is "
        "trained",
        where="train.tune",
        fix=f"Set train.method: {tune}, or leave train.tune unset; it is for "
        f"{', '.join(OBJECTIVES)}",
    )


def idle(situation: Situation, overrides: Train) -> list[str]:
    """Return a sentence for each of the user's settings that this run does not use."""
    method, strategy = situation.method, situation.chosen["strategy"]
    found = [
        f"train.{name} is not used: it is for {' and '.join(methods)}, not {method}"
        for name, methods in _MEANT_FOR.items()
        if getattr(overrides, name) is not None and method not in methods
    ]
    if overrides.prompt_loss_weight and method in OBJECTIVES:
        found.append(f"train.prompt_loss_weight is not used: {method} has no loss on prompts")
    if overrides.offload and strategy not in SPREAD:
        found.append("train.offload is not used: it is for train.strategy " + ", ".join(SPREAD))
    takes = _sizes(str(situation.chosen["tune"]))
    given = [name for name in _ADAPTER if getattr(overrides, name) is not None]
    found += [
        f"train.{name} is not used: {situation.chosen['tune']} has none"
        for name in given
        if not takes(name)
    ]
    return found


def _sizes(tune: str) -> Callable[[str], bool]:
    """Return whether what is tuned has a size of that name."""
    if tune == "full":
        return lambda name: False
    from tutelage.training.adapter_config import is_peft_name, sizes

    if not is_peft_name(tune):
        return lambda name: True  # a tuning of ours, a LoRA
    return sizes(tune).__contains__
