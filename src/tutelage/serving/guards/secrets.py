"""Keys, tokens and passwords in a text, by the forms their makers give them.

A text that holds none of the marks is left after a few substring searches. A find is named, never
quoted. Low-entropy passwords in prose are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FORMS: tuple[tuple[str, str, str], ...] = (
    # what it is, a mark that stands in every one, the form
    ("an AWS access key", "AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
    ("an AWS access key", "ASIA", r"\bASIA[0-9A-Z]{16}\b"),
    ("a GitHub token", "gh", r"\bgh[pousr]_[A-Za-z0-9]{30,}"),
    ("a GitHub token", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    ("a GitLab token", "glpat-", r"\bglpat-[\w-]{20,}"),
    ("a Slack token", "xox", r"\bxox[abeoprs]-[\w-]{10,}"),
    ("an API key", "sk-", r"\bsk-[A-Za-z0-9_-]{20,}"),
    ("a Stripe key", "k_live_", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    ("a Google API key", "AIza", r"\bAIza[\w-]{35}"),
    ("a Hugging Face token", "hf_", r"\bhf_[A-Za-z0-9]{30,}"),
    ("an npm token", "npm_", r"\bnpm_[A-Za-z0-9]{36}"),
    ("a PyPI token", "pypi-", r"\bpypi-AgEI[\w-]{20,}"),
    ("a key of this gateway", "tut_", r"\btut_[\w-]{20,}"),
    ("a private key", "PRIVATE KEY", r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----"),
    ("a signed token (JWT)", "eyJ", r"\beyJ[\w-]{8,1000}\.eyJ[\w-]{8,}"),
    ("a password in an address", "://", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:[^\s/@]{3,}@"),
)
_COMPILED = tuple((name, mark, re.compile(form)) for name, mark, form in _FORMS)
_ASSIGNED = re.compile(
    r"\b(?:pass(?:word|wd|phrase)|pwd|api[_-]?key|secret[_-]?key|access[_-]?token|client[_-]?secret)"
    r"[\"']?\s{0,3}(?:[:=]|is)\s{0,3}[\"'`]?(?P<value>(?=[^\s\"'`]{0,200}\d)"
    r"(?=[^\s\"'`]{0,200}[A-Za-z])[^\s\"'`<>{}]{8,200})",
    re.IGNORECASE,
)
_ASSIGNED_MARKS = ("pass", "pwd", "key", "secret", "token")


def find_secrets(text: str) -> Iterator[tuple[str, str]]:
    """Yield (what it looks like, the secret itself) for each one in the text."""
    for name, mark, form in _COMPILED:
        if mark in text:
            for match in form.finditer(text):
                yield name, match[0]
    low = text.lower()
    if any(mark in low for mark in _ASSIGNED_MARKS):
        for match in _ASSIGNED.finditer(text):
            yield "a password or key", match["value"]
