"""JSON of the hot path: msgspec where it says the same as the standard library, else the latter.

What msgspec does not take (lone surrogates, odd numbers and types), and answers that would not be
ASCII, go through `json`. A number that JSON does not have (NaN) is written as null.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

_quick_encode = msgspec.json.Encoder().encode
_quick_decode = msgspec.json.Decoder().decode
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


def encode(value: Any) -> bytes:
    """Return compact JSON in ASCII, in which lone surrogates survive."""
    try:
        quick = _quick_encode(value)
    except (TypeError, ValueError):
        return _encode(value).encode()
    return quick if quick.isascii() else _encode(value).encode()


def decode(raw: bytes, slow: Callable[[bytes], Any] = json.loads) -> Any:
    """Return the value of a JSON text; what `slow` makes of it where msgspec can't read it.

    Raises what `slow` raises: ValueError, RecursionError.
    """
    try:
        return _quick_decode(raw)
    except (ValueError, RecursionError):
        return slow(raw)
