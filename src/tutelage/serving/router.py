"""Which release answers a request: sticky buckets over an in-memory snapshot of the deployments.

The store decides (release/deployments.py); the controller loads releases into the engine and then
swaps the snapshot, so a request is never sent to a release that is not there.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.core.config import Deploy
from tutelage.core.errors import nearest
from tutelage.core.output import OutputFormat
from tutelage.release.bundle import ReleaseManifest
from tutelage.release.rollout import LIVE
from tutelage.release.routes import Route
from tutelage.serving.guards.base import ActiveGuard, GuardContext, Surroundings, build_guards
from tutelage.serving.wire.wire import HttpError


@dataclass(frozen=True)
class Profile:
    """What serving a release takes, built once: prompt, decoding, checks."""

    id: str
    name: str
    prompt: str
    specials: tuple[str, ...]
    max_tokens: int
    stop: tuple[str, ...]
    has_schema: bool
    settings: Mapping[str, Any]  # decoding in the form of the engine's request body
    guards: tuple[ActiveGuard, ...]
    blocks: bool  # a guard may hold an answer back
    adapter: str | None = None  # path relative to .tutelage


def build_profile(
    manifest: ReleaseManifest, deploy: Deploy, around: Surroundings | None = None
) -> Profile:
    """Return the profile of a release. Raises ConfigError for an unknown guard."""
    decoding, output = manifest.decoding, manifest.output
    settings: dict[str, Any] = {"model": manifest.id, "temperature": decoding.temperature}
    if decoding.seed is not None:
        settings["seed"] = decoding.seed
    if decoding.json_schema:
        form = {"name": "answer", "schema": decoding.json_schema, "strict": True}
        settings["response_format"] = {"type": "json_schema", "json_schema": form}
    around = around or Surroundings()
    context = GuardContext(
        OutputFormat(output.field, output.labels),
        output.json_schema,
        manifest.specials,
        manifest.prompt,
        around.window,
        around.root,
    )
    guards = build_guards(deploy.guards, context)
    return Profile(
        id=manifest.id,
        name=manifest.name,
        prompt=manifest.prompt,
        specials=manifest.specials,
        max_tokens=decoding.max_tokens,
        stop=decoding.stop,
        has_schema=decoding.json_schema is not None,
        settings=settings,
        guards=guards,
        blocks=any(guard.action == "block" for guard in guards),
        adapter=manifest.adapter.path if manifest.adapter else None,
    )


@dataclass(frozen=True)
class Entry:
    """One deployment with the releases that can answer for it now."""

    route: Route
    stable: Profile
    canary: Profile | None = None
    previous: Profile | None = None  # was stable until a while ago, and is kept loaded

    @property
    def live(self) -> bool:
        """Whether a rollout is moving traffic."""
        return self.canary is not None and self.route.state in LIVE


@dataclass(slots=True)
class Pick:
    """The decision for one request: `arm` is stable or canary."""

    deployment: str
    arm: str
    profile: Profile
    rollout: str | None = None
    step: int | None = None


@dataclass
class Router:
    """The snapshot. `replace` swaps it whole; requests under way keep what they picked.

    It is held under a lease: whoever can't read the store can't know that a rollout was stopped,
    so from then on its requests go to stable.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    trusted_until: float = math.inf  # time.monotonic()

    def replace(self, entries: Mapping[str, Entry]) -> None:
        """Take a new snapshot."""
        self.entries = dict(entries)

    def renew(self, seconds: float) -> None:
        """Trust the snapshot for so long: it was compared with the store just now."""
        self.trusted_until = time.monotonic() + seconds

    def pick(self, deployment: str, key: str) -> Pick:
        """Return who answers `key`'s request (a user, or a request id for nobody's).

        Raises HttpError 404 for an unknown deployment.
        """
        entry = self.entries.get(deployment)
        if entry is None:
            raise self._unknown(deployment)
        route = entry.route
        if not entry.live or entry.canary is None or time.monotonic() > self.trusted_until:
            return Pick(deployment, "stable", entry.stable)
        chosen = bucket(route.salt, route.rollout or "", key) < route.weight
        profile = entry.canary if chosen else entry.stable
        arm = "canary" if chosen else "stable"
        return Pick(deployment, arm, profile, route.rollout, route.step)

    def _unknown(self, deployment: str) -> HttpError:
        near = nearest(deployment, list(self.entries))
        hint = f" Did you mean '{near}'?" if near else ""
        known = ", ".join(sorted(self.entries)) or "none yet"
        return HttpError(
            404,
            f"The model '{deployment[:80]}' does not exist.{hint} Deployments: {known}.",
            code="model_not_found",
            param="model",
        )


def bucket(salt: str, rollout: str, key: str) -> float:
    """Return the key's place in [0, 100): HMAC-SHA256 under the deployment's salt.

    It does not depend on the weight, so raising the weight never flips a user back. It depends on
    the rollout, so that the same users are not always the first.
    """
    text = f"{rollout}\x00{key}".encode("utf-8", "surrogatepass")
    digest = hmac.digest(salt.encode(), text, hashlib.sha256)
    return int.from_bytes(digest[:8], "big") / 2**64 * 100
