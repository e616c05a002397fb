"""Writes tiny random models with a real byte-pair tokenizer, of several architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.fakes.tiny_llama import CHATML

from tutelage.inference.gguf_vocab import PROBES
from tutelage.inference.transformers_prepare import quiet

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = ("<|im_start|>", "<|im_end|>", "<|pad|>")
WORDS = (
    "the colour of the thing is warm or cold, and the answer is a family of colours",
    "system user assistant 1984 1985 12345678 12345 100 200 300 you're they'll it's",
)


def pre_tokenizer(rule: str) -> Any:
    """Return the cutting rule that llama.cpp calls `rule`."""
    from tokenizers import Regex, pre_tokenizers

    if rule == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if rule == "smollm":
        first: Any = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    pattern = SPLIT % {"llama-bpe": "{1,3}", "qwen2": "", "other": "{1,2}"}[rule]
    first = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([first, last])


def build_bpe_model(
    directory: Path,
    *,
    kind: str = "llama",
    rule: str = "smollm",
    outer: float = 0.5,
    **settings: Any,
) -> Path:
    """Write a random model of transformers' type `kind` (hidden 64, 2 layers) and its tokenizer.

    `outer` is the spread of the embeddings and the head: wide enough for clear first choices.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet():
        tokenizer = build_tokenizer(rule)
        torch.manual_seed(11)
        config = AutoConfig.for_model(
            kind,
            **{
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 1024,
                "bos_token_id": None,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            }
            | settings,
        )
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:
                    ends = "embed_tokens" in name or "lm_head" in name
                    parameter.normal_(std=outer if ends else 0.12)
                else:  # biases and norms
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory


def build_tokenizer(rule: str) -> Any:
    """Return a tokenizer of 384 merged byte pairs, chatml, that cuts text by `rule`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizer(rule)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    raw.train_from_iterator([*WORDS, *PROBES], trainer)
    raw.add_special_tokens([AddedToken(name, special=True) for name in NAMES])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=NAMES[1],
        pad_token=NAMES[2],
        additional_special_tokens=[NAMES[0]],
    )
    tokenizer.chat_template = CHATML
    return tokenizer
