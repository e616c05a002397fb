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
    """Return a setting's value as people read it; parts of a larger one are named and counted."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = (_part(str(name), inner) for name, inner in value.items())
        return ", ".join(part for part in parts if part) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _part(name: str, value: object) -> str:
    """Return one field of a larger setting in few words; nothing for one that is empty."""
    if not isinstance(value, Mapping | list | tuple):
        return "" if value is None else f"{name} {shown(value)}"
    words = name.replace("_", " ")
    return f"{len(value)} {words.removesuffix('s') if len(value) == 1 else words}" if value else ""
