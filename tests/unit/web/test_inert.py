"""Every text that a model, a data set or a user can supply stays text on every page.

Each column that may hold such a text is given an attack of its own; then all pages are walked in
a browser. A script that ran has left the name of its column in `window.pwned`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, String, inspect, select, update
from tests.fakes.web_demo import LABELS, filled, rows
from tests.fakes.web_process import look, opened
from tests.fakes.web_walk import addresses
from tests.unit.web.conftest import Site

from tutelage.store import tables  # noqa: F401
from tutelage.store.base import Base
from tutelage.web.registry import pages
from tutelage.workflows.context import Context

PATHS = [page.path for page in pages() if not page.public]
_INIT = """window.pwned = []; window.reports = []; window.pwn = (name) => window.pwned.push(name);
document.addEventListener("securitypolicyviolation",
  (e) => window.reports.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));"""
ATTACKS = (
    "<img src=x onerror=\"pwn('{name}')\">",
    "<svg onload=\"pwn('{name}')\">",
    "{{{{constructor.constructor(\"pwn('{name}')\")()}}}}",
    "</script><script>pwn('{name}')</script>",
    "`+pwn('{name}')+`${{pwn('{name}')}}",
    "<a href=\"javascript:pwn('{name}')\">x</a>",
)
# What is no text: codes, states, ids, secrets and addresses that something else is found by.
_CODES = ("accounts", "sessions", "store_shapes", "alembic_version")
_CODED = """
id hash key kind state source split arm item record release rollout candidate baseline first second
choice left how status level verdict strategy end deployment project path evaluation dataset run
turn batch model prompt digest name metric rule event reference cluster unit per from_state to_state
finish_reason registry_version salt slot holder annotator rater key_name group_key webhook
input_hash output stage parent version action previous role
"""
_KEYS = frozenset(_CODED.split())


def attack(name: str) -> str:
    """Return all attacks in one text; each says `name` if it runs."""
    return " ".join(one.format(name=name) for one in ATTACKS)


def plant(ctx: Context) -> list[str]:
    """Put an attack into every text of the store that people or models wrote."""
    planted = []
    with ctx.store.begin() as session:
        there = set(inspect(session.connection()).get_table_names())
        for mapper in Base.registry.mappers:
            table = mapper.local_table
            if table.name not in there:  # another test's own
                continue
            keys = {column.name for column in inspect(mapper).primary_key}
            for column in table.columns:
                if table.name in _CODES or column.name in keys or column.foreign_keys:
                    continue
                name = f"{table.name}.{column.name}"
                if isinstance(column.type, JSON):
                    if _plant_json(session, table, column, sorted(keys), name):
                        planted.append(name)
                elif isinstance(column.type, String) and _is_prose(column):
                    done = session.execute(
                        update(table)
                        .where(column.is_not(None), column != "")
                        .values({column.name: column + " " + attack(name)})
                    )
                    if done.rowcount:  # type: ignore[attr-defined]
                        planted.append(name)
    return planted


def _is_prose(column: Any) -> bool:
    return column.name not in _KEYS


def _plant_json(session: Any, table: Any, column: Any, keys: list[str], name: str) -> bool:
    changed = False
    found = session.execute(select(*[table.c[key] for key in keys], column)).all()
    for row in found:
        hostile = _hostile(row[-1], name)
        if hostile != row[-1]:
            where = [table.c[key] == value for key, value in zip(keys, row, strict=False)]
            session.execute(update(table).where(*where).values({column.name: hostile}))
            changed = True
    return changed


def _hostile(value: Any, name: str) -> Any:
    """Return the value with an attack behind every text in it that has a space, and every key."""
    if isinstance(value, str):
        return f"{value} {attack(name)}" if " " in value else value
    if isinstance(value, list):
        return [_hostile(one, name) for one in value]
    if isinstance(value, dict):
        return {key: _hostile(one, name) for key, one in value.items()}
    return value


def hostile_rows() -> list[tuple[str, str]]:
    """Return the project's rows; every fourth has an attack in its text."""
    return [
        (asked if place % 4 else f"{asked} {ATTACKS[place // 4 % 6].format(name='row')}", label)
        for place, (asked, label) in enumerate(rows())
    ]


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ctx = filled(tmp_path_factory.mktemp("inert") / "project", data=hostile_rows())
    planted = plant(ctx)
    assert len(planted) > 40, planted
    ctx.store.close()
    return ctx.workspace.root


@pytest.fixture(scope="module")
def found(site: Site) -> dict[str, str]:
    ctx = site.context
    try:
        return addresses(ctx)
    finally:
        ctx.store.close()


@pytest.fixture(scope="module")
def tab(browser: Any, site: Site) -> Iterator[Any]:
    context = look(browser, site.url, "light")
    context.add_init_script(_INIT)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("path", PATHS)
def test_no_text_becomes_a_script(site: Site, tab: Any, found: dict[str, str], path: str) -> None:
    said: list[str] = []
    tab.on("dialog", lambda box: (said.append(box.message), box.dismiss()))
    answer = opened(tab, site.url + found[path])
    assert answer is not None and answer.status in (200, 404), tab.inner_text("main")
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    for part in tab.locator("[role=tab], .q-expansion-item__container > .q-item").all()[:6]:
        part.click()
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert tab.evaluate("window.pwned") == []
    assert tab.evaluate("window.reports") == []
    assert said == []
    links = tab.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.protocol)")
    assert not any(one == "javascript:" for one in links)
    foreign = "document.querySelectorAll('main img[src=x], main svg[onload], main script').length"
    assert tab.evaluate(foreign) == 0


def test_the_attacks_would_run_if_they_were_markup(browser: Any) -> None:
    """The probe works: as HTML without a policy it runs, so silence above means something."""
    page = browser.new_page()
    page.goto("about:blank")
    page.evaluate(_INIT)
    page.set_content(f"<p>{attack('probe')}</p>")
    page.wait_for_function("window.pwned && window.pwned.length")
    page.close()


def test_texts_are_still_shown(site: Site, tab: Any) -> None:
    opened(tab, site.url + "/label")
    assert "onerror" in tab.inner_text("main")
    assert LABELS[0] in tab.inner_text("main")
