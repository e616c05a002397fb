"""Which spellings a model's tokenizer turns into one control token, read from its files alone.

It loads no tokenizer and imports no torch: serving neutralises these in user text.
"""

from __future__ import annotations

import json
from pathlib import Path

from tutelage.core.errors import ModelError
from tutelage.inference.gguf_header import read_header
from tutelage.inference.models import ModelSource

_TOKENS, _KINDS = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_CONTROL = 3  # llama.cpp's token type of what training and serving must not see in user text


def special_spellings(source: ModelSource) -> tuple[str, ...]:
    """Return the control tokens' spellings, sorted; empty if the files name none.

    Raises ModelError if the files can't be read.
    """
    if source.kind == "gguf":
        return _of_gguf(source.path)
    return _of_directory(source.path)


def _of_gguf(path: Path) -> tuple[str, ...]:
    metadata = read_header(path, frozenset((_TOKENS, _KINDS))).metadata
    tokens, kinds = metadata.get(_TOKENS) or [], metadata.get(_KINDS) or []
    found = {
        token
        for token, kind in zip(tokens, kinds, strict=False)
        if kind == _CONTROL and token.strip()
    }
    return tuple(sorted(found))


def _of_directory(path: Path) -> tuple[str, ...]:
    found: set[str] = set()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = path / name
        if not file.is_file():
            continue
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError("the tokenizer's file can't be read", where=str(file)) from error
        added = values.get("added_tokens") or []
        decoder = values.get("added_tokens_decoder") or {}
        for token in [*added, *(decoder.values() if isinstance(decoder, dict) else [])]:
            if token.get("special") and token["content"].strip():
                found.add(token["content"])
    return tuple(sorted(found))
