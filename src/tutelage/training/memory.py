"""How much memory a run will take, item by item, before it starts.

Activations are those that a transformer block keeps for its backward pass (Korthikanti et al.
2022, arXiv 2205.05198, section 4.1, without the attention matrix, which flash attention never
writes), counted here term by term for a gated block as fast_layers.py runs it; a probe (probe.py)
counts the bytes that this model really keeps and then takes their place. bench/plan.py holds the
totals against real runs.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tutelage.training.profile import DataProfile, ModelProfile
from tutelage.training.recipe import Recipe

_RUNTIME_MB = 600.0  # torch, transformers, peft, MLflow and a tokenizer, loaded: measured
_NF4_BYTES = 0.516  # a weight in 4 bits with doubly quantised constants (QLoRA, section 3)
_CHECKPOINTED = 1 / 6  # of a block's activations is its input, kept when the rest is recomputed
_HEAD_CHUNK = 128  # positions whose logits exist at once on the shared path (head_loss.py)
_LOGIT_COPIES = 3  # logits, their softmax and the gradient
_BUSY = 1.3  # over what is kept: the backward pass's own buffers, and what the allocator holds
_MB = 1e6


class MemoryEstimate(BaseModel):
    """Megabytes (10**6 bytes) at the highest point of a step."""

    model_config = ConfigDict(frozen=True)

    weights_mb: float
    adapter_mb: float  # what is trained beside the base, and its gradients; full: gradients alone
    optimizer_mb: float  # two moments, and the best weights so far
    activations_mb: float
    logits_mb: float
    prefix_mb: float  # keys and values of shared prefixes, with their gradients
    runtime_mb: float
    total_mb: float


def adapter_params(model: ModelProfile, rank: int) -> int:
    """Return the trained weights of LoRA on all linear layers: rank × (inputs + outputs)."""
    return rank * model.lora_inputs_outputs


def trained_params(model: ModelProfile, recipe: Recipe) -> int:
    """Return how many weights the recipe trains."""
    return model.params if recipe.tune == "full" else adapter_params(model, recipe.rank)


def tokens_at_once(data: DataProfile, recipe: Recipe) -> int:
    """Return the tokens whose activations live at the same time: one stream of the step.

    With shared prefixes a stream takes as many rows as fit into the tokens of a micro-batch of
    whole rows (shared_step.py), however many those are.
    """
    row = min(data.row_p95, recipe.max_tokens)
    whole = recipe.micro_batch * row
    if not recipe.shared_prefix or data.shared == 0:
        return whole
    return round(min(whole, data.prefix + recipe.batch_size * max(1, row - data.prefix)))


def estimate_memory(
    data: DataProfile,
    model: ModelProfile,
    recipe: Recipe,
    *,
    bytes_per_token: float | None = None,
) -> MemoryEstimate:
    """Return the itemised estimate for one process.

    `bytes_per_token` is what a probe saw kept for the backward pass, without checkpointing.
    """
    full = recipe.tune == "full"
    trained = trained_params(model, recipe)
    kv = model.hidden * model.kv_heads // max(1, model.heads)
    kept = bytes_per_token or _kept_bytes(model, recipe, kv)
    if recipe.checkpointing:
        kept *= _CHECKPOINTED
    shares = bool(data.shared) and recipe.shared_prefix
    items = {
        "weights_mb": model.params * _weight_bytes(recipe) / _MB,
        "adapter_mb": (1 if full else 2) * trained * 4 / _MB,
        "optimizer_mb": 0.0 if recipe.offload else 3 * trained * 4 / _MB,
        "activations_mb": _BUSY * tokens_at_once(data, recipe) * kept / _MB,
        "logits_mb": _LOGIT_COPIES * _logit_rows(data, recipe) * model.vocab * 4 / _MB,
        "prefix_mb": 4 * data.prefix * kv * model.layers * 4 / _MB if shares else 0.0,
        "runtime_mb": _RUNTIME_MB,
    }
    rounded = {name: round(value, 1) for name, value in items.items()}
    return MemoryEstimate(**rounded, total_mb=round(sum(rounded.values()), 1))


def _weight_bytes(recipe: Recipe) -> float:
    """Return the bytes a weight of the base takes."""
    if recipe.tune == "qlora":
        return _NF4_BYTES
    return 4 if recipe.precision == "fp32" or recipe.tune == "full" else 2


def _kept_bytes(model: ModelProfile, recipe: Recipe, kv: int) -> float:
    """Return the bytes a token keeps in all blocks for the backward pass."""
    if recipe.tune == "full":
        values = 10 * model.hidden + 3 * kv + 4 * model.inner
    else:  # fused layers keep the inputs alone and compute the rest again
        values = 7 * model.hidden + 3 * kv + 2 * model.inner + 7 * recipe.rank
    return model.layers * values * (4 if recipe.precision == "fp32" else 2)


def _logit_rows(data: DataProfile, recipe: Recipe) -> int:
    """Return the positions whose logits exist at the same time."""
    labelled = recipe.micro_batch * data.answer_max
    if recipe.prompt_loss_weight or data.texts:
        labelled = tokens_at_once(data, recipe)
    return min(labelled, _HEAD_CHUNK) if recipe.shared_prefix and data.shared else labelled
