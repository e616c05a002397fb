"""What the planner looks at: the rows, the model and the machine, each as a few numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tutelage.core.errors import ModelError
from tutelage.core.example import Example
from tutelage.training.prefix_tree import Row, build_forest

_SAMPLE = 64  # rows whose shared prefix and tokens a word are measured
_OPTIONAL = ("bitsandbytes", "deepspeed", "flash_attn")


@dataclass(frozen=True)
class DataProfile:
    """The training rows. Lengths are tokens a row; `shared` is the ratio of tokens that rows of
    one batch have in common (0: none). `row_max` is the longest row before anything is cut."""

    task: str
    rows: int
    validation_rows: int
    labels: int
    prompt_p50: int
    prompt_max: int
    answer_p50: int
    answer_max: int
    row_p95: int
    row_max: int
    shared: float
    prefix: int  # tokens at the start that all rows share
    least_label: int = 0  # rows of the rarest label
    texts: int = 0  # rows that are raw text
    pairs: int = 0  # rows with a rejected answer besides, or that say whether theirs is desirable
    fertility: float = 0.0  # tokens a word of the rows; 0: not measured
    unsplit: str | None = None  # why no split could give validation rows, and what to do

    @property
    def answer_ratio(self) -> float:
        """Answer tokens over prompt tokens, at the median."""
        return self.answer_p50 / max(1, self.prompt_p50)


@dataclass(frozen=True)
class ModelProfile:
    """The base model, read from its configuration. `params` counts weights."""

    name: str
    params: int
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocab: int
    context: int

    @property
    def lora_inputs_outputs(self) -> int:
        """Sum over a layer's linear maps of inputs + outputs: adapter weights for each rank."""
        kv = self.hidden * self.kv_heads // max(1, self.heads)
        attention = 2 * (self.hidden + self.hidden) + 2 * (self.hidden + kv)
        return self.layers * (attention + 3 * (self.hidden + self.inner))


@dataclass(frozen=True)
class Machine:
    """What training may use. Memory and disk are free megabytes."""

    cores: int
    memory_mb: float
    disk_mb: float
    gpu: str | None
    gpu_memory_mb: float
    bf16: bool  # the accelerator, or for want of one the processor, multiplies bf16 natively
    gpus: int = 0
    packages: frozenset[str] = frozenset()  # optional ones that are installed

    @property
    def free_mb(self) -> float:
        """Memory that a run may use: the accelerator's where there is one."""
        return self.gpu_memory_mb if self.gpu else self.memory_mb


@dataclass(frozen=True)
class Measured:
    """What a probe saw: seconds a computed token takes, forward and backward; the bytes that it
    keeps in between; the weights that a step changes; seconds to load the model."""

    seconds_per_token: float
    bytes_per_token: float | None = None
    trained: int = 0
    load_seconds: float = 0.0


def profile_data(
    rows: Sequence[Row],
    *,
    task: str,
    labels: int,
    validation_rows: int,
    batch: int = 8,
    facts: Mapping[str, Any] | None = None,
) -> DataProfile:
    """Return the profile of encoded training rows; `facts` are what the ids can't tell."""
    prompts = sorted(row.answer_start for row in rows)
    answers = sorted(len(row.ids) - row.answer_start for row in rows)
    lengths = sorted(len(row.ids) for row in rows)
    forest = build_forest(list(rows[:batch]))
    return DataProfile(
        task=task,
        rows=len(rows),
        validation_rows=validation_rows,
        labels=labels,
        prompt_p50=_quantile(prompts, 0.5),
        prompt_max=prompts[-1],
        answer_p50=_quantile(answers, 0.5),
        answer_max=answers[-1],
        row_p95=_quantile(lengths, 0.95),
        row_max=lengths[-1],
        shared=round(1 - forest.unique / max(1, forest.total), 3) if forest.pays else 0.0,
        prefix=_common_prefix(rows[:_SAMPLE]),
        **(facts or {}),
    )


def row_facts(examples: Sequence[Example], tokenizer: Any) -> dict[str, Any]:
    """Return what a profile says of the rows themselves: rarest label, texts, pairs, fertility."""
    counts = Counter(row.label for row in examples if row.label is not None)
    words = [row.messages[0].content if row.is_text else row.input_text for row in examples]
    text = "\n".join(words[:_SAMPLE])
    tokens = len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return {
        "least_label": min(counts.values(), default=0),
        "texts": sum(row.is_text for row in examples),
        "pairs": sum(bool(row.meta.get("rejected")) or "desirable" in row.meta for row in examples),
        "fertility": round(tokens / max(1, len(text.split())), 2),
    }


def _quantile(values: Sequence[int], share: float) -> int:
    return values[min(len(values) - 1, math.floor(share * len(values)))]


def _common_prefix(rows: Sequence[Row]) -> int:
    first = rows[0].ids
    length = min(row.answer_start for row in rows)
    for row in rows[1:]:
        while row.ids[:length] != first[:length]:
            length -= 1
    return length


def profile_model(name: str, directory: Path) -> ModelProfile:
    """Return the profile of a prepared model from its config.json; no weights are read.

    Raises ModelError if the configuration lacks what a decoder-only model has.
    """
    try:
        config: dict[str, Any] = json.loads((directory / "config.json").read_text("utf-8"))
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        heads, vocab = int(config["num_attention_heads"]), int(config["vocab_size"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the model's configuration can't be planned for ({error})",
            where=str(directory),
            fix="Choose a decoder-only language model in the transformers format, or a GGUF",
        ) from error
    inner = int(config.get("intermediate_size") or 4 * hidden)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    kv = hidden * kv_heads // heads
    block = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner + 2 * hidden
    embeddings = vocab * hidden * (1 if config.get("tie_word_embeddings", True) else 2)
    return ModelProfile(
        name=name,
        params=layers * block + embeddings + hidden,
        layers=layers,
        hidden=hidden,
        inner=inner,
        heads=heads,
        kv_heads=kv_heads,
        vocab=vocab,
        context=int(config.get("max_position_embeddings") or 2048),
    )


def profile_machine(folder: Path) -> Machine:
    """Return what this machine has free for training; `folder` says which disk."""
    import torch

    gpu, gpu_memory, gpus, bf16 = None, 0.0, 0, _cpu_has("avx512_bf16", "amx_bf16")
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        gpu = torch.cuda.get_device_name(0)
        gpu_memory = torch.cuda.mem_get_info(0)[0] / 1e6
        bf16 = torch.cuda.is_bf16_supported()
    return Machine(
        cores=os.cpu_count() or 1,
        memory_mb=psutil.virtual_memory().available / 1e6,
        disk_mb=shutil.disk_usage(folder).free / 1e6,
        gpu=gpu,
        gpu_memory_mb=gpu_memory,
        bf16=bf16,
        gpus=gpus,
        packages=frozenset(name for name in _OPTIONAL if importlib.util.find_spec(name)),
    )


def _cpu_has(*flags: str) -> bool:
    path = Path("/proc/cpuinfo")
    known = path.read_text() if path.exists() else ""
    return any(flag in known for flag in flags)
