"""Supervised fine-tuning of all weights, or of the modules that train.target_modules names."""

from __future__ import annotations

from tutelage.training.methods.lora import TuningMethod


class FullMethod(TuningMethod):
    """Every weight is trained and a whole model is written."""

    name = "full"
