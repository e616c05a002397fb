"""Writes the reference pages from the code while the site is built; nothing it makes is committed.

Settings come from the pydantic models of core.config and the comments beside their fields,
commands from the Typer application, plug-ins from their entry points. A part whose module is not
there becomes a page that says so. The pages themselves are made in reference_pages/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from reference_pages.catalogues import findings, planner_rules
from reference_pages.commands import command_line
from reference_pages.metrics import metrics
from reference_pages.plugins import plug_ins
from reference_pages.python_api import python_api
from reference_pages.settings import configuration

ROOT = Path(__file__).resolve().parents[1]

PAGES: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "command-line": command_line,
    "plug-ins": plug_ins,
    "metrics": metrics,
    "findings": findings,
    "planner-rules": planner_rules,
    "python": python_api,
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages into the navigation that are not always there."""
    nav: list[Any] = list(config.nav or [])
    if (ROOT / "docs" / "status.md").is_file() and {"Status": "status.md"} not in nav:
        nav.append({"Status": "status.md"})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for name, make in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


def on_page_content(html: str, **kwargs: Any) -> str:
    """Keep a number and its percent sign on one line."""
    return re.sub(r"(\d) %", "\\1\u00a0%", html)
