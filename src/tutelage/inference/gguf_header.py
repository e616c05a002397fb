"""Reads the head of a GGUF file: its metadata and the shapes of its tensors; never the weights.

The `gguf` package's reader builds every vocabulary string as an array first (seconds and 100 MB
for a 49k vocabulary); this one steps over them. Format: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import ModelError

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LONG = 1024  # arrays longer than this (vocabularies) are stepped over


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself. Shapes are in numpy order: (rows, columns)."""

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        """Return `<architecture>.<key>` of the metadata, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


class _Cursor:
    """A place in the mapped file that moves as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def take(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        length = self.take("Q")
        value = self.data[self.at : self.at + length].decode("utf-8", "replace")
        self.at += length
        return value

    def value(self, kind: int, *, whole: bool = False) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.take(_SCALARS[kind])
        inner, length = self.take("I"), self.take("Q")
        if whole or length <= _LONG:
            return [self.value(inner) for _ in range(length)]
        if inner == _STRING:
            for _ in range(length):
                self.at += 8 + struct.unpack_from("<Q", self.data, self.at)[0]
        else:
            self.at += struct.calcsize(f"<{_SCALARS[inner]}") * length
        return None


def read_header(path: Path, keep: frozenset[str] = frozenset()) -> GgufHeader:
    """Return the head of the GGUF file at `path`; raise ModelError if it is not one.

    Metadata named in `keep` is read however long it is.
    """
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _parse(_Cursor(data), keep)
    except OSError as error:
        raise ModelError(
            f"the model file can't be opened ({error.strerror})", where=str(path)
        ) from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise ModelError(
            "this is not a complete GGUF file",
            where=str(path),
            fix="Download or convert the model again",
        ) from error


def _parse(cursor: _Cursor, keep: frozenset[str]) -> GgufHeader:
    if cursor.take("4s") != b"GGUF":
        raise ValueError("magic")
    if cursor.take("I") not in (2, 3):
        raise ValueError("version")
    tensors, pairs = cursor.take("Q"), cursor.take("Q")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.text()
        value = cursor.value(cursor.take("I"), whole=key in keep)
        if value is not None:
            metadata[key] = value
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(tensors):
        name = cursor.text()
        dims = [cursor.take("Q") for _ in range(cursor.take("I"))]
        cursor.take("I"), cursor.take("Q")  # type, offset
        shapes[name] = tuple(reversed(dims))
    return GgufHeader(metadata, shapes)
