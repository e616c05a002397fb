"""Which weights change, by name: one file a family, and every adapter of PEFT by its own name.

`tuning_of(recipe)` serves methods that may train either (cpt, cloze, dpo, …): recipe.tune says
what. Methods that are named after a tuning give that one.
"""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import ConfigError, did_you_mean
from tutelage.training.methods.base import Tuning
from tutelage.training.planner_rules import SPREAD
from tutelage.training.recipe import INTERPOLATED, Recipe

LORA_KINDS = ("lora", "rslora", "dora", "pissa", "lora_plus")
NAMES = (*LORA_KINDS, "qlora", "full")
ALIASES = {"loraplus": "lora_plus", "lora+": "lora_plus", "rs_lora": "rslora"}


def tuning(name: str, recipe: Recipe) -> Tuning:
    """Return the tuning `name`, ready for `recipe`; upper and lower case are the same.

    Raises ConfigError if there is none, or if the recipe asks for what it can't do.
    """
    name = canonical(name)
    _check(name, recipe)
    if name == "full":
        from tutelage.training.tunings.full import FullTuning

        return FullTuning(recipe.precision)
    if name == "qlora":
        from tutelage.training.tunings.qlora import QloraTuning

        return QloraTuning()
    if name in LORA_KINDS:
        from tutelage.training.tunings.lora import LoraTuning

        return LoraTuning(name)
    from tutelage.training.tunings.peft import PeftTuning

    return PeftTuning(name)


def tuning_of(recipe: Recipe) -> Tuning:
    """Return what `recipe.tune` names."""
    return tuning(recipe.tune, recipe)


def canonical(name: str) -> str:
    """Return the one spelling of a tuning's name. Raises ConfigError if there is no such one."""
    from tutelage.training.adapter_config import is_peft_name, peft_names, refuse

    plain = name.lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain in NAMES:
        return plain
    if is_peft_name(plain):
        refuse(plain)
        return plain
    known = sorted({*NAMES, *peft_names()})
    hint = did_you_mean(plain, known)
    raise ConfigError(
        f"{name!r} is nothing that can be tuned",
        where="train.tune",
        fix=f"{hint}Known: {', '.join(known)}",
    )


def load_options(recipe: Recipe) -> dict[str, Any]:
    """Return how the recipe's method wants its base loaded: keywords of load_model."""
    from tutelage.training.methods import resolve

    made = resolve(recipe.method).tuning(recipe)
    options: dict[str, Any] = getattr(made, "load_options", dict)()
    return options


def _shows_base(name: str, recipe: Recipe) -> bool:
    """Return whether the model is its base with the adapter switched off."""
    from tutelage.training.tunings.lora import MOVING

    moved = name == "pissa" or str(recipe.peft.get("init_lora_weights")).startswith(MOVING)
    return name != "full" and not moved and recipe.strategy not in SPREAD


def _check(name: str, recipe: Recipe) -> None:
    """Raise ConfigError for settings that would be ignored."""
    full = "set train.method: full (or train.tune: full)"
    wrong: list[tuple[bool, str, str]] = [
        (name != "full" and recipe.mixout > 0, "mixout", f"Remove it, or {full}"),
        (name != "full" and recipe.layer_decay < 1, "layer_decay", f"Remove it, or {full}"),
        (
            recipe.lora_plus > 1 and name not in (*LORA_KINDS, "qlora"),
            "lora_plus",
            "Remove it, or set train.method: lora_plus",
        ),
        (
            recipe.replay_loss == "base" and not _shows_base(name, recipe),
            "replay_loss: base",
            "Set it to text; it takes an adapter that can be switched off, whole in each process",
        ),
        (
            recipe.interpolate and name not in INTERPOLATED,
            "interpolate",
            f"Set it to false; it is made for {', '.join(INTERPOLATED)}",
        ),
        (name == "full" and bool(recipe.peft), "peft", "Remove it, or take an adapter"),
    ]
    for is_wrong, field, fix in wrong:
        if is_wrong:
            raise ConfigError(
                f"{field} has no meaning for {name!r}",
                where=f"train.{field.split(':')[0]}",
                fix=fix,
            )
