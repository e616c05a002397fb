"""Turns a folder of safetensors into a GGUF model, with a GGUF base as the template or without.

With a template its metadata and tokenizer are kept and only the weights are the folder's; without
one both are written from config.json and tokenizer.json (gguf_config, gguf_vocab). Rows of q and k
are put into llama.cpp's order where the architecture wants it (lora_gguf.PERMUTED).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import ModelError
from tutelage.inference.chat_template import PLAIN_TEMPLATE
from tutelage.inference.gguf_config import (
    architecture_of,
    llama3_factors,
    model_metadata,
    read_config,
)
from tutelage.inference.gguf_header import GgufHeader, read_header
from tutelage.inference.gguf_vocab import vocabulary
from tutelage.inference.gguf_weights import GgufTensor, Meta, SafeWeights, Weights, write_gguf
from tutelage.inference.lora_gguf import PERMUTED, permute_rows
from tutelage.inference.models import ModelSource

_EMBEDDING, _HEAD, _FREQUENCIES = "token_embd.weight", "output.weight", "rope_freqs.weight"
_CONSTANT = (_FREQUENCIES, "rope_factors_long.weight", "rope_factors_short.weight")
_NORM_PLUS_ONE = {"gemma2", "gemma3"}  # llama.cpp multiplies by 1 + w, and stores that sum
_TEMPLATE, _STRING, _ARRAY = "tokenizer.chat_template", 8, 9
_OWN = ("GGUF.", "general.architecture", "general.alignment", "general.file_type",
        "general.quantization_version")  # fmt: skip


def check_writable(source: ModelSource) -> None:
    """Raise ModelError, naming what can be written, if a model's GGUF form can't."""
    if source.kind == "gguf":
        _template_header(source.path)
        return
    config = read_config(source.path)
    model_metadata(config, source.name)
    vocabulary(source.path, int(config["vocab_size"]))


def write_from_template(
    folder: Path, base: Path, target: Path, *, dtype: str, permute: bool = True
) -> None:
    """Write the GGUF file `base` with the weights of the model `folder`.

    `dtype` is one of gguf_weights.DTYPES. `permute=False` leaves q and k rows in transformers'
    order: wrong for llama, there to prove that the parity check notices.
    Raises ModelError if the folder is another model than the file.
    """
    header = _template_header(base)
    heads = {
        "attn_q": int(header.of_architecture("attention.head_count") or 0),
        "attn_k": int(
            header.of_architecture("attention.head_count_kv")
            or header.of_architecture("attention.head_count")
            or 0
        ),
    }
    blocks = int(header.of_architecture("block_count") or 0)
    layout = Layout(header.architecture, blocks, heads if permute else {})
    given = {tensor.name: tensor for tensor in layout.tensors(SafeWeights(folder))}
    metadata, kept = _template(base)
    tensors = []
    for name, shape in header.shapes.items():
        tensor = given.get(name) or kept.get(name)
        if name == _HEAD and tensor is None:
            tensor = GgufTensor(_HEAD, given[_EMBEDDING].shape, given[_EMBEDDING].load)
        if tensor is None or tensor.shape != shape:
            have = "is missing" if tensor is None else f"is {tensor.shape}"
            raise ModelError(
                f"the folder does not fit the GGUF base: {name} is {shape} there and {have} here",
                where=str(folder),
                fix="Export from the base that was tuned",
            )
        tensors.append(tensor)
    if extra := given.keys() - header.shapes.keys() - {_HEAD}:
        raise ModelError(f"the GGUF base has no {min(extra)}", where=str(base))
    write_gguf(target, header.architecture, metadata, tensors, dtype)


def write_from_folder(
    folder: Path, target: Path, *, dtype: str, name: str, permute: bool = True
) -> None:
    """Write the model `folder` (config.json, safetensors, tokenizer.json) as a GGUF file.

    `name` is what the file calls itself. Raises ModelError for an architecture or a tokenizer that
    can't be written, naming those that can.
    """
    config = read_config(folder)
    architecture = architecture_of(config)
    query = int(config["num_attention_heads"])
    heads = {"attn_q": query, "attn_k": int(config.get("num_key_value_heads") or query)}
    blocks = int(config["num_hidden_layers"])
    layout = Layout(architecture, blocks, heads if permute else {})
    tensors = layout.tensors(SafeWeights(folder))
    rows = next((t.shape[0] for t in tensors if t.name == _EMBEDDING), 0)
    metadata = [*model_metadata(config, name), *vocabulary(folder, rows)]
    if config.get("tie_word_embeddings"):
        tensors = [tensor for tensor in tensors if tensor.name != _HEAD]
    factors = llama3_factors(config)
    if factors is not None:
        tensors.append(GgufTensor(_FREQUENCIES, factors.shape, lambda: factors))
    write_gguf(target, architecture, metadata, tensors, dtype)


def _template_header(base: Path) -> GgufHeader:
    header = read_header(base)
    if header.architecture not in PERMUTED:
        raise ModelError(
            f"a {header.architecture!r} model can't be written as GGUF here",
            where=str(base),
            fix=f"Possible: {', '.join(PERMUTED)}; or use --format merged",
        )
    return header


class Layout:
    """Names and row orders of one architecture. `heads` says which rows to permute, by how many."""

    def __init__(self, architecture: str, blocks: int, heads: Mapping[str, int]) -> None:
        import gguf

        kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
        self._names = gguf.get_tensor_name_map(kinds[architecture], blocks)
        self._heads = heads if PERMUTED[architecture] else {}
        self._plus_one = architecture in _NORM_PLUS_ONE

    def tensors(self, weights: SafeWeights) -> list[GgufTensor]:
        """Return every tensor of the folder as llama.cpp wants it; nothing is read yet."""
        found = []
        for name in weights.names():
            ours = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
            if ours is None:
                raise ModelError(f"{name} has no counterpart in a GGUF file of this architecture")
            found.append(GgufTensor(ours, weights.shape(name), self._loader(weights, name, ours)))
        return found

    def _loader(self, weights: SafeWeights, name: str, ours: str) -> Callable[[], Weights]:
        heads = self._heads.get(ours.split(".")[-2])
        if heads:
            return lambda: permute_rows(weights.load(name), heads)
        if self._plus_one and ours.endswith("norm.weight"):
            return lambda: weights.load(name) + np.float32(1)
        return lambda: weights.load(name)


def _template(base: Path) -> tuple[list[Meta], dict[str, GgufTensor]]:
    """Return the file's metadata, and its constant tensors, which transformers computes."""
    import gguf

    reader = gguf.GGUFReader(base)
    metadata = []
    for key, field in reader.fields.items():
        if key.startswith(_OWN):
            continue
        kind = int(field.types[0])
        inner = int(field.types[-1]) if kind == _ARRAY else None
        metadata.append(Meta(key, field.contents(), kind, inner))
    if _TEMPLATE not in reader.fields:
        metadata.append(Meta(_TEMPLATE, PLAIN_TEMPLATE, _STRING))
    kept = {}
    for tensor in reader.tensors:
        if tensor.name in _CONSTANT:
            shape = tuple(int(size) for size in reversed(tensor.shape))
            kept[tensor.name] = GgufTensor(tensor.name, shape, _kept(tensor, shape))
    return metadata, kept


def _kept(tensor: Any, shape: tuple[int, ...]) -> Callable[[], Weights]:
    def load() -> Weights:
        import gguf

        values: Weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        return values.astype(np.float32).reshape(shape)

    return load
