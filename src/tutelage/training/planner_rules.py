"""The planner's rules: one table of choice, condition, value, reason and source, read downwards.

For each choice the first rule whose condition holds decides; a rule may look at the choices above
it. To change what Tutelage plans, change a row here; `tutelage.yaml` overrides any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tutelage.training.profile import DataProfile, Machine, ModelProfile
from tutelage.training.recipe import INTERPOLATED, LEAST_TO_INTERPOLATE

LEAST_ROWS = 20  # fewer training rows than this: the planner refuses, or steps down to a cloze
LEAST_CLOZE = 8  # fewer training rows than this: not even a cloze
FEW_ROWS = 100  # fewer than this: the system instructions go into every row
OBJECTIVES = ("cpt", "cloze", "classify", "dpo", "kto")  # these may train an adapter or all weights
SPREAD = ("zero2", "zero3", "fsdp2")  # strategies that keep a part of the run in each process
WHOLE_STEP = ("cpt", "classify", "cloze", "kto")  # these look at a step's rows together
QUANTISED_SHARE = 0.6  # of the GPU's memory that bf16 weights may take before they are quantised

HU = "Hu et al. 2021, arXiv 2106.09685"
THINKING = "Schulman et al. 2025, LoRA Without Regret"
QLORA = "Dettmers et al. 2023, arXiv 2305.14314"
PET = "Schick and Schütze 2021, arXiv 2001.07676"
GURURANGAN = "Gururangan et al. 2020, arXiv 2004.10964"
RAFAILOV = "Rafailov et al. 2023, arXiv 2305.18290"
ZHANG = "Zhang et al. 2021, arXiv 2006.05987"
FLASH = "Dao 2023, arXiv 2307.08691"
MIXED = "Micikevicius et al. 2018, arXiv 1710.03740"
REHEARSAL = "Rolnick et al. 2019, arXiv 1811.11682"
WORTSMAN = "Wortsman et al. 2022, arXiv 2109.01903"
HOIEM = "Li and Hoiem 2016, arXiv 1606.09282"
RAJBHANDARI = "Rajbhandari et al. 2020, arXiv 1910.02054"
ZHAO = "Zhao et al. 2023, arXiv 2304.11277"
MEASURED = "measured by Tutelage"
SMALL = "common practice for small data"


@dataclass(frozen=True)
class Situation:
    """What the rules look at; `chosen` holds the choices made so far."""

    data: DataProfile
    model: ModelProfile
    machine: Machine
    chosen: dict[str, Any] = field(default_factory=dict)

    @property
    def billions(self) -> float:
        """The model's size in 10**9 weights."""
        return self.model.params / 1e9

    @property
    def closed(self) -> bool:
        """Whether the task has one right answer (labels, fields)."""
        return self.data.task in ("classification", "extraction")

    @property
    def method(self) -> str:
        """The method, once it is chosen."""
        return str(self.chosen.get("method", ""))

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.chosen.get("tune") == "full"

    @property
    def preference(self) -> bool:
        """Whether answers are compared instead of learned."""
        return self.method in ("dpo", "kto")

    @property
    def too_large(self) -> bool:
        """Whether the weights, two bytes each, crowd the GPU and can be quantised instead."""
        crowded = 2 * self.model.params / 1e6 > QUANTISED_SHARE * self.machine.gpu_memory_mb
        return self.machine.gpu is not None and crowded and "bitsandbytes" in self.machine.packages

    @property
    def crowded(self) -> bool:
        """Whether weights, gradients and optimizer would not fit on one GPU."""
        weights = self.model.params * (4 if self.full else 2)
        trained = self.model.params if self.full else 16 * self.model.lora_inputs_outputs
        return weights + 16 * trained > 0.8e6 * self.machine.gpu_memory_mb

    @property
    def spreads(self) -> bool:
        """Whether the method can be trained with weights that are spread over processes."""
        packed = self.chosen.get("tune") == "qlora"
        return self.machine.bf16 and not packed and self.method not in WHOLE_STEP

    @property
    def longest(self) -> int:
        """Tokens of the longest row that is trained on, once max_tokens is chosen."""
        return min(self.data.row_max, int(self.chosen.get("max_tokens", self.data.row_max)))

    @property
    def cloze_fits(self) -> bool:
        """Whether so few labelled rows can still be learned as a cloze."""
        few = LEAST_CLOZE <= self.data.rows < LEAST_ROWS
        return few and self.data.task == "classification" and self.data.labels > 1


@dataclass(frozen=True)
class Rule:
    """One row of the table. `reason` may use the words of `words`."""

    choice: str
    when: Callable[[Situation], bool]
    value: Callable[[Situation], Any]
    reason: str
    source: str


def always(situation: Situation) -> bool:
    """Hold for every situation: the last rule of a choice."""
    return True


def _const(value: Any) -> Callable[[Situation], Any]:
    return lambda situation: value


def _power_of_two(tokens: int) -> int:
    return max(64, 1 << (tokens - 1).bit_length())


RULES: tuple[Rule, ...] = (
    Rule("method", lambda s: s.data.task == "text", _const("cpt"),
         "the rows are raw text: the model learns to write on, token by token", GURURANGAN),
    Rule("method", lambda s: s.cloze_fits, _const("cloze"),
         "{rows} rows are too few to learn to write answers; a cloze only has to tell {labels} "
         "labels apart", PET),
    Rule("method", lambda s: s.too_large, _const("qlora"),
         "the weights alone would crowd {gpu}: four bits each leave room, for about 39 % more "
         "time", QLORA),
    Rule("method", always, _const("lora"),
         "trains a few percent of the weights, or less, beside a frozen base: little memory", HU),
    Rule("tune", lambda s: s.method not in OBJECTIVES, lambda s: s.method,
         "the method says what is trained", "the method"),
    Rule("tune", lambda s: s.too_large, _const("qlora"),
         "the weights alone would crowd {gpu}: four bits each leave room", QLORA),
    Rule("tune", always, _const("lora"), "an adapter beside a frozen base", HU),
    Rule("rank", lambda s: s.data.rows < FEW_ROWS, _const(8),
         "{rows} rows: a small adapter has less room to learn them by heart", SMALL),
    Rule("rank", lambda s: s.data.rows < 100_000 and s.billions < 3, _const(16),
         "{rows} rows: 8 or 16 hold all that under 100,000 rows can teach", THINKING),
    Rule("rank", lambda s: s.data.rows < 100_000, _const(8),
         "{rows} rows on a model of {params}: 8 is enough", THINKING),
    Rule("rank", always, _const(32), "{rows} rows: more to hold", THINKING),
    Rule("learning_rate", lambda s: s.preference and s.full, _const(1e-6),
         "preferences move a finished model: small steps", RAFAILOV),
    Rule("learning_rate", lambda s: s.preference and s.billions < 0.5, _const(1e-4),
         "preferences move a finished model: a tenth of the usual rate", RAFAILOV),
    Rule("learning_rate", lambda s: s.preference, _const(2e-5),
         "preferences move a finished model: a tenth of the usual rate", RAFAILOV),
    Rule("learning_rate", lambda s: s.full and s.billions < 0.5, _const(1e-4),
         "all {params} weights move: a tenth of an adapter's rate", THINKING),
    Rule("learning_rate", lambda s: s.full, _const(2e-5),
         "all {params} weights move: a tenth of an adapter's rate", THINKING),
    Rule("learning_rate", lambda s: s.method == "cpt" and s.billions < 0.5, _const(5e-4),
         "long texts make many steps, and these want a smaller rate", SMALL),
    Rule("learning_rate", lambda s: s.data.rows >= 15_000 and s.billions < 0.5, _const(5e-4),
         "{rows} rows make a long run, and longer runs want smaller rates", THINKING),
    Rule("learning_rate", lambda s: s.billions < 0.5, _const(1e-3),
         "{params} weights: small models take about 10 × the rate of full tuning", THINKING),
    Rule("learning_rate", lambda s: s.billions < 8, _const(3e-4),
         "{params} weights: about 10 × the rate of full tuning", THINKING),
    Rule("learning_rate", always, _const(1e-4), "{params} weights: larger models want less", HU),
    Rule("epochs", lambda s: s.preference, _const(2.0),
         "preferences are learned fast and overdone easily", RAFAILOV),
    Rule("epochs", lambda s: s.method == "cpt", _const(1.0),
         "raw text is read once: a second pass mostly adds forgetting", GURURANGAN),
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
    Rule("prompt_loss_weight", lambda s: s.method in ("cloze", "classify", "dpo", "kto", "cpt"),
         _const(0.0), "the method has no loss on prompts", "the method"),
    Rule("prompt_loss_weight", lambda s: s.closed or s.data.answer_ratio >= 1, _const(0.0),
         "the answers carry the signal: loss on them alone", "arXiv 2401.13586"),
    Rule("prompt_loss_weight", lambda s: s.data.rows < 15_000 and s.data.shared < 0.2,
         _const(0.05), "short answers and under 15,000 rows: some prompt loss regularises",
         "arXiv 2401.13586"),
    Rule("prompt_loss_weight", always, _const(0.0), "loss on the answers alone", SMALL),
    Rule("max_tokens", lambda s: s.method == "cpt",
         lambda s: min(s.model.context, _power_of_two(s.data.row_max)),
         "blocks of {row_max} tokens: a longer text goes on in the next, nothing is cut",
         "the data"),
    Rule("max_tokens", lambda s: s.data.row_max > s.model.context, lambda s: s.model.context,
         "the longest row has {row_max} tokens and the model reads {context}: longer rows are cut",
         "the model"),
    Rule("max_tokens", always,
         lambda s: min(s.model.context, _power_of_two(s.data.row_max)),
         "the longest row has {row_max} tokens: nothing is cut", "the data"),
    Rule("strategy", lambda s: s.machine.gpus > 1 and s.crowded and s.spreads
         and "deepspeed" in s.machine.packages, _const("zero3"),
         "weights, gradients and optimizer do not fit on one of {gpus} GPUs: spread over all",
         RAJBHANDARI),
    Rule("strategy", lambda s: s.machine.gpus > 1 and s.crowded and s.spreads, _const("fsdp2"),
         "weights, gradients and optimizer do not fit on one of {gpus} GPUs: spread over all",
         ZHAO),
    Rule("strategy", lambda s: s.machine.gpus > 1 and s.full and s.spreads
         and "deepspeed" in s.machine.packages, _const("zero2"),
         "{gpus} GPUs: each takes its rows, the optimizer of all weights is spread", RAJBHANDARI),
    Rule("strategy", lambda s: s.machine.gpus > 1, _const("ddp"),
         "{gpus} GPUs: each takes its rows, gradients are summed", RAJBHANDARI),
    Rule("strategy", lambda s: s.machine.gpu is not None and s.full and s.crowded and s.spreads
         and "deepspeed" in s.machine.packages, _const("zero2"),
         "the optimizer of all weights does not fit on {gpu}", RAJBHANDARI),
    Rule("strategy", always, _const("none"), "one process", "the machine"),
    Rule("offload", lambda s: s.chosen.get("strategy") in SPREAD and s.crowded,
         _const(True), "the optimizer stays in the processor's memory: slower, but it fits",
         "Ren et al. 2021, arXiv 2101.06840"),
    Rule("offload", always, _const(False), "all of it fits where it is used", "the machine"),
    Rule("replay_loss", lambda s: s.method in OBJECTIVES or s.chosen["tune"] in ("full", "pissa")
         or s.chosen["strategy"] in SPREAD, _const("text"),
         "the base's odds are not at hand: replayed rows would teach their words", REHEARSAL),
    Rule("replay_loss", always, _const("base"),
         "replayed rows teach the base's odds of every next word: no loss where training starts",
         HOIEM),
    Rule("replay", lambda s: s.method == "cpt", _const(0.1),
         "one row in ten is general text, so that the model keeps what it could", REHEARSAL),
    Rule("replay", lambda s: s.chosen["replay_loss"] == "text", _const(0.0),
         "without the base's odds nothing is held in place; a guard checks what is lost",
         "not measured"),
    Rule("replay", always, _const(0.1),
         "one row in ten is the base's own text, where the model is held to the base's odds: it "
         "keeps what it could", MEASURED),
    Rule("precision", lambda s: s.machine.gpu is not None and s.machine.bf16, _const("bf16"),
         "{gpu} multiplies bf16 natively: half the memory", MIXED),
    Rule("precision", lambda s: s.machine.gpu is not None, _const("fp16"),
         "{gpu} has no bf16: fp16 with loss scaling", MIXED),
    Rule("precision", lambda s: s.billions > 1 and s.machine.bf16, _const("bf16"),
         "{params} weights on a processor with bf16: half the memory", MEASURED),
    Rule("precision", always, _const("fp32"),
         "on a processor, small matrices are faster in fp32", MEASURED),
    Rule("shared_prefix", lambda s: s.chosen.get("strategy") in SPREAD, _const(False),
         "weights are spread over processes: sharing is not proven exact there", "not tested"),
    Rule("shared_prefix", lambda s: s.data.shared > 0, _const(True),
         "rows of a batch share {shared} of their tokens: computed once, same gradients",
         MEASURED),
    Rule("shared_prefix", lambda s: s.preference, _const(True),
         "both answers of a pair follow one prompt: computed once, same gradients", MEASURED),
    Rule("shared_prefix", always, _const(False), "the rows have no prefix in common", "the data"),
    Rule("attention", lambda s: s.machine.gpu is not None and "flash_attn" in s.machine.packages
         and s.longest >= 2_048, _const("flash_attention_2"),
         "rows of {longest} tokens: FlashAttention-2 pays from 2,048", FLASH),
    Rule("attention", always, _const("auto"), "PyTorch's own fused attention", FLASH),
    Rule("warmup", always, _const(0.06), "the rate rises over the first steps", SMALL),
    Rule("patience", lambda s: s.data.validation_rows < 10, _const(8),
         "{validation_rows} validation rows: their loss is noisy, stop late", SMALL),
    Rule("patience", always, _const(3),
         "stops after three evaluations without gain; the best weights are kept",
         "Prechelt 1998"),
    Rule("interpolate", lambda s: s.method in OBJECTIVES, _const(False),
         "measured for supervised tuning alone", MEASURED),
    Rule("interpolate", lambda s: s.chosen["tune"] not in INTERPOLATED
         or s.chosen["strategy"] in SPREAD, _const(False),
         "the line from the base to these weights is not at hand", WORTSMAN),
    Rule("interpolate", lambda s: s.chosen["replay"] > 0 and s.chosen["replay_loss"] == "base",
         _const(False), "replayed rows hold the rest in place already", MEASURED),
    Rule("interpolate", lambda s: s.data.validation_rows < LEAST_TO_INTERPOLATE, _const(False),
         "{validation_rows} validation rows are too few to tell how far", WORTSMAN),
    Rule("interpolate", always, _const(True),
         "in the end back towards the base, as far as validation loses nothing for certain: more "
         "of what it could is kept", WORTSMAN),
    Rule("weight_decay", lambda s: s.full, _const(0.01), "all weights move: a light pull to zero",
         "Loshchilov and Hutter 2019, arXiv 1711.05101"),
    Rule("weight_decay", always, _const(0.0), "the adapter starts at zero and stays small", HU),
    Rule("dropout", always, _const(0.0),
         "few epochs, and shared prefixes stay exact", THINKING),
    Rule("mixout", always, _const(0.0),
         "off: the gain shrinks once Adam is debiased and training is long enough", ZHANG),
    Rule("layer_decay", always, _const(1.0),
         "off: one rate for all layers; 0.95 protects the lower ones on very few rows", ZHANG),
)  # fmt: skip


def words(situation: Situation) -> dict[str, str]:
    """Return what a reason may name."""
    data, model = situation.data, situation.model
    return {
        "rows": f"{data.rows:,}",
        "labels": f"{data.labels:,}",
        "params": size_in_words(model.params),
        "shared": f"{data.shared * 100:.0f} %",
        "row_max": f"{data.row_max:,}",
        "longest": f"{situation.longest:,}",
        "context": f"{model.context:,}",
        "gpu": situation.machine.gpu or "",
        "gpus": str(situation.machine.gpus),
        "validation_rows": str(data.validation_rows),
    }


def size_in_words(count: float) -> str:
    """Return a number of weights as people say it."""
    return f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.1f} B"


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
