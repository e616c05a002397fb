"""Merges what was tuned into its base and saves it as a model folder that transformers loads.

The merge is PEFT's own, in float32, checked for numbers that are none; weights are cast afterwards
and saved in pieces, so memory stays at one model. Whether the result still answers alike is not
decided here (inference/parity.py).
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.core.errors import ModelError
from tutelage.core.example import Message
from tutelage.inference.models import ModelSource
from tutelage.inference.parity import Followed, Reference
from tutelage.inference.transformers_load import load_model, load_tokenizer
from tutelage.inference.transformers_prepare import quiet, short
from tutelage.inference.tuned import Tuned
from tutelage.training.export_reference import follow, take_reference

TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_SHARD = "2GB"  # of one file of weights


@dataclass(frozen=True)
class Subject:
    """What is exported: a base model, and what was tuned from it (None is the base itself)."""

    base: ModelSource
    tuned: Tuned | None = None

    @property
    def source(self) -> ModelSource:
        """The model that is loaded first: the tuned one where it is whole, else the base."""
        if self.tuned is None or self.tuned.kind != "model":
            return self.base
        folder = self.tuned.folder
        return ModelSource(str(folder), folder.name, "directory", folder, self.base.digest)

    @property
    def adapter(self) -> Path | None:
        """The PEFT folder that goes on top of `source`."""
        return self.tuned.folder if self.tuned and self.tuned.kind == "adapter" else None


class Export:
    """One model in memory: first the reference, then the merged model that is saved."""

    def __init__(self, subject: Subject) -> None:
        """Load base and adapter in float32. Raises ModelError if they can't be read or joined."""
        self._subject = subject
        self.tokenizer = tokenizer_of(subject)
        self._model: Any = load_model(subject.source, dtype="float32", adapter=subject.adapter)

    def size_bytes(self, dtype: str) -> int:
        """Return what the weights take on disk as `dtype` (q8_0 is counted as f16)."""
        width = 4 if dtype == "f32" else 2
        return int(width * sum(p.numel() for p in self._model.parameters()))

    def reference(
        self, prompts: Sequence[Sequence[Message]], *, max_tokens: int
    ) -> list[Reference]:
        """Return the greedy answers of base and adapter, which all exports are held to.

        Prompts that leave no room to answer have none. Raises DataError if that is all of them.
        """
        return take_reference(self._model, self.tokenizer, prompts, max_tokens=max_tokens)

    def cuts(self, texts: Sequence[str]) -> list[Reference]:
        """Return how the tokenizer cuts texts, as references without an answer."""
        return [
            Reference(
                ({"role": "user", "content": text},),
                tuple(self.tokenizer(text, verbose=False)["input_ids"]),
            )
            for text in texts
        ]

    def save_merged(self, folder: Path, dtype: str) -> None:
        """Merge, cast to `dtype` (f32, f16, bf16) and write weights, config and tokenizer.

        The model is gone afterwards. Raises ModelError if the adapter can't be merged or a value
        does not fit `dtype`.
        """
        model = self._model if self._subject.adapter is None else _merged(self._model)
        self._model = None
        _refuse_overflow(model, TORCH[dtype])
        model.to(TORCH[dtype])
        model.config.dtype = TORCH[dtype]
        with quiet():
            model.save_pretrained(folder, max_shard_size=_SHARD)
            self.tokenizer.save_pretrained(folder)
        del model
        gc.collect()

    def close(self) -> None:
        """Drop the model."""
        self._model = None
        gc.collect()


def tokenizer_of(subject: Subject) -> Any:
    """Return the tuned model's tokenizer, or its base's where it brings none."""
    own = subject.source.path / "tokenizer_config.json"
    whole = subject.tuned is not None and subject.tuned.kind == "model"
    return load_tokenizer(subject.source if not whole or own.is_file() else subject.base)


def follow_folder(
    folder: Path, prompts: Sequence[Sequence[Message]], along: Sequence[Reference]
) -> list[Followed]:
    """Return what the model in `folder` says along the references, computed in float32."""
    source = ModelSource(str(folder), folder.name, "directory", folder, "")
    model = load_model(source, dtype="float32")
    try:
        return follow(model, load_tokenizer(source), prompts, along)
    finally:
        del model
        gc.collect()


def base_dtype(source: ModelSource) -> str:
    """Return what a model is saved as unless told otherwise: its base's type, f16 for a GGUF."""
    if source.kind == "gguf":
        return "f16"
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return {"float16": "f16", "bfloat16": "bf16"}.get(stored, "f32")


def _merged(model: Any) -> Any:
    """Return the base with the adapter's change added to its weights."""
    with quiet():
        try:
            merged = model.merge_and_unload(safe_merge=True)
        except (ValueError, NotImplementedError, AttributeError, TypeError) as error:
            raise ModelError(
                f"the adapter can't be merged into its base ({short(error)})",
                fix="Use --format adapter",
            ) from error
    return merged


def _refuse_overflow(model: torch.nn.Module, dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    for name, weight in model.named_parameters():
        if float(weight.detach().abs().max()) > top:
            raise ModelError(
                f"{name} holds values that {str(dtype).removeprefix('torch.')} can't",
                fix="Export with --dtype bf16 or f32",
            )
