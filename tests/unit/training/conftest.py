"""A tiny random Llama with a byte tokenizer, small enough to train in a second."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_model(directory: Path, **overrides: Any) -> Path:
    """Write a random Llama (hidden 64, 2 layers, grouped keys) and its tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: index for index, char in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    names = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    raw.add_special_tokens([AddedToken(name, special=True) for name in names])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=names[:1],
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(11)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": 257,
        "pad_token_id": 258,
    }
    model = LlamaForCausalLM(LlamaConfig(**(settings | overrides)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.08)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small tensors are fastest, and sums in one order, on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_source(tiny_dir: Path) -> ModelSource:
    """The tiny model as the training stage gets it."""
    return ModelSource(
        spec=str(tiny_dir), name="tiny", kind="directory", path=tiny_dir, digest="0" * 64
    )


@pytest.fixture
def tiny_lora(tiny_source: ModelSource) -> Any:
    """The tiny model under a fresh adapter whose zero half has been given small values."""
    from tutelage.inference.transformers import load_model
    from tutelage.training.adapters import attach_lora
    from tutelage.training.recipe import Recipe

    model = attach_lora(load_model(tiny_source), Recipe(rank=4, alpha=8.0))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model


COLOURS = {
    "amber": "warm", "azure": "cold", "coral": "warm", "teal": "cold", "rust": "warm",
    "navy": "cold", "gold": "warm", "mint": "cold", "brick": "warm", "ice": "cold",
    "honey": "warm", "slate": "cold",
}  # fmt: skip


@pytest.fixture
def colours() -> list[Example]:
    """Twelve short classification rows."""
    return [
        Example(
            messages=(
                Message(role="user", content=f"the colour {name}"),
                Message(role="assistant", content=f'{{"family": "{label}"}}'),
            ),
            label=label,
        )
        for name, label in COLOURS.items()
    ]
