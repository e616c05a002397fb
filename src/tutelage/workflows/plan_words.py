"""How a plan's choices are put to people: under which heading, and how a value reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GROUPS = {
    "What is trained": (
        "method", "tune", "rank", "alpha", "target_modules", "dropout", "peft", "mixout",
        "layer_decay", "lora_plus",
    ),
    "How it learns": (
        "learning_rate", "warmup", "schedule", "weight_decay", "epochs", "batch_size",
        "prompt_loss_weight", "replay", "replay_loss", "beta", "patience", "interpolate",
        "eval_every",
    ),
}  # fmt: skip
_REST = "How it runs"


def grouped(plan: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the choices under their headings, in the order of the headings."""
    by_name = {choice["name"]: choice for choice in plan.get("choices", ())}
    found = {
        title: [by_name.pop(name) for name in names if name in by_name]
        for title, names in _GROUPS.items()
    }
    found[_REST] = list(by_name.values())
    return {title: choices for title, choices in found.items() if choices}


def shown(value: object) -> str:
    """Return a setting's value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
