"""Makes small llama models and adapters for the engine's tests: exact weights, quick to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYERS = 4
TEXTS = (
    "asthma", "acute appendicitis", "What is the capital of France?", "Name three colours.",
    "fracture of the femur", "Say yes.", "2 + 2 =", "Who wrote Hamlet?", "the sun is a",
    "diabetes mellitus type 2",
)  # fmt: skip


def first_layers(source: Path, target: Path) -> Path:
    """Write the first layers of a GGUF model, dequantised to float32, with its own vocabulary.

    Quantised engines round activations and so flip near-ties; in float32 both engines agree, and
    a difference is an error.
    """
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value: Any = field.contents()
        if key == "llama.block_count":
            value = LAYERS
        if key == "general.file_type":
            value = 0
        writer.add_key_value(key, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        part = tensor.name.split(".")
        if part[0] == "blk" and int(part[1]) >= LAYERS:
            continue
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def write_adapter(folder: Path, tensors: dict[str, np.ndarray[Any, Any]], **config: Any) -> Path:
    """Write a PEFT folder. Keys are module names with `.lora_A` or `.lora_B`; dtype is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for key, value in tensors.items():
        name = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[value.dtype.name]
        end = len(body) + value.nbytes
        index[f"base_model.model.{key}.weight"] = {
            "dtype": name, "shape": list(value.shape), "data_offsets": [len(body), end],
        }  # fmt: skip
        body += np.ascontiguousarray(value).tobytes()
    head = json.dumps(index).encode()
    (folder / "adapter_model.safetensors").write_bytes(
        len(head).to_bytes(8, "little") + head + body
    )
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 4,
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


def strong_adapter(folder: Path, shapes: dict[str, tuple[int, ...]], *, layers: int) -> Path:
    """Write a random adapter on q, k, v and down whose effect is far above rounding.

    `shapes` are the base's, by GGUF name: (rows, columns).
    """
    random = np.random.default_rng(5)
    modules = {
        "attn_q": ("self_attn.q_proj", 0.3),
        "attn_k": ("self_attn.k_proj", 0.3),
        "attn_v": ("self_attn.v_proj", 0.05),
        "ffn_down": ("mlp.down_proj", 0.05),
    }
    tensors = {}
    for layer in range(layers):
        for short, (module, size) in modules.items():
            rows, columns = shapes[f"blk.{layer}.{short}.weight"]
            name = f"model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A"] = random.normal(0, 0.04, (8, columns)).astype(np.float32)
            tensors[f"{name}.lora_B"] = random.normal(0, size, (rows, 8)).astype(np.float32)
    targets = [module.split(".")[1] for module, _ in modules.values()]
    return write_adapter(folder, tensors, r=8, lora_alpha=16, target_modules=targets)
