"""Finds the pages. It draws nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from tutelage.web.pages import MODULES
from tutelage.web.view import Page, User

GROUPS = ("Teach", "Build", "Operate", "Admin")
KEYS = {  # after "g"; "h" is home. Given here, so that no two pages take the same
    "/label": "l", "/review": "v", "/agreement": "g", "/clusters": "c", "/guidelines": "i",
    "/compare-blind": "b", "/data": "d", "/plan": "n", "/runs": "t", "/evaluations": "e",
    "/prompts": "p", "/releases": "r", "/deployments": "s", "/rollout": "o", "/traffic": "q",
    "/mining": "k", "/alerts": "a", "/usage": "u", "/drift": "f", "/improve": "m",
    "/users": "w", "/audit": "y",
}  # fmt: skip


@cache
def pages() -> tuple[Page, ...]:
    """Return every page of every module that is there."""
    found: list[Page] = []
    for name in MODULES:
        full = f"{__package__}.pages.{name}"
        if find_spec(full) is not None:
            found += import_module(full).PAGES
    return tuple(replace(page, key=KEYS.get(page.path)) for page in found)


def navigation(user: User, among: Iterable[Page]) -> dict[str, list[Page]]:
    """Return the pages a person finds in the navigation, by group, in the order of the groups."""
    seen = [page for page in among if page.group and not page.public and user.may(page.roles)]
    by_group = {name: [page for page in seen if page.group == name] for name in GROUPS}
    return {name: found for name, found in by_group.items() if found}
