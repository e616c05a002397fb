"""What is done to the texts of a delivery before anything is kept of it.

They become what a database can hold, and lose what the project wants redacted. Whether they make
sense is decided in signals.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.serving.records.record_texts import kept_name
from tutelage.serving.records.request_log import Redactor, safe_text

_WRITTEN = ("edit", "comment")  # by people: they may hold anything


def clean(body: Mapping[str, Any], redactor: Redactor, key: bytes) -> dict[str, Any]:
    """Return the delivery with its texts, those among its signals included, fit to be stored.

    An author whose name the redactor objects to is a hash with the project's split `key`.
    """
    found = {name: safe_text(v) if isinstance(v, str) else v for name, v in body.items()}
    for name in _WRITTEN:
        if isinstance(found.get(name), str):
            found[name] = redactor(found[name])
    if isinstance(found.get("author"), str):
        found["author"] = kept_name(found["author"], redactor, key)
    signals = found.get("signals")
    if isinstance(signals, dict):
        found["signals"] = {
            name: redactor(safe_text(v)) if isinstance(v, str) else v for name, v in signals.items()
        }
    return found
