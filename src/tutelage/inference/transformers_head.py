"""Picks a label with a classification head on the last token of the prompt.

The head is a matrix beside the adapter (modules_to_save) or in the whole model's file; the decoder
under it is the one in use, so the base model's weights are in memory once. What prompts share is
computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core.errors import DataError, ModelError
from tutelage.inference.base import Prompt
from tutelage.inference.label_choice import LabelChoice, log_softmax
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers_cache import Runner, common_prefix
from tutelage.inference.transformers_load import pretrained, unwrapped
from tutelage.inference.transformers_prepare import short
from tutelage.inference.transformers_render import render
from tutelage.inference.tuned import Tuned

HEAD = "score"  # what transformers calls the head of a decoder's classifier
_BATCH = 16  # rows a forward pass, at most


class HeadChoice(LabelChoice):
    """`settings`: labels, answers, temperature (the logits are divided by it)."""

    def __init__(self, model: Any, tokenizer: Any, tuned: Tuned) -> None:
        settings = tuned.settings
        super().__init__(tokenizer, settings["labels"], settings["answers"])
        self._temperature = float(settings.get("temperature", 1.0))
        self._model = model
        self._limit = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        pad = tokenizer.pad_token_id
        self._runner = Runner(model, tokenizer.eos_token_id if pad is None else pad)
        self._runner.model = _View(model, load_head(tuned.folder, len(self.labels)))

    def log_chances(self, prompts: Sequence[Prompt]) -> tuple[NDArray[np.float64], list[int]]:
        """Return log p(label | prompt) and the prompts' tokens. Raises DataError for a long one."""
        rows = [render(self._tokenizer, prompt.messages).prompt_ids for prompt in prompts]
        for index, ids in enumerate(rows):
            if len(ids) > self._limit:
                raise DataError(
                    f"prompt {index + 1} has {len(ids)} tokens, the model reads {self._limit}",
                    fix="Shorten the row or the prompt, or choose a model with a longer context",
                )
        logits = np.zeros((len(rows), len(self.labels)))
        shared = common_prefix(rows) if self._runner.shares else 0
        order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), rows[index]))
        training = self._model.training
        self._model.eval()
        try:
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                with torch.inference_mode():
                    batch = self._runner.start(
                        [rows[index] for index in part], rows[part[0]][:shared], 0
                    )
                logits[part] = batch.logits.double().numpy()
        finally:
            self._model.train(training)
        return log_softmax(logits / self._temperature), [len(ids) for ids in rows]


class _View:
    """A decoder and a head that are called like a causal model."""

    def __init__(self, model: Any, head: torch.nn.Linear) -> None:
        self._model, self._decoder = model, unwrapped(model).get_decoder()
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self._head = head.to(self.device)

    @property
    def training(self) -> bool:
        """Whether the model drops anything out."""
        return bool(self._model.training)

    def train(self, mode: bool = True) -> None:
        """Put the model into training, or out of it."""
        self._model.train(mode)

    def get_decoder(self) -> Any:
        """Return the decoder, as a model of transformers does."""
        return self._decoder

    def __call__(self, *, logits_to_keep: int | torch.Tensor, **inputs: Any) -> SimpleNamespace:
        """Return logits (B, K, L) at the last K positions, or at those given."""
        hidden = self._decoder(**inputs).last_hidden_state
        whole = isinstance(logits_to_keep, int)
        kept = hidden[:, -logits_to_keep:] if whole else hidden[:, logits_to_keep]
        return SimpleNamespace(logits=self._head(kept.to(self._head.weight.dtype)))


def load_head(folder: Path, labels: int) -> torch.nn.Linear:
    """Return the head that lies in `folder`, (E -> labels), fp32.

    Raises ModelError if there is none or if it is of another number of labels.
    """
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                for part in ("weight", "bias"):
                    if f".{name}".endswith(f".{HEAD}.{part}"):
                        found[part] = tensors.get_tensor(name).float()
    if "weight" not in found or len(found["weight"]) != labels:
        raise ModelError(
            f"the classification head for {labels} labels is missing",
            where=str(folder),
            fix="Run `tutelage train` again",
        )
    head = torch.nn.Linear(found["weight"].shape[1], labels, bias="bias" in found)
    head.load_state_dict(found)
    return head.requires_grad_(False).eval()


def load_whole(folder: Path, base: Any, dtype: str) -> Any:
    """Return the language model under a whole classifier: its decoder, with the base's head.

    Training a classifier leaves the head over the vocabulary as it was, so the folder has none
    unless it is tied to the embeddings. Raises ModelError if the folder can't be read.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, report = pretrained(AutoModelForCausalLM, folder, dtype=getattr(torch, dtype))
    except Exception as error:
        raise ModelError(
            f"the model can't be loaded ({type(error).__name__}: {short(error)})",
            where=str(folder),
            fix="Run `tutelage train` again",
        ) from error
    head = model.get_output_embeddings()
    names = {name for name, p in model.named_parameters() if p is head.weight}
    lost = sorted(set(report["missing_keys"]) - names)
    if lost:
        raise ModelError(
            f"{len(lost)} weights are missing, {lost[0]} among them",
            where=str(folder),
            fix="Run `tutelage train` again",
        )
    if report["missing_keys"]:
        with torch.no_grad():
            head.weight.copy_(unwrapped(base).get_output_embeddings().weight)
    return model.eval()


def load_classifier(source: ModelSource, labels: Sequence[str], *, seed: int) -> Any:
    """Return the model with a fresh classification head, drawn from `seed`, in fp32.

    Raises ModelError if transformers has no such form of the model or a weight is missing.
    """
    from transformers import AutoModelForSequenceClassification

    from tutelage.inference.transformers_prepare import prepare

    directory = prepare(source)
    names = dict(enumerate(labels))
    torch.manual_seed(seed)
    try:
        model, report = pretrained(
            AutoModelForSequenceClassification, directory, dtype=torch.float32, id2label=names,
            label2id={name: i for i, name in names.items()},
        )  # fmt: skip
    except Exception as error:
        raise ModelError(
            f"the model has no form with a classification head ({short(error)})",
            where=str(directory),
            fix="Set train.method to cloze, which needs none, or choose another model",
        ) from error
    lost = sorted(name for name in report["missing_keys"] if not name.startswith(f"{HEAD}."))
    if lost or not hasattr(model, HEAD):
        raise ModelError(
            f"{lost[0]} is missing" if lost else "the model's classification head is not a matrix",
            where=str(directory),
            fix="Download the model again, or set train.method to cloze",
        )
    if model.config.pad_token_id is None:  # its own forward finds a row's end by it
        model.config.pad_token_id = model.config.eos_token_id
    return model.eval()
