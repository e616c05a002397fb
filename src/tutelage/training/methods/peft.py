"""Supervised fine-tuning of any adapter that PEFT knows, by PEFT's own name."""

from __future__ import annotations

from tutelage.training.methods.lora import TuningMethod


class PeftMethod(TuningMethod):
    """A method that is named when it is made: it is no plug-in of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
