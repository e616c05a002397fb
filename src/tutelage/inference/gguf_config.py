"""Writes a transformers config.json as GGUF metadata, for the architectures whose layout is known.

What llama.cpp would ignore or compute otherwise is refused, never dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import ModelError
from tutelage.inference.gguf_weights import Meta, Weights

# transformers' model_type -> llama.cpp's architecture, where both lay tensors out alike.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "granite": "granite",
    "smollm3": "smollm3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
_UINT32, _FLOAT32, _STRING = 4, 6, 8  # gguf.GGUFValueType
_COUNTS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_GRANITE = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json; raise ModelError if it can't be read."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"config.json can't be read ({error})", where=str(folder)) from error
    return config


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return llama.cpp's architecture; raise ModelError naming those that can be written."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"a {kind!r} model can't be written as GGUF here",
            fix=f"Possible: {', '.join(ARCHITECTURES)}, and any model that was a GGUF file before "
            "tuning; or use --format merged",
        )
    return ARCHITECTURES[kind]


def model_metadata(config: Mapping[str, Any], name: str) -> list[Meta]:
    """Return the metadata that says how the model computes.

    Raises ModelError for a setting that llama.cpp would not honour.
    """
    architecture = architecture_of(config)
    _refuse_unhonoured(config)
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or config["hidden_size"] // heads)
    counts = {key: int(config[field]) for key, field in _COUNTS.items()} | {
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": width,
        "vocab_size": int(config["vocab_size"]),
    }
    rope = rope_of(config)
    values = {
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if rope["rope_type"] == "linear":
        values["rope.scaling.factor"] = float(rope["factor"])
    if architecture == "granite":
        values |= {key: float(config[field]) for key, field in _GRANITE.items()}
    pairs = [Meta("general.type", "model", _STRING), Meta("general.name", name, _STRING)]
    pairs += [Meta(f"{architecture}.{key}", value, _UINT32) for key, value in counts.items()]
    pairs += [Meta(f"{architecture}.{key}", value, _FLOAT32) for key, value in values.items()]
    if rope["rope_type"] == "linear":
        pairs.append(Meta(f"{architecture}.rope.scaling.type", "linear", _STRING))
    return pairs


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings of old and new configs as one: rope_type, rope_theta, factors."""
    found = {
        "rope_theta": config.get("rope_theta", 10000.0),
        **(config.get("rope_scaling") or {}),
        **(config.get("rope_parameters") or {}),
    }
    return {**found, "rope_type": found.get("rope_type") or found.get("type") or "default"}


def llama3_factors(config: Mapping[str, Any]) -> Weights | None:
    """Return the divisor of each rotary frequency under Llama 3's scaling, or None without it.

    Wavelengths beyond the old context / low_freq_factor are divided by `factor`, those below the
    old context / high_freq_factor are kept, those between are blended (transformers'
    modeling_rope_utils, _compute_llama3_parameters). Shape (head width / 2,).
    """
    rope = rope_of(config)
    if rope["rope_type"] != "llama3":
        return None
    width = int(
        config.get("head_dim") or config["hidden_size"] // int(config["num_attention_heads"])
    )
    turns = float(rope["rope_theta"]) ** (np.arange(0, width, 2, dtype=np.float64) / width)
    wavelength = 2 * math.pi * turns
    old, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    blend = np.clip((old / wavelength - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - blend) / factor + blend)).astype(np.float32)


def _refuse_unhonoured(config: Mapping[str, Any]) -> None:
    kind = rope_of(config)["rope_type"]
    problems = []
    if kind not in ("default", "linear", "llama3"):
        problems.append(f"rope_type={kind!r}")
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", True):
        problems.append(f"sliding_window={window}")
    if config.get("hidden_act", "silu") != "silu":
        problems.append(f"hidden_act={config['hidden_act']!r}")
    if config.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        problems.append(f"partial_rotary_factor={config['partial_rotary_factor']}")
    if config.get("model_type") == "smollm3":
        used = config.get("no_rope_layers") or []
        if any(bool(on) == ((i + 1) % 4 == 0) for i, on in enumerate(used)):
            problems.append("no_rope_layers other than every fourth")
    if problems:
        raise ModelError(
            f"llama.cpp would not compute this model alike ({', '.join(problems)})",
            fix="Use --format merged",
        )
