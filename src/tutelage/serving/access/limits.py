"""Rate limits: requests and tokens a minute of each key, as token buckets of this gateway.

A request is charged its likely size when it comes and its real one when it ends. Answers carry
OpenAI's x-ratelimit-* headers. Several gateways on one store count each for itself; a budget per
minute counts over all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tutelage.serving.access.accounts import likely_prompt_tokens
from tutelage.serving.access.throttle import Bucket
from tutelage.serving.hooks import Ask, Hook, Outcome
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.wire import HttpError

_KINDS = ("requests", "tokens")


class RateLimits(Hook):
    """Refuses what a key sends too fast: 429 with the seconds to wait."""

    def __init__(self, state: GatewayState, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state, self._clock = state, clock
        self._buckets: dict[tuple[str | None, str], Bucket] = {}
        self._charged: dict[str, int] = {}  # tokens, by requests under way

    async def admit(self, ask: Ask) -> None:
        """Take the request out of its key's buckets; raise HttpError 429 if they lack it."""
        buckets = self._buckets_of(ask.key)
        if not any(buckets):
            return
        likely = likely_prompt_tokens(ask.messages) + ask.max_tokens
        amounts = (1, likely)
        pairs = list(zip(_KINDS, buckets, amounts, strict=True))
        for kind, bucket, amount in pairs:
            wait = bucket.wait_for(amount) if bucket else 0.0
            if bucket and wait > 0:
                self._tell(ask)
                raise _too_fast(kind, bucket, ask.key, wait)
        for _, bucket, amount in pairs:
            if bucket:
                bucket.take(amount)
        if buckets[1]:
            self._charged[ask.record] = likely
        self._tell(ask)

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Put the difference between the likely and the real size right."""
        likely = self._charged.pop(ask.record, None)
        bucket = self._buckets.get((ask.key, "tokens"))
        if likely is not None and bucket is not None:
            bucket.give_back(likely - outcome.prompt_tokens - outcome.completion_tokens)

    def _buckets_of(self, key: str | None) -> tuple[Bucket | None, Bucket | None]:
        caller, deploy = self._state.keys.named(key), self._state.project.deploy
        requests = caller.requests_per_minute or deploy.requests_per_minute
        tokens = caller.tokens_per_minute or deploy.tokens_per_minute
        if requests is None and tokens is None and not self._buckets:
            return None, None
        return self._bucket(key, "requests", requests), self._bucket(key, "tokens", tokens)

    def _bucket(self, key: str | None, kind: str, per_minute: int | None) -> Bucket | None:
        if per_minute is None:
            self._buckets.pop((key, kind), None)
            return None
        found = self._buckets.get((key, kind))
        if found is None:
            found = self._buckets[key, kind] = Bucket(per_minute, self._clock)
        elif found.per_minute != per_minute:
            found.rate(per_minute)
        return found

    def _tell(self, ask: Ask) -> None:
        """Add the headers that clients of OpenAI know."""
        for kind in _KINDS:
            bucket = self._buckets.get((ask.key, kind))
            if bucket is not None:
                ask.reply_headers[f"x-ratelimit-limit-{kind}"] = str(int(bucket.per_minute))
                ask.reply_headers[f"x-ratelimit-remaining-{kind}"] = str(int(bucket.left))
                ask.reply_headers[f"x-ratelimit-reset-{kind}"] = _length(bucket.full_in)


def _too_fast(kind: str, bucket: Bucket, key: str | None, wait: float) -> HttpError:
    whose = f"the key '{key}'" if key else "the local user"
    return HttpError(
        429,
        f"The limit of {whose} is {bucket.per_minute:,.0f} {kind} a minute; "
        f"try again in {max(1, round(wait))} s.",
        code="rate_limit_exceeded",
        retry_after=wait,
    )


def _length(seconds: float) -> str:
    """Return a length of time as OpenAI's headers write it: 6m0s, 1.5s, 20ms."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{round(rest)}s" if minutes else f"{round(rest, 2):g}s"
