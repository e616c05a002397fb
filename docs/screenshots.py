"""Takes a picture of every page, light and dark, into docs/assets/screens/: `make screenshots`.

Shows the quickstart's project where there is one (`--project`, by default ./demo), filled as
`tutelage up --demo` fills it, in a copy; else a small project without a model. Pages about people
are taken with accounts on, by somebody who signed in.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from tests.fakes.web_demo import filled  # noqa: E402
from tests.fakes.web_process import CHROMIUM, look, opened, serving  # noqa: E402
from tests.fakes.web_walk import addresses  # noqa: E402

from tutelage.web.registry import pages  # noqa: E402
from tutelage.workflows import jobs  # noqa: E402
from tutelage.workflows.context import open_context  # noqa: E402
from tutelage.workflows.demo.demo_site import prepare  # noqa: E402
from tutelage.workflows.people import accounts  # noqa: E402

TARGET = ROOT / "docs" / "assets" / "screens"
GUIDE = ROOT / "docs" / "how-to" / "web-page.md"
GALLERY = "## Every page\n"  # what follows it is written here
LOOKS = ("light", "dark")
SIZE = {"width": 1280, "height": 800}
TALLEST = 1_600  # pixels of a picture
COLOURS = 256
SIGNED_IN = ("/users", "/account", "/audit")
STAFF = {"dana": ["admin"], "anna": ["expert"], "ben": ["expert"], "emil": ["engineer"],
         "olga": ["operator"]}  # fmt: skip
PASSWORD = "seven lamps by the river"  # noqa: S105 (of the pictures alone)


def main() -> int:
    """Take the pictures; say how large they are."""
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        project = _project(args.project, Path(folder) / "project")
        wanted = _wanted(project, args.only)
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--hide-scrollbars"]
        )
        with serving(project) as url:
            for scheme in LOOKS:
                alone = {path: at for path, at in wanted.items() if path not in SIGNED_IN}
                _take(browser, url, alone, scheme, args.out)
        _open_accounts(project)
        with serving(project) as url:
            for scheme in LOOKS:
                known = {path: at for path, at in wanted.items() if path in SIGNED_IN}
                _take(browser, url, known, scheme, args.out, sign_in=True)
        browser.close()
    if args.out == TARGET:
        _write_gallery()
    taken = sorted(args.out.glob("*.png"))
    print(f"{len(taken)} pictures, {sum(p.stat().st_size for p in taken) / 2**20:.1f} MB")
    return 0


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=ROOT / "demo")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--only", default="", help="a pattern of the paths to take")
    return parser.parse_args()


def _project(given: Path, made: Path) -> Path:
    """Return the project to show: a filled copy of the given one, or a small one."""
    if (given / "tutelage.yaml").is_file():
        shutil.copytree(given, made)
        prepare(made, lambda event: None)
        _wait_for_jobs(made)
    else:
        filled(made).store.close()
    return made


def _wait_for_jobs(project: Path) -> None:
    ctx = open_context(project)
    while jobs.running(ctx):
        time.sleep(1)
    ctx.store.close()


def _wanted(project: Path, only: str) -> dict[str, str]:
    ctx = open_context(project)
    try:
        return {path: at for path, at in addresses(ctx).items() if re.search(only, path)}
    finally:
        ctx.store.close()


def _open_accounts(project: Path) -> None:
    config = project / "tutelage.yaml"
    config.write_text(config.read_text(encoding="utf-8") + "web: {auth: on}\n", encoding="utf-8")
    ctx = open_context(project)
    for name, roles in STAFF.items():
        accounts.add(ctx.store, name, roles, by="dana", password=f"{PASSWORD}, {name[::-1]}")
    ctx.store.close()


def _sign_in(page: Any, url: str) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill("dana")
    page.locator("input[type=password]").fill(f"{PASSWORD}, anad")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{url}/")


def _take(
    browser: Any, url: str, wanted: dict[str, str], scheme: str, out: Path, sign_in: bool = False
) -> None:
    context = look(browser, url, scheme, viewport=SIZE)
    page = context.new_page()
    if sign_in:
        _sign_in(page, url)
    for path, address in wanted.items():
        opened(page, url + address)
        page.wait_for_timeout(400)  # charts have drawn themselves by then
        _stretch(page)
        _keep(page.screenshot(animations="disabled"), out / f"{_name(path)}-{scheme}.png")
        page.set_viewport_size(SIZE)
        print(f"{scheme} {address}", file=sys.stderr)
    context.close()


def _stretch(page: Any) -> None:
    """Make the window as tall as the page; boxes that grow with it make the page taller again."""
    for _ in range(3):
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({**SIZE, "height": max(SIZE["height"], min(TALLEST, height))})
        page.wait_for_timeout(250)


def _name(path: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\{[^}]+\}", "one", path)).strip("-") or "home"


def _write_gallery() -> None:
    """List every picture that is there at the end of the guide, light beside dark."""
    lines = [
        GALLERY,
        "`make screenshots` took these.\n",
        "| page | light | dark |",
        "|---|---|---|",
    ]
    for page in pages():
        name = _name(page.path)
        if (TARGET / f"{name}-dark.png").is_file():
            shown = [f"![{page.title}, {one}](../assets/screens/{name}-{one}.png)" for one in LOOKS]
            lines.append(f"| {page.title} | {shown[0]} | {shown[1]} |")
    head = GUIDE.read_text(encoding="utf-8").partition(GALLERY)[0]
    GUIDE.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def _keep(shot: bytes, path: Path) -> None:
    """Write a picture in its most frequent colours, as all flat areas are: a third of the size."""
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    found: Any = sorted(image.getcolors(image.width * image.height) or [], reverse=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in found[:COLOURS] for part in colour])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main())
