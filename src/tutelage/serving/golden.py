"""Golden prompts at load: does the engine answer for a release what the release answered before?

A look that the right adapter is there and works, not an evaluation: rounding differs between
engines, so half of the answers must agree, not all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tutelage.core.example import Message
from tutelage.inference.chat import as_dicts, conversation
from tutelage.release.bundle import Golden, manifest_of
from tutelage.serving.router import Profile
from tutelage.serving.wire.upstream import Upstream
from tutelage.serving.wire.wire import HttpError
from tutelage.store.releases import ReleaseRow

_MOST = 8
_AGREE = 0.5


@dataclass(frozen=True)
class GoldenResult:
    """Why the release can't go on (None: it may), and the figures."""

    fault: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


async def check_golden(upstream: Upstream, profile: Profile, release: ReleaseRow) -> GoldenResult:
    """Ask the engine the release's golden prompts (at most 8) and compare the answers."""
    prompts = manifest_of(release).golden[:_MOST]
    if not prompts:
        return GoldenResult(evidence={"asked": 0})
    answers = await asyncio.gather(*(_ask(upstream, profile, golden) for golden in prompts))
    agreed = sum(
        answer is not None and answer.strip() == golden.expected.strip()
        for answer, golden in zip(answers, prompts, strict=True)
    )
    evidence = {"asked": len(prompts), "agreed": agreed}
    if all(answer is None for answer in answers):
        return GoldenResult("the candidate answers none of its golden prompts", evidence)
    if agreed < _AGREE * len(prompts):
        fault = f"{agreed} of {len(prompts)} golden prompts are answered as they were evaluated"
        return GoldenResult(f"only {fault}", evidence)
    return GoldenResult(evidence=evidence)


async def _ask(upstream: Upstream, profile: Profile, golden: Golden) -> str | None:
    turns = tuple(Message.model_validate(message) for message in golden.messages)
    body = {
        **profile.settings,
        "messages": as_dicts(conversation(turns, profile.prompt, profile.specials)),
        "max_tokens": profile.max_tokens,
    }
    if profile.stop:
        body["stop"] = list(profile.stop)
    try:
        return (await upstream.complete(body)).text
    except HttpError:
        return None
