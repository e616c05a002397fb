"""Reads a model folder's safetensors one tensor at a time, and writes GGUF files the same way.

Memory stays at one tensor: shapes are declared first, then each tensor is loaded, laid out as
llama.cpp wants it, packed and written. Names and row orders are decided elsewhere.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import ModelError
from tutelage.core.workspace import disk_errors
from tutelage.inference.models import weight_files

Weights = NDArray[np.float32]
DTYPES = ("f32", "f16", "bf16", "q8_0")  # what a tensor of a GGUF file can be written as here
_STORED: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_FILE_TYPE = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}  # llama.cpp's general.file_type
_F16_MAX = float(np.finfo(np.float16).max)
_BLOCK = 32  # values of a row that q8_0 packs together


@dataclass(frozen=True)
class _Place:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file


class SafeWeights:
    """The tensors of a folder's safetensors files, by name; nothing is read before `load`."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, _Place] = {}
        for file in weight_files(folder):
            self._places |= _index(file)

    def names(self) -> list[str]:
        """Return every tensor's name, in the files' order."""
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._places[name].shape

    def load(self, name: str) -> Weights:
        """Return a tensor as float32."""
        place = self._places[name]
        count = int(np.prod(place.shape, dtype=np.int64))
        dtype = _STORED[place.dtype]
        flat: NDArray[Any] = np.memmap(place.file, dtype, "r", place.start, (count,))
        if place.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(flat, dtype=np.float32).reshape(place.shape)


@dataclass(frozen=True)
class GgufTensor:
    """A tensor to write: its name and shape in llama.cpp's words, and how to get its values."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Weights]


@dataclass(frozen=True)
class Meta:
    """One metadata pair; `kind` and `inner` are gguf.GGUFValueType numbers (`inner` of arrays)."""

    key: str
    value: Any
    kind: int
    inner: int | None = None


def write_gguf(
    target: Path, architecture: str, metadata: Iterable[Meta], tensors: list[GgufTensor], dtype: str
) -> None:
    """Write a GGUF model, whole or not at all; matrices as `dtype`, vectors as f32.

    Rows that q8_0 can't pack (not a multiple of 32) stay f16. Raises ModelError if a value does
    not fit into f16.
    """
    import gguf

    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            writer = gguf.GGUFWriter(temporary, architecture)
            for pair in metadata:
                inner = None if pair.inner is None else gguf.GGUFValueType(pair.inner)
                kind = gguf.GGUFValueType(pair.kind)
                writer.add_key_value(pair.key, pair.value, kind, sub_type=inner)
            writer.add_file_type(_FILE_TYPE[dtype])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            for tensor in tensors:
                _declare(writer, tensor, _type_of(tensor.shape, dtype))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in tensors:
                writer.write_tensor_data(_packed(tensor, _type_of(tensor.shape, dtype)))
            writer.close()
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _type_of(shape: tuple[int, ...], dtype: str) -> str:
    if len(shape) < 2:
        return "f32"
    return "f16" if dtype == "q8_0" and shape[-1] % _BLOCK else dtype


def _declare(writer: Any, tensor: GgufTensor, dtype: str) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType[dtype.upper()]
    stored = {"f32": np.float32, "f16": np.float16}.get(dtype, np.uint8)
    shape = tensor.shape
    if stored is np.uint8:
        shape = gguf.quant_shape_to_byte_shape(shape, kind)
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(stored).itemsize
    writer.add_tensor_info(tensor.name, shape, np.dtype(stored), size, raw_dtype=kind)


def _packed(tensor: GgufTensor, dtype: str) -> NDArray[Any]:
    import gguf

    values = tensor.load()
    if dtype == "f16" and float(np.abs(values).max(initial=0.0)) > _F16_MAX:
        raise ModelError(
            f"{tensor.name} holds values that float16 can't", fix="Export with --dtype bf16 or f32"
        )
    return np.ascontiguousarray(gguf.quantize(values, gguf.GGMLQuantizationType[dtype.upper()]))


def _index(file: Path) -> dict[str, _Place]:
    """Return where each tensor of a safetensors file lies."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            index = json.loads(stream.read(length))
        places = {
            name: _Place(
                file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
            )
            for name, entry in index.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the model's weights can't be read ({error})", where=str(file)) from error
    for name, place in places.items():
        if place.dtype not in _STORED:
            raise ModelError(f"{name} is stored as {place.dtype}", where=str(file))
    return places
