"""The page's real process on a free port, and pages opened in a headless browser until settled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SETTLED = """() => window.did_handshake && ![...document.querySelectorAll(
  ".q-spinner, .q-inner-loading")].some((one) => one.getClientRects().length)"""


@contextmanager
def serving(project: Path, *words: str) -> Iterator[str]:
    """Start `tutelage web` on a project; yields its address."""
    command = [sys.executable, "-m", "tutelage", "web", "--project", str(project), "--port", "0",
               "--json", *words]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield str(json.loads(line)["url"])
    finally:
        process.terminate()
        process.communicate(timeout=60)


def look(browser: Any, url: str, scheme: str, **options: Any) -> Any:
    """Return a fresh browser context that shows the site light or dark."""
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce", **options)
    context.add_cookies([{"name": "tutelage_look", "value": scheme, "url": url}])
    context.set_default_timeout(60_000)
    return context


def visit(page: Any, address: str, **options: Any) -> Any:
    """Open an address.

    A page that has just found its server again loads itself, which may end the visit: go once more.
    """
    try:
        return page.goto(address, **options)
    except Exception as error:
        if "ERR_ABORTED" not in str(error):
            raise
        return page.goto(address, **options)


def opened(page: Any, address: str) -> Any:
    """Open an address and wait until the page has drawn itself."""
    answer = visit(page, address, wait_until="domcontentloaded")
    page.wait_for_function(SETTLED)
    return answer
