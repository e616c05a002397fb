"""Supervised fine-tuning of LoRA and its kin; the tuning's own name is the method's."""

from __future__ import annotations

from tutelage.training.methods.base import Objective, Tuning
from tutelage.training.recipe import Recipe


class TuningMethod:
    """Supervised fine-tuning of whatever the tuning `name` changes."""

    name = "lora"

    def objective(self, recipe: Recipe) -> Objective:
        """Return supervised fine-tuning."""
        from tutelage.training.methods.sft import Supervised

        return Supervised()

    def tuning(self, recipe: Recipe) -> Tuning:
        """Return which weights change."""
        from tutelage.training.tunings import tuning

        return tuning(self.name, recipe)


class LoraMethod(TuningMethod):
    """The default method: LoRA on all linear layers."""


class RsloraMethod(TuningMethod):
    """LoRA, scaled by alpha / sqrt(rank)."""

    name = "rslora"


class DoraMethod(TuningMethod):
    """LoRA for directions, and a trained magnitude for each output."""

    name = "dora"


class PissaMethod(TuningMethod):
    """LoRA that starts from the largest singular vectors of each weight."""

    name = "pissa"


class LoraPlusMethod(TuningMethod):
    """LoRA whose B learns faster than its A."""

    name = "lora_plus"


class QloraMethod(TuningMethod):
    """LoRA on a base in 4 bits."""

    name = "qlora"
