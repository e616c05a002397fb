"""Writes a byte-level BPE tokenizer and its chat template as GGUF metadata; no other kind.

llama.cpp knows how text is cut before merging only by name (`tokenizer.ggml.pre`). The name is
found from the tokenizer's own rule, so a rule without a known name is refused; whether both cut
alike is checked afterwards on real text (`PROBES`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage.core.errors import ModelError
from tutelage.inference.chat_template import PLAIN_TEMPLATE
from tutelage.inference.gguf_weights import Meta

# Text that tells the known cutting rules apart: numbers, contractions, spaces, scripts, code.
PROBES = (
    "In 1984, 3.14159 and 1,000,000 were 12345678 numbers.",
    "I'm sure they'll say it's YOU'RE fault, DON'T you think? 'tis 'Twas",
    "a  b   c\n\n\nd\t\te \r\n  f    ",
    "naïve café — Zürich's Straße; ¿qué? 東京タワー 3階 Привет мир مرحبا ٣٤",
    "def f(x: int) -> str:\n    return f'{x!r}'  # ok?\n\tif x >= 10: pass",
    "émoji 🙂🙃👩‍👩‍👧 ... !!! ?? --- ___ $100 #tag @me https://a.b/c?d=e&f=1",
)
_STRING, _ARRAY, _BOOL, _UINT32, _INT32 = 8, 9, 7, 4, 5  # gguf.GGUFValueType
_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5  # llama.cpp's token types
_CONTRACTIONS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
)
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {
    start + _WORDS % numbers: name
    for start in _CONTRACTIONS
    for numbers, name in (("{1,3}", "llama-bpe"), ("", "qwen2"))
}
_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def vocabulary(folder: Path, rows: int) -> list[Meta]:
    """Return the metadata of the tokenizer in `folder` for `rows` embeddings.

    Raises ModelError, naming what can be exported, if it is not byte-level BPE with a known rule.
    """
    if not (folder / "tokenizer.json").is_file():
        raise _refused(folder, "the model has no tokenizer.json")
    raw, config = _json(folder / "tokenizer.json"), _json(folder / "tokenizer_config.json")
    model = raw.get("model") or {}
    if model.get("type") != "BPE" or not _byte_level(raw) or model.get("byte_fallback"):
        raise _refused(folder, f"the tokenizer is {model.get('type') or 'of an unknown kind'}")
    tokens, kinds = _tokens(raw, rows, folder)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges") or []]
    ids: dict[str | None, int] = {token: place for place, token in enumerate(tokens)}
    pairs = [
        Meta("tokenizer.ggml.model", "gpt2", _STRING),
        Meta("tokenizer.ggml.pre", pre_tokenizer(raw, folder), _STRING),
        Meta("tokenizer.ggml.tokens", tokens, _ARRAY, _STRING),
        Meta("tokenizer.ggml.token_type", kinds, _ARRAY, _INT32),
        Meta("tokenizer.ggml.add_space_prefix", False, _BOOL),
    ]
    if merges:
        pairs.append(Meta("tokenizer.ggml.merges", merges, _ARRAY, _STRING))
    named = {name: _spelling(config.get(f"{name}_token")) for name in _NAMES}
    for name, key in _NAMES.items():
        if named[name] in ids:
            pairs.append(Meta(f"tokenizer.ggml.{key}_token_id", ids[named[name]], _UINT32))
    adds_bos = named["bos"] is not None and _starts_with(raw.get("post_processor"), named["bos"])
    pairs.append(Meta("tokenizer.ggml.add_bos_token", adds_bos, _BOOL))
    pairs.append(Meta("tokenizer.chat_template", chat_template(folder), _STRING))
    return pairs


def chat_template(folder: Path) -> str:
    """Return the folder's chat template, or the plain one that training uses without it."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = _json(folder / "tokenizer_config.json").get("chat_template")
    return found if isinstance(found, str) else PLAIN_TEMPLATE


def pre_tokenizer(raw: Mapping[str, Any], folder: Path) -> str:
    """Return llama.cpp's name of the rule by which text is cut before merging."""
    rule: dict[str, Any] = raw.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = (
        rule["pretokenizers"] if rule.get("type") == "Sequence" else [rule]
    )
    kinds = [step.get("type") for step in steps]
    last: dict[str, Any] = steps[-1] if steps else {}
    if kinds == ["ByteLevel"] and last.get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
        name = _SPLITS.get(str((steps[0].get("pattern") or {}).get("Regex")))
        if name:
            return name
    raise _refused(folder, "the tokenizer cuts text by a rule that has no known name")


def _tokens(raw: Mapping[str, Any], rows: int, folder: Path) -> tuple[list[str], list[int]]:
    """Return the spelling and the kind of every id; embeddings without a token are unused."""
    tokens = [f"[PAD{place}]" for place in range(rows)]
    kinds = [_UNUSED] * rows
    added = raw.get("added_tokens") or []
    top = max([*raw["model"]["vocab"].values(), *(t["id"] for t in added)], default=-1)
    if top >= rows:
        raise ModelError(
            f"the tokenizer has {top + 1} tokens, the model embeds {rows}", where=str(folder)
        )
    for token, place in raw["model"]["vocab"].items():
        tokens[place], kinds[place] = token, _NORMAL
    for token in added:
        tokens[token["id"]] = token["content"]
        kinds[token["id"]] = _CONTROL if token.get("special") else _USER
    return tokens, kinds


def _byte_level(raw: Mapping[str, Any]) -> bool:
    return any(part.get("type") == "ByteLevel" for part in _parts(raw.get("pre_tokenizer")))


def _starts_with(processor: Any, token: str | None) -> bool:
    """Whether the post-processor puts `token` before every text."""
    for part in _parts(processor):
        for piece in part.get("single") or []:
            if "Sequence" in piece:
                break
            if (piece.get("SpecialToken") or {}).get("id") == token:
                return True
    return False


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a tokenizer component and those inside it."""
    if isinstance(value, Mapping):
        yield value
        for name in ("pretokenizers", "processors"):
            for inner in value.get(name) or []:
                yield from _parts(inner)


def _spelling(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file.name} can't be read ({error})", where=str(file.parent)) from error
    return found if isinstance(found, dict) else {}


def _refused(folder: Path, what: str) -> ModelError:
    return ModelError(
        f"{what}, so no GGUF vocabulary can be written for it",
        where=str(folder),
        fix="Byte-level BPE tokenizers of the GPT-2, SmolLM, Llama 3 and Qwen 2 families can be "
        "exported; for others start from a GGUF base, or use --format merged",
    )
