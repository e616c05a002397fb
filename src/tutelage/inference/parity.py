"""Compares what an engine writes with what was expected of a release; decides nothing.

The release step uses it before traffic moves: the texts are the reference path's (transformers)
or the release's golden answers. Quantised engines flip near-ties, so the caller sets the share
that must match.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.core.errors import EnvironmentProblem
from tutelage.inference.base import Prompt
from tutelage.inference.chat import as_dicts


@dataclass(frozen=True)
class Mismatch:
    """One answer that differs: the row's index, what was expected and what came."""

    index: int
    expected: str
    got: str


@dataclass(frozen=True)
class Parity:
    """How many answers were the expected text, character by character."""

    matches: int
    total: int
    mismatches: tuple[Mismatch, ...]

    @property
    def share(self) -> float:
        """Matching answers over all, 0..1; 1 for no prompts."""
        return self.matches / self.total if self.total else 1.0


def compare(
    engine_base_url: str,
    release: str,
    prompts: Sequence[Prompt],
    expected: Sequence[str],
    *,
    timeout_s: float = 120.0,
) -> Parity:
    """Ask the engine every prompt, one at a time, and compare the texts.

    Raise EnvironmentProblem if the engine can't be reached or refuses a prompt.
    """
    mismatches = []
    for index, (prompt, text) in enumerate(zip(prompts, expected, strict=True)):
        got = _ask(engine_base_url, release, prompt, timeout_s)
        if got != text:
            mismatches.append(Mismatch(index, text, got))
    return Parity(len(prompts) - len(mismatches), len(prompts), tuple(mismatches))


def _ask(base_url: str, release: str, prompt: Prompt, timeout_s: float) -> str:
    decoding = prompt.decoding
    body = {
        "model": release,
        "messages": as_dicts(prompt.messages),
        "temperature": decoding.temperature,
        "max_tokens": decoding.max_tokens,
        "seed": decoding.seed,
        "stop": list(decoding.stop),
    }
    request = urllib.request.Request(  # noqa: S310 - the engine's own loopback address
        f"{base_url.rstrip('/')}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            answer = json.load(response)
    except (urllib.error.URLError, TimeoutError) as error:
        detail = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
        raise EnvironmentProblem(
            f"the engine did not answer for release {release!r} ({detail})", where=base_url
        ) from error
    return str(answer["choices"][0]["message"]["content"])
