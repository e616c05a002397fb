"""Takes secrets out of what is told to a tracker: by the name of the value, its look, its source.

It errs on the safe side for whole values and never looks into files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"
_SHORTEST = 8  # characters from which on an environment's secret is looked for in values
_NAMES = {
    "apikey", "authorization", "credential", "credentials", "key", "passphrase", "password",
    "passwd", "pwd", "secret", "token",
}  # fmt: skip
_LOOKS = re.compile(
    r"""\b(?:sk|pk|rk)-[\w-]{16,}      # OpenAI, Anthropic, Stripe
      | \bhf_\w{16,}                   # Hugging Face
      | \bgh[pousr]_\w{20,}            # GitHub
      | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b  # AWS
      | \bAIza[\w-]{30,}               # Google
      | \bxox[abprs]-[\w-]{10,}        # Slack
      | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*   # a JSON web token
      | (?<=bearer\s)\S{8,}
      | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)     # user:password in a URL
    """,
    re.VERBOSE | re.IGNORECASE,
)


def redact(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with every secret replaced by `[redacted]`."""
    known = _of_environment()
    return {name: _cleaned(name, value, known) for name, value in values.items()}


def _cleaned(name: str, value: Any, known: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _cleaned(str(key), inner, known) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(name, inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    if value and _is_secret_name(name):
        return HIDDEN
    for secret in known:
        value = value.replace(secret, HIDDEN)
    return _LOOKS.sub(HIDDEN, value)


def _is_secret_name(name: str) -> bool:
    """Return whether a value of this name is secret; `api_key_env` only names a variable."""
    parts = [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]
    return parts[-1:] != ["env"] and bool(_NAMES & set(parts))


def _of_environment() -> list[str]:
    """Return the values of the environment's secret-looking variables, longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and _is_secret_name(name)
    }
    return sorted(found, key=len, reverse=True)
