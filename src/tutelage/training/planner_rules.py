"""The planner's rules: one table of choice, condition, value, reason and source, read downwards.

For each choice the first rule whose condition holds decides. To change what Tutelage plans,
change a row here; `tutelage.yaml` overrides any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tutelage.training.profile import DataProfile, Machine, ModelProfile

LEAST_ROWS = 20  # fewer training rows than this: the planner refuses
FEW_ROWS = 100  # fewer than this: the system instructions go into every row

HU = "Hu et al. 2021, arXiv 2106.09685"
THINKING = "Schulman et al. 2025, LoRA Without Regret"
MEASURED = "measured here, bench/README.md"
SMALL = "common practice for small data"


@dataclass(frozen=True)
class Situation:
    """What the rules look at."""

    data: DataProfile
    model: ModelProfile
    machine: Machine

    @property
    def billions(self) -> float:
        """The model's size in 10**9 weights."""
        return self.model.params / 1e9

    @property
    def closed(self) -> bool:
        """Whether the task has one right answer (labels, fields)."""
        return self.data.task in ("classification", "extraction")


@dataclass(frozen=True)
class Rule:
    """`choice` gets `value(situation)` when `when(situation)` holds."""

    choice: str
    when: Callable[[Situation], bool]
    value: Callable[[Situation], Any]
    reason: str  # may name fields of the situation: {rows}, {params}, {shared}
    source: str


def always(situation: Situation) -> bool:
    """Hold in every situation: the last rule of a choice."""
    return True


def _const(value: Any) -> Callable[[Situation], Any]:
    return lambda situation: value


def _power_of_two(tokens: int) -> int:
    return max(64, 1 << (tokens - 1).bit_length())


RULES: tuple[Rule, ...] = (
    Rule("method", always, _const("lora"),
         "trains 1–6 % of the weights beside a frozen base: little memory, little forgetting", HU),
    Rule("rank", lambda s: s.data.rows < 100_000 and s.billions < 3, _const(16),
         "{rows} rows: 8 or 16 hold all that under 100,000 rows can teach", THINKING),
    Rule("rank", lambda s: s.data.rows < 100_000, _const(8),
         "{rows} rows on a model of {params}: 8 is enough", THINKING),
    Rule("rank", always, _const(32), "{rows} rows: more to hold", THINKING),
    Rule("learning_rate", lambda s: s.billions < 0.5, _const(1e-3),
         "{params} weights: small models take about 10 × the rate of full tuning", THINKING),
    Rule("learning_rate", lambda s: s.billions < 8, _const(3e-4),
         "{params} weights: about 10 × the rate of full tuning", THINKING),
    Rule("learning_rate", always, _const(1e-4), "{params} weights: larger models want less", HU),
    Rule("epochs", lambda s: s.data.rows < FEW_ROWS, _const(5.0),
         "{rows} rows: few steps an epoch, early stopping ends what does not help", SMALL),
    Rule("epochs", lambda s: s.closed and s.data.rows < 1_000, _const(3.0),
         "{rows} rows with one right answer each: one more than for free text", SMALL),
    Rule("epochs", lambda s: s.data.rows < 1_000, _const(2.0),
         "{rows} rows of free text: fewer, or style is learned by heart", SMALL),
    Rule("epochs", lambda s: s.data.rows < 15_000, _const(2.0), "{rows} rows", SMALL),
    Rule("epochs", always, _const(2.0), "{rows} rows: two passes see enough", SMALL),
    Rule("batch_size", lambda s: s.data.rows < 5_000, _const(8),
         "small batches make more steps of few rows, and suit LoRA", THINKING),
    Rule("batch_size", always, _const(16), "{rows} rows leave steps enough", THINKING),
    Rule("prompt_loss_weight", lambda s: s.closed or s.data.answer_ratio >= 1, _const(0.0),
         "the answers carry the signal: loss on them alone", "arXiv 2401.13586"),
    Rule("prompt_loss_weight", lambda s: s.data.rows < 15_000 and s.data.shared < 0.2,
         _const(0.05), "short answers and under 15,000 rows: some prompt loss regularises",
         "arXiv 2401.13586"),
    Rule("prompt_loss_weight", always, _const(0.0), "loss on the answers alone", SMALL),
    Rule("max_tokens", always,
         lambda s: min(s.model.context, _power_of_two(s.data.row_max)),
         "the longest row has {row_max} tokens: nothing is cut", "the data"),
    Rule("precision", lambda s: s.machine.gpu is not None and s.machine.bf16, _const("bf16"),
         "{gpu} multiplies bf16 natively: half the memory", "Micikevicius et al. 2018"),
    Rule("precision", lambda s: s.machine.gpu is not None, _const("fp32"),
         "{gpu} has no bf16: fp32 is the safe choice", SMALL),
    Rule("precision", lambda s: s.billions > 1 and s.machine.bf16, _const("bf16"),
         "{params} weights on a processor with bf16: half the memory", MEASURED),
    Rule("precision", always, _const("fp32"),
         "on a processor, small matrices are faster in fp32", MEASURED),
    Rule("shared_prefix", lambda s: s.data.shared > 0, _const(True),
         "rows of a batch share {shared} of their tokens: computed once, same gradients",
         MEASURED),
    Rule("shared_prefix", always, _const(False), "the rows have no prefix in common", "the data"),
    Rule("warmup", always, _const(0.06), "the rate rises over the first steps", SMALL),
    Rule("patience", lambda s: s.data.validation_rows < 10, _const(8),
         "{validation_rows} validation rows: their loss is noisy, stop late", SMALL),
    Rule("patience", always, _const(3),
         "stops after three evaluations without gain; the best weights are kept",
         "Prechelt 1998"),
    Rule("weight_decay", always, _const(0.0), "the adapter starts at zero and stays small", HU),
    Rule("dropout", always, _const(0.0),
         "few epochs, and shared prefixes stay exact", THINKING),
)  # fmt: skip


def words(situation: Situation) -> dict[str, str]:
    """Return what a reason may name."""
    data, model = situation.data, situation.model
    size = f"{model.params / 1e6:.0f} M" if model.params < 1e9 else f"{model.params / 1e9:.1f} B"
    return {
        "rows": f"{data.rows:,}",
        "params": size,
        "shared": f"{data.shared:.0%}",
        "row_max": str(data.row_max),
        "gpu": situation.machine.gpu or "",
        "validation_rows": str(data.validation_rows),
    }


def decide(choice: str, situation: Situation) -> tuple[Any, str, str]:
    """Return (value, reason, source) of the first rule for `choice` that holds."""
    for rule in RULES:
        if rule.choice == choice and rule.when(situation):
            reason = rule.reason.format(**words(situation))
            return rule.value(situation), reason, rule.source
    raise KeyError(choice)


def choices() -> list[str]:
    """Return the names of the choices, in the order of the table."""
    return list(dict.fromkeys(rule.choice for rule in RULES))
