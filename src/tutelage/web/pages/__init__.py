"""One file a page. Each module ends with `PAGES`, a tuple of view.Page."""

from __future__ import annotations

MODULES: tuple[str, ...] = (
    "home",
    "label",
    "review",
    "agreement",
    "clusters",
    "guidelines",
    "compare_blind",
    "data",
    "plan",
    "runs",
    "evaluations",
    "prompts",
    "releases",
    "deployments",
    "rollout",
    "traffic",
    "alerts",
    "usage",
    "drift",
    "improve",
    "users",
    "audit",
)
