"""axe finds nothing serious on any page, light or dark, of a project in which each is full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.web_demo import filled
from tests.fakes.web_process import look, opened
from tests.fakes.web_walk import addresses
from tests.unit.web.conftest import Site

from tutelage.web.registry import pages

PATHS = [page.path for page in pages() if not page.public]
SERIOUS = ("serious", "critical")
_RUN = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.map(v => ({
    id: v.id, impact: v.impact, help: v.help,
    where: v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + " | " + n.failureSummary),
  }));
}"""


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ctx = filled(tmp_path_factory.mktemp("axe") / "project")
    ctx.store.close()
    return ctx.workspace.root


@pytest.fixture(scope="module")
def found(site: Site) -> dict[str, str]:
    """An address of each page."""
    ctx = site.context
    try:
        return addresses(ctx)
    finally:
        ctx.store.close()


@pytest.fixture(scope="module")
def tabs(browser: Any, site: Site) -> Iterator[dict[str, Any]]:
    """One open tab for light and one for dark."""
    schemes = ("light", "dark")
    yield {one: look(browser, site.url, one, bypass_csp=True).new_page() for one in schemes}


@pytest.mark.parametrize("path", PATHS)
def test_axe_finds_nothing_serious(
    site: Site, tabs: dict[str, Any], found: dict[str, str], path: str
) -> None:
    package = pytest.importorskip("axe_playwright_python", reason="needs axe")
    script = (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    for scheme, page in tabs.items():
        answer = opened(page, site.url + found[path])
        assert answer is not None and answer.status == 200, page.inner_text("main")
        page.evaluate(script)
        bad = [one for one in page.evaluate(_RUN) if one["impact"] in SERIOUS]
        told = [f"{one['id']}: {one['help']}\n    " + "\n    ".join(one["where"]) for one in bad]
        assert not bad, f"{found[path]} ({scheme}):\n" + "\n".join(told)
