"""Every number a training run obeys, in one frozen record; where each came from is in the Plan.

Nothing is decided here: planner.py fills a Recipe in, session.py obeys it. Its canonical JSON is
part of what a run is hashed by.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tutelage.core.config import Cloze

Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["linear", "cosine", "constant"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "flex_attention"]
Strategy = Literal["none", "ddp", "zero2", "zero3", "fsdp2"]
INTERPOLATED = ("lora", "rslora", "lora_plus", "qlora", "full")  # tunings that can be
LEAST_TO_INTERPOLATE = 16  # validation rows that tell how far
Ratio = Annotated[float, Field(ge=0, le=1)]


class Recipe(BaseModel):
    """The resolved settings of one training run. Counts are of rows, tokens or optimizer steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "lora"  # a plug-in of tutelage.methods
    tune: str = "lora"  # what a method that may train either changes: lora, dora, qlora, full …
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)  # the adapter is scaled by alpha / rank
    dropout: Ratio = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    peft: dict[str, Any] = {}  # more fields of PEFT's configuration
    lora_plus: float = Field(default=1.0, ge=1)  # the rate of LoRA's B over that of A
    mixout: float = Field(default=0.0, ge=0, lt=1)  # chance that a column is the base model's
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # a layer's rate over that of the next
    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=4.0, gt=0)
    batch_size: int = Field(default=8, ge=1)  # rows an optimizer step
    micro_batch: int = Field(default=8, ge=1)  # rows a forward pass, at most batch_size
    max_tokens: int = Field(default=1024, ge=16)  # tokens a row
    warmup: Ratio = 0.05  # share of all steps over which the rate rises from 0
    schedule: Schedule = "linear"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    prompt_loss_weight: Ratio = 0.0
    patience: int = Field(default=2, ge=1)  # evaluations without gain before stopping
    interpolate: bool = False  # back towards the base in the end, as far as validation allows
    eval_every: int = Field(default=20, ge=1)  # optimizer steps
    precision: Precision = "fp32"
    checkpointing: bool = False  # activations are computed again in the backward pass
    attention: Attention = "auto"
    strategy: Strategy = "none"  # how several processes share the work
    offload: bool = False  # optimizer (and with zero3 weights) in the processor's memory
    replay: float = Field(default=0.0, ge=0, lt=1)  # share of the rows that is general text
    # what a replayed row teaches: its words, or the base's odds of every next word
    replay_loss: Literal["text", "base"] = "text"
    class_weights: Literal["none", "balanced"] = "none"  # of a classifier's loss
    cloze: Cloze | None = None  # patterns and words of the method cloze
    beta: float = Field(default=0.1, gt=0)  # of preference tuning: how far from the base
    preference_loss: Literal["sigmoid", "ipo"] = "sigmoid"  # of dpo
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # chance of a wrong choice (cDPO)
    sft_weight: float = Field(default=0.0, ge=0)  # of the better answer's own loss, beside DPO's
    desirable_weight: float = Field(default=1.0, gt=0)  # of praised answers in kto
    undesirable_weight: float = Field(default=1.0, gt=0)  # of blamed ones
    shared_prefix: bool = True
    checkpoint_every: int = Field(default=20, ge=1)  # optimizer steps
    seed: int = 7

    @model_validator(mode="after")
    def _micro_fits_batch(self) -> Recipe:
        if self.micro_batch > self.batch_size:
            raise ValueError(
                f"micro_batch {self.micro_batch} is larger than batch_size {self.batch_size}"
            )
        return self

    @property
    def accumulation(self) -> int:
        """Forward passes that make up one optimizer step."""
        return -(-self.batch_size // self.micro_batch)

    def steps_per_epoch(self, rows: int) -> int:
        """Return the optimizer steps of one pass over `rows` rows; the last one may be short."""
        return max(1, -(-rows // self.batch_size))

    def all_rows(self, rows: int) -> int:
        """Return `rows` of the project and the general ones beside them."""
        from tutelage.training.replay import replay_count

        return rows + replay_count(rows, self.replay)

    def total_steps(self, rows: int) -> int:
        """Return the optimizer steps of the whole run, without early stopping."""
        return max(1, round(self.steps_per_epoch(rows) * self.epochs))
