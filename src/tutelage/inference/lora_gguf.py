"""Turns a PEFT LoRA adapter into a GGUF LoRA file for llama.cpp; merges nothing, trains nothing.

What differs between the two formats:
- names: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` is
  `blk.0.attn_q.weight.lora_a`;
- row order: for llama-like models GGUF stores the rows of q and k by rotary pairs, so the rows of
  their lora_B are permuted the same way (rows belong to B, so A stays);
- scale: llama.cpp multiplies by alpha / rank of each tensor, with one alpha for the file; rsLoRA
  and per-module alphas are folded into lora_B;
- precision: float16 (relative rounding 5e-4). Beside a base that is itself quantised, matrices
  whose rows are whole blocks are stored as Q8_0 (off by at most a 254th of a block's largest).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import ModelError, TutelageError
from tutelage.core.workspace import disk_errors
from tutelage.inference.gguf_header import GgufHeader, read_header

Weights = NDArray[np.float32]

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
_FORMAT = "3"  # raise it when the conversion changes, so cached files are made again

# Whether the GGUF of an architecture has q and k in rotary-pair order (conversion/*.py upstream).
PERMUTED = {
    "llama": True,
    "granite": True,
    "smollm3": True,
    "qwen2": False,
    "qwen3": False,
    "gemma2": False,
    "gemma3": False,
    "phi3": False,
}
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_BLOCK = 32  # values that share a scale in Q8_0
_WHOLE_FILES = (0, 1, 32)  # general.file_type of float32, float16 and bfloat16 weights
_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight$"
)


@dataclass(frozen=True)
class _Pair:
    """One adapted module: A of shape (rank, in), B of shape (out, rank)."""

    a: Weights
    b: Weights

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


def ensure_lora_gguf(adapter: Path, base: Path, cache: Path) -> Path:
    """Return the GGUF form of `adapter` for the model file `base`, made once and kept in `cache`.

    Keyed by the adapter's content and the base's architecture, so a moved adapter is found again.
    """
    header = read_header(base)
    target = _kept(adapter, header, cache)
    if not target.is_file():
        convert(adapter, header, target)
    return target


def ensure_apart(adapter: Path, base: Path, cache: Path) -> Path:
    """Do the same in a process of its own: an engine keeps neither its memory nor its pause."""
    target = _kept(adapter, read_header(base), cache)
    if not target.is_file():
        command = [sys.executable, "-P", "-m", __name__, str(adapter), str(base), str(cache)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise _told(done)
    return target


def _told(done: subprocess.CompletedProcess[str]) -> ModelError:
    try:
        error = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return ModelError(f"the adapter could not be converted ({last})")
    return ModelError(error["what"], where=error["where"], fix=error["fix"])


def _kept(adapter: Path, header: GgufHeader, cache: Path) -> Path:
    form = f"{_FORMAT} {header.architecture} {_heads(header)} {_quantised(header)}"
    digest = hashlib.sha256(form.encode())
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        digest.update(hashlib.sha256(_read(adapter / name)).digest())
    return cache / "lora" / f"{digest.hexdigest()[:24]}.gguf"


def convert(
    adapter: Path,
    header: GgufHeader,
    target: Path,
    *,
    permute: bool = True,
    dtype: str = "float16",
) -> None:
    """Write the GGUF form of the PEFT folder `adapter` to `target`, whole or not at all.

    `dtype` is a numpy name, for matrices that are not packed. `permute=False` leaves q and k rows
    in PEFT's order: wrong for llama, there to prove that the parity check notices.
    """
    architecture = header.architecture
    if architecture not in PERMUTED:
        raise ModelError(
            f"adapters for the architecture {architecture!r} can't be converted for llama.cpp yet",
            where=str(adapter),
            fix=f"Set deploy.backend: transformers; convertible: {', '.join(PERMUTED)}",
        )
    config = _config(adapter)
    name_of = _namer(header)
    tensors: dict[str, NDArray[Any]] = {}
    alpha = float(config["lora_alpha"])
    for module, pair in _pairs(adapter / WEIGHTS_NAME).items():
        name = f"{name_of(module)}.weight"
        b = pair.b * np.float32(_scale(config, module, pair.rank) / (alpha / pair.rank))
        heads = _heads(header).get(module.rsplit(".", 1)[-1])
        if permute and heads and PERMUTED[architecture]:
            b = permute_rows(b, heads)
        _check_shape(module, (b.shape[0], pair.a.shape[1]), header.shapes.get(name), adapter)
        tensors[f"{name}.lora_a"] = pair.a
        tensors[f"{name}.lora_b"] = b
    packed = _quantised(header)
    plain = {
        key: matrix.astype(dtype, order="C")
        for key, matrix in tensors.items()
        if not packed or matrix.shape[1] % _BLOCK
    }
    _write(target, architecture, alpha, tensors | plain, tensors.keys() - plain.keys())


def _quantised(header: GgufHeader) -> bool:
    """Return whether the base's own weights are rounded further than to 16 bits."""
    return header.metadata.get("general.file_type", 0) not in _WHOLE_FILES


def check_convertible(adapter: Path) -> None:
    """Raise ModelError if llama.cpp could not apply the adapter, whatever its weights."""
    _config(adapter)


def permute_rows(rows: Weights, heads: int) -> Weights:
    """Return `rows` (heads * width, rank) from half-split to pair order within each head.

    Row i and row i + width/2 of a head rotate together; GGUF's llama puts them side by side.
    """
    half = rows.shape[0] // heads // 2
    paired = rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(paired.reshape(rows.shape))


def read_safetensors(path: Path) -> dict[str, Weights]:
    """Return every tensor of a safetensors file as float32 (stored F32, F16 or BF16)."""
    raw = _read(path)
    try:
        length = int.from_bytes(raw[:8], "little")
        index = json.loads(raw[8 : 8 + length])
        body = memoryview(raw)[8 + length :]
        return {
            name: _as_float32(body, entry)
            for name, entry in index.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter's weights can't be read ({error})",
            where=str(path),
            fix="Train or download the adapter again",
        ) from error


def _as_float32(body: memoryview, entry: Mapping[str, Any]) -> Weights:
    start, end = entry["data_offsets"]
    flat: NDArray[Any] = np.frombuffer(body[start:end], dtype=_DTYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    values: Weights = flat.astype(np.float32).reshape(entry["shape"])
    return values


def _pairs(path: Path) -> dict[str, _Pair]:
    """Return A and B of every adapted module, by module (`model.layers.0.self_attn.q_proj`)."""
    sides: dict[str, dict[str, Weights]] = {}
    for key, tensor in read_safetensors(path).items():
        found = _KEY.match(key)
        if not found or tensor.ndim != 2:
            raise ModelError(
                f"the adapter holds {key!r}, which is not a LoRA matrix of a linear layer",
                where=str(path),
                fix="Set deploy.backend: transformers",
            )
        sides.setdefault(found["module"], {})[found["side"]] = tensor
    for module, both in sides.items():
        if set(both) != {"A", "B"} or both["A"].shape[0] != both["B"].shape[1]:
            raise ModelError(f"{module}: lora_A and lora_B do not fit", where=str(path))
    return {module: _Pair(both["A"], both["B"]) for module, both in sides.items()}


def _config(adapter: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(_read(adapter / CONFIG_NAME))
    except ValueError as error:
        raise ModelError("the adapter's config is not JSON", where=str(adapter)) from error
    problems = [
        f"{key}={config[key]!r}"
        for key, plain in (("peft_type", "LORA"), ("bias", "none"))
        if config.get(key, plain) != plain
    ] + [
        f"{key}={config[key]!r}"
        for key in ("use_dora", "modules_to_save", "fan_in_fan_out", "layer_replication")
        if config.get(key)
    ]
    if problems or not config.get("lora_alpha"):
        raise ModelError(
            f"llama.cpp can't apply this adapter ({', '.join(problems) or 'no lora_alpha'})",
            where=str(adapter / CONFIG_NAME),
            fix="Set deploy.backend: transformers, train a plain LoRA adapter, or export the "
            "merged model (`--format gguf`)",
        )
    return config


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return PEFT's multiplier of B @ A: alpha / r, or alpha / sqrt(r) for rsLoRA (2312.03732)."""
    alpha = float(config["lora_alpha"])
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = float(value)
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _heads(header: GgufHeader) -> dict[str, int]:
    """Return how many heads the rows of q and k hold."""
    query = int(header.of_architecture("attention.head_count") or 0)
    key = int(header.of_architecture("attention.head_count_kv") or query)
    return {"q_proj": query, "k_proj": key}


def _namer(header: GgufHeader) -> Callable[[str], str]:
    """Return what turns a module's name into llama.cpp's, `blk.0.attn_q`."""
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    blocks = int(header.of_architecture("block_count") or 0)
    names = gguf.get_tensor_name_map(kinds[header.architecture], blocks)

    def name_of(module: str) -> str:
        name = names.get_name(module)
        if name is None:
            raise ModelError(f"{module} has no counterpart in a {header.architecture} GGUF file")
        return str(name)

    return name_of


def _check_shape(
    module: str, adapted: tuple[int, int], base: tuple[int, ...] | None, adapter: Path
) -> None:
    if base != adapted:
        have = "it has no such layer" if base is None else f"there it is {base}"
        raise ModelError(
            f"the adapter does not fit the base model: {module} is {adapted}, {have}",
            where=str(adapter),
            fix="Name the base model that the adapter was trained on",
        )


def _write(
    target: Path,
    architecture: str,
    alpha: float,
    tensors: Mapping[str, NDArray[Any]],
    packed: Set[str],
) -> None:
    """Write the file whole or not at all; the matrices in `packed` as Q8_0."""
    import gguf

    blocks = gguf.GGMLQuantizationType.Q8_0

    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            writer = gguf.GGUFWriter(temporary, architecture)
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", alpha)
            for key, tensor in tensors.items():
                if key in packed:
                    made = gguf.quantize(np.ascontiguousarray(tensor), blocks)
                    writer.add_tensor(key, made, raw_dtype=blocks)
                else:
                    writer.add_tensor(key, tensor)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the adapter file can't be read ({error.strerror})",
            where=str(path),
            fix="Name a folder with adapter_config.json and adapter_model.safetensors",
        ) from error


def main(adapter: str, base: str, cache: str) -> int:
    """Convert; on failure print the error as JSON and return its exit status."""
    try:
        ensure_lora_gguf(Path(adapter), Path(base), Path(cache))
    except TutelageError as error:
        print(json.dumps(error.as_dict()))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
