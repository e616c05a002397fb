"""Whose texts the log keeps. It decides nothing else: what is written of them is redacted or not.

A record without texts keeps its ids, times, counts and checks: rollouts, usage and rates need
them. Its user is kept as a hash.
"""

from __future__ import annotations

from tutelage.core.config import Deploy

_DIGITS = 8  # of the id, hexadecimal and random


def keeps_texts(deploy: Deploy, record: str) -> bool:
    """Return whether the texts of `record` are logged: by `deploy.log`, or drawn by its id."""
    if deploy.log == "all":
        return True
    if deploy.log == "none":
        return False
    return int(record[-_DIGITS:], 16) < deploy.log_share * float(16**_DIGITS)
