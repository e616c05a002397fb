"""JSON answers in one format: one line, `", "` and `": "` between, text unescaped.

What another parser could read otherwise is left: names given twice, numbers that do not survive,
half characters.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

_FENCE = re.compile(r"\A```(?:json|JSON)?[ \t]*\n(.*)\n```\Z", re.DOTALL)


def normalise_json(text: str) -> str:
    """Return a JSON object or list in the one format, or `text` itself if it is none."""
    body = unfenced(text)
    if body[:1] not in ("{", "["):
        return text
    try:
        written = json.dumps(json.loads(body), ensure_ascii=False)
        written.encode()
        same = _exact(body) == _exact(written)
    except (ValueError, ArithmeticError, RecursionError):
        return text
    return written if same else text


def unfenced(text: str) -> str:
    """Return what stands in a fence of JSON around the whole text, or the text."""
    found = _FENCE.match(text.strip()) if text.lstrip()[:3] == "```" else None
    return found[1].strip() if found else text.strip()


def _exact(text: str) -> Any:
    """Return the value with numbers to the last digit and names in order, doubled ones too."""
    return json.loads(text, parse_float=Decimal, object_pairs_hook=tuple)
