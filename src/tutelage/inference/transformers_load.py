"""Load a base model, its tokenizer and PEFT adapters; what can't be used says why.

Nothing is downloaded, no code of a model is run, and no pickle is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tutelage.core.errors import ModelError
from tutelage.inference.chat_template import PLAIN_TEMPLATE
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers_prepare import prepare, quiet, short
from tutelage.inference.tuned import ADAPTER


def load_tokenizer(source: ModelSource) -> Any:
    """Return the model's tokenizer; one without a chat template gets a plain one.

    Raises ModelError if it can't be read.
    """
    from transformers import AutoTokenizer

    directory = prepare(source)
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise _unreadable("the tokenizer", directory, error) from error
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def load_model(
    source: ModelSource,
    *,
    dtype: str = "float32",
    adapter: Path | None = None,
    quantization: Any = None,
) -> torch.nn.Module:
    """Return the model in evaluation mode, with `adapter` (a PEFT folder) on top if given.

    `dtype` is a torch name (float32, bfloat16, float16), `quantization` a configuration of
    transformers by which the weights are packed as they are read. Raises ModelError if a file is
    damaged, a weight is missing or the adapter does not fit.
    """
    from transformers import AutoModelForCausalLM

    directory = prepare(source)
    kind = getattr(torch, dtype)
    try:
        model, report = pretrained(
            AutoModelForCausalLM, directory, dtype=kind, quantization_config=quantization
        )
    except Exception as error:
        raise _unreadable("the model", directory, error) from error
    lost = sorted([*report["missing_keys"], *(str(k) for k in report["mismatched_keys"])])
    if lost:
        raise ModelError(
            f"{len(lost)} weights are missing or of another shape, {lost[0]} among them",
            where=str(directory),
            fix="Download the model again",
        )
    model.eval()
    return model if adapter is None else with_adapter(model, adapter, "default")


def pretrained(auto: Any, directory: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return what the transformers class `auto` makes of a folder, and its report on the weights.

    No download, no code of the model, no pickle.
    """
    with quiet():
        model, report = auto.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True, **options,
        )  # fmt: skip
    return model, report


def unwrapped(model: Any) -> Any:
    """Return the model without what PEFT put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def with_adapter(model: Any, adapter: Path, name: str) -> Any:
    """Return `model` as a PEFT model with `adapter` loaded under `name` and active."""
    from peft import PeftModel

    check_adapter(adapter)
    with quiet():
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(str(adapter), adapter_name=name, is_trainable=False)
            else:
                model = PeftModel.from_pretrained(
                    model, str(adapter), adapter_name=name, is_trainable=False
                )
        except Exception as error:
            raise ModelError(
                f"the adapter does not fit the model ({short(error)})",
                where=str(adapter),
                fix="Use the base model it was trained on, or train again",
            ) from error
    model.set_adapter(name)
    model.eval()
    return model


def check_adapter(adapter: Path) -> None:
    """Raise ModelError if the folder lacks a part of a PEFT adapter."""
    for part in ADAPTER:
        if not (adapter / part).is_file():
            raise ModelError(
                f"the adapter has no {part}", where=str(adapter), fix="Run `tutelage train` again"
            )


def _unreadable(what: str, directory: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{what} can't be loaded ({type(error).__name__}: {short(error)})",
        where=str(directory),
        fix="Download it again, or name another model",
    )
