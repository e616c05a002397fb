"""What the page process knows of its pages, and what it may load to start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from tutelage.web import registry
from tutelage.web.pages import MODULES
from tutelage.web.view import LOCAL, User
from tutelage.workflows import attention

HEAVY = ("torch", "transformers", "mlflow", "sklearn", "peft", "polars", "matplotlib")


def test_no_two_pages_share_an_address_or_a_key() -> None:
    pages = registry.pages()
    assert [path for path, many in Counter(page.path for page in pages).items() if many > 1] == []
    keys = Counter(page.key for page in pages if page.key)
    assert [key for key, many in keys.items() if many > 1 or key == "h"] == []


def test_every_page_of_the_navigation_has_a_group_an_icon_and_a_key() -> None:
    shown = [page for page in registry.pages() if page.group]
    assert {page.path for page in shown if page.key is None or not page.icon} == set()
    assert {page.group for page in shown} <= set(registry.GROUPS)


def test_every_module_that_is_named_is_there() -> None:
    missing = [name for name in MODULES if find_spec(f"tutelage.web.pages.{name}") is None]
    assert missing == []


def test_what_needs_a_person_is_done_on_pages_that_are_there() -> None:
    paths = re.findall(r'f?"(/[a-z{][^"]*)"', Path(attention.__file__).read_text("utf-8"))
    known = {page.path.split("/")[1] for page in registry.pages()}
    assert len(paths) >= 8
    assert {path.split("/")[1] for path in paths} <= known


def test_people_find_only_what_their_roles_open() -> None:
    expert = User("anna", frozenset({"expert"}))
    found = registry.navigation(expert, registry.pages())
    assert set(found) == {"Teach"}
    assert list(registry.navigation(LOCAL, registry.pages())) == list(registry.GROUPS)


def test_the_page_starts_without_the_heavy_libraries() -> None:
    code = (
        "import json, sys; from tutelage.web import app, registry; registry.pages();"
        f" print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
