"""Dataset versions: what they hold, what was left out and why, what changed, what is trained on."""

from __future__ import annotations

from tutelage.web.data.changes import show_changes
from tutelage.web.data.learned import show_learned
from tutelage.web.data.listed import show_list
from tutelage.web.data.version import show_version
from tutelage.web.view import Page

_ROLES = frozenset({"engineer", "admin"})

PAGES = (
    Page("/data", "Data", show_list, _ROLES, "Build", "dataset", "d"),
    Page("/data/{version}", "Dataset version", show_version, _ROLES),
    Page("/data/{version}/tokens", "What is trained on", show_learned, _ROLES),
    Page("/data/{before}/to/{after}", "Changes between versions", show_changes, _ROLES),
)
