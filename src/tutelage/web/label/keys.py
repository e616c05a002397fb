"""Which key gives which label: digits first, then the letters that nothing else is bound to."""

from __future__ import annotations

from collections.abc import Sequence

ACCEPT, SAVE, SKIP, UNSURE, COMMENT = "Enter", "ctrl+Enter", "s", "u", "c"
WRITE, HIDE, BACK, GUIDE, FIND = "e", "x", "z", "h", "/"
_TAKEN = {SKIP, UNSURE, COMMENT, WRITE, HIDE, BACK, GUIDE, "g"}  # g begins "g l" and the like
_KEYS = "123456789" + "".join(c for c in "abcdefghijklmnopqrstuvwxyz" if c not in _TAKEN)


def label_keys(labels: Sequence[str]) -> dict[str, str]:
    """Return {label: key} for as many labels as there are keys, in their order."""
    return dict(zip(labels, _KEYS, strict=False))
