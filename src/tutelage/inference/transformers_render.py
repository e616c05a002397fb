"""Turn a conversation into token ids: the one rendering that training and evaluation share.

The chat template of the tokenizer decides; a tokenizer without one gets a plain template. The
answer is tokenised apart from the prompt, because at inference the prompt stands alone too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import DataError, ModelError
from tutelage.core.example import Message
from tutelage.inference.chat import as_dicts, neutralise
from tutelage.inference.transformers_prepare import short


@dataclass(frozen=True)
class Rendered:
    """Token ids of one row. `prompt_ids` ends where the model starts to write."""

    prompt_ids: list[int]
    answer_ids: list[int]  # ends with the end-of-turn token; empty without an answer

    @property
    def ids(self) -> list[int]:
        """The whole row."""
        return self.prompt_ids + self.answer_ids


def render(tokenizer: Any, messages: Sequence[Message], *, answer: str | None = None) -> Rendered:
    """Return the ids of the turns in `messages` and, if given, of the answer that follows.

    `messages` come from inference.chat.conversation, which makes control tokens in them inert;
    the answer is made inert here. The text of the prompt is exactly what the chat template
    writes before the answer in the full conversation.
    Raises DataError if the template refuses the turns, ModelError if there is no end token.
    """
    turns = as_dicts(messages)
    prompt = _apply(tokenizer, turns, generate=True)
    prompt_ids = _encode(tokenizer, prompt)
    if answer is None:
        return Rendered(prompt_ids, [])
    answer = neutralise(answer, special_tokens(tokenizer))
    full = _apply(tokenizer, [*turns, {"role": "assistant", "content": answer}], generate=False)
    body = full[len(prompt) :] if full.startswith(prompt) else answer
    ends = end_ids(tokenizer)
    answer_ids = _encode(tokenizer, body)
    cut = next((i for i, token in enumerate(answer_ids) if token in ends), None)
    if cut is None:
        return Rendered(prompt_ids, [*_encode(tokenizer, body.rstrip("\n")), ends[0]])
    return Rendered(prompt_ids, answer_ids[: cut + 1])


def end_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that end a turn: the tokenizer's end token, then those its template uses.

    Raises ModelError if the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no end token, so an answer could never end",
            where=str(getattr(tokenizer, "name_or_path", "")),
            fix="Add `eos_token` to its tokenizer_config.json",
        )
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    named = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eom_id|>")
    vocabulary = tokenizer.get_added_vocab()
    turns = [vocabulary[name] for name in named if name in template and name in vocabulary]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *turns]))


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return every spelling that the tokenizer turns into one control token, sorted."""
    found = set(tokenizer.all_special_tokens)
    found |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(found))


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _apply(tokenizer: Any, turns: list[dict[str, str]], *, generate: bool) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(turns, add_generation_prompt=generate, tokenize=False)
        )
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(
            f"the model's chat template refuses the turns {roles} ({_plain(error)})",
            fix="Give each row turns that alternate between user and assistant, user first",
        ) from error


def _plain(error: Exception) -> str:
    return re.sub(r"\s+", " ", short(error)).rstrip(".!")
