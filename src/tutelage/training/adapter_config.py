"""PEFT's configuration of an adapter, from its name and the recipe; nothing is attached here.

`train.rank`, `alpha`, `dropout` and `target_modules` go where the adapter has such a thing;
`train.peft` fills in the rest. Adapters that can't be trained, kept or served by this program are
refused with the way out.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import fields
from typing import Any

from tutelage.core.errors import ConfigError, did_you_mean
from tutelage.training.recipe import Recipe

_OURS = {  # PEFT's field -> ours; a field that our settings fill is not set twice
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "target_modules",
}
_FIXED = (
    "peft_type", "task_type", "auto_mapping", "inference_mode", "revision", "peft_version",
    "base_model_name_or_path",
)  # fmt: skip
# Their rank is not a low rank of the weights, or another default suits them: PEFT's stays.
_OWN_RANK = frozenset({"oft", "vera", "pvera", "randlora", "vblora", "tinylora", "unilora"})
_OWN_TARGETS = frozenset({"ia3", "ln_tuning", "beft"})
_PLAIN = re.compile(r"[\w.]+")  # a module's name, and no pattern
_PROMPTS = "it learns tokens in front of every prompt, which can't share prefixes with other rows"
_REFUSED = {
    "prompt_tuning": _PROMPTS,
    "multitask_prompt_tuning": _PROMPTS,
    "p_tuning": _PROMPTS,
    "prefix_tuning": _PROMPTS,
    "cartridge": _PROMPTS,
    "cpt": _PROMPTS,
    "adaption_prompt": "it learns tokens in front of every layer's attention",
    "shadow": "it wraps the whole forward pass, which shared prefixes and cached answers go around",
    "shira": "its weights are sparse, and a checkpoint holds whole tensors",
    "trainable_tokens": "it trains single tokens of the vocabulary, and no layer",
    "xlora": "it mixes adapters that are trained already",
    "poly": "it needs the number of the task with every row",
    "adalora": "it moves rank between layers as it trains, and a checkpoint does not carry that",
}
# Other starts need a pass over data, or a quantised base, before training.
_STARTS = ("gaussian", "orthogonal", "olora", "pissa")


def peft_names() -> list[str]:
    """Return the names of all adapters that PEFT knows and this program can train, sorted."""
    return sorted(name for name in _registry() if name not in _REFUSED)


def is_peft_name(name: str) -> bool:
    """Return whether PEFT has an adapter of that name, trainable here or not."""
    return name.lower() in _registry()


def refuse(name: str) -> None:
    """Raise ConfigError if PEFT's adapter `name` can't be used here, saying why."""
    if name in _REFUSED:
        raise ConfigError(
            f"the adapter {name!r} is not supported: {_REFUSED[name]}",
            where="train.method",
            fix="Take lora, dora or any of " + ", ".join(peft_names()),
        )


def sizes(name: str) -> set[str]:
    """Return which of rank, alpha and dropout PEFT's adapter `name` takes."""
    return set(_size_fields(name.lower(), _known(name.lower())))


def make_config(name: str, recipe: Recipe, **forced: Any) -> Any:
    """Return PEFT's configuration object of the adapter `name` (in lower case).

    `forced` are fields that the tuning itself decides. Raises ConfigError for a field of
    train.peft that the adapter lacks or that has its own setting, and for bad values.
    """
    refuse(name)
    kind, known = _registry()[name], _known(name)
    settings = {**_of_recipe(name, recipe, known), **forced}
    _check_fields(name, recipe.peft, known, forced)
    settings |= recipe.peft
    if name == "lora":
        _check_start(settings.get("init_lora_weights", True))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(task_type="CAUSAL_LM", **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"PEFT does not take these settings for {name!r} ({_line(error)})",
            where="train.peft",
            fix="Correct the field that is named",
        ) from error


def _of_recipe(name: str, recipe: Recipe, known: set[str]) -> dict[str, Any]:
    found = {field: getattr(recipe, size) for size, field in _size_fields(name, known).items()}
    targets: Any = recipe.target_modules
    if "target_modules" in known and not (name in _OWN_TARGETS and targets == "all-linear"):
        if isinstance(targets, str) and targets != "all-linear" and _PLAIN.fullmatch(targets):
            targets = [targets]  # PEFT takes a string for a pattern of the whole name
        found["target_modules"] = targets if isinstance(targets, str) else list(targets)
    if "bias" in known:
        found["bias"] = "none"
    return found


def _size_fields(name: str, known: set[str]) -> dict[str, str]:
    """Return the adapter's fields that rank, alpha and dropout go into, by those names."""
    found = {}
    if "r" in known and name not in _OWN_RANK:
        found["rank"] = "r"
    alpha = next((field for field in ("lora_alpha", "alpha") if field in known), None)
    if alpha is not None and name not in _OWN_RANK:
        found["alpha"] = alpha
    dropout = next((f for f in ("lora_dropout", "module_dropout") if f in known), None)
    if dropout is not None:
        found["dropout"] = dropout
    return found


def _check_fields(
    name: str, given: dict[str, Any], known: set[str], forced: dict[str, Any]
) -> None:
    for field in given:
        if field in _OURS and field in known and name not in _OWN_RANK:
            raise ConfigError(
                f"train.peft.{field} is set by train.{_OURS[field]}",
                where="train.peft",
                fix=f"Remove it and set train.{_OURS[field]}",
            )
        if field in forced:
            raise ConfigError(
                f"train.peft.{field} is fixed by the method {name!r}",
                where="train.peft",
                fix=f"Remove it, or set train.method: {name} with other fields",
            )
        if field not in known:
            hint = did_you_mean(field, sorted(known))
            raise ConfigError(
                f"PEFT's {name!r} has no field {field!r}",
                where="train.peft",
                fix=f"{hint}Known: {', '.join(sorted(known))}",
            )


def _check_start(start: Any) -> None:
    if isinstance(start, bool) or str(start) in _STARTS or str(start).startswith("pissa_niter_"):
        return
    raise ConfigError(
        f"an adapter can't start from {start!r} here: it needs a pass over data before training",
        where="train.peft.init_lora_weights",
        fix=f"Take one of {', '.join(_STARTS)}, or leave it unset",
    )


def _known(name: str) -> set[str]:
    """Return the fields of an adapter's configuration that may be set."""
    return {field.name for field in fields(_registry()[name]) if field.init} - set(_FIXED)


def _registry() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    return {kind.value.lower(): made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160]
