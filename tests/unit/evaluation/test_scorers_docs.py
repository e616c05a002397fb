"""The pages about scorers name each scorer and option there is, and their examples run."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from tutelage.core import plugins
from tutelage.core.config import Project
from tutelage.evaluation.scorers.base import Place, make_scorer

DOCS = Path(__file__).resolve().parents[3] / "docs" / "how-to"
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("scorers", "code")}
TABLE = {
    match[1]: match[0]
    for match in re.finditer(r"^\| `(\w+)` \|.*$", PAGES["scorers"], re.MULTILINE)
}


def test_the_table_has_every_scorer_with_every_option() -> None:
    assert set(TABLE) == set(plugins.available("scorers"))
    for name, line in TABLE.items():
        known = getattr(plugins.load("scorers", name), "Options", None)
        options = [f.alias or n for n, f in known.model_fields.items()] if known else []
        place = PAGES["code"] if name == "pass_at_k" else line
        assert [option for option in options if f"`{option}`" not in place] == [], name
        named = set(re.findall(r"`(\w+)`", line.split("|")[4]))
        assert named <= set(options), name


def entries(page: str) -> list[object]:
    found: list[object] = []
    for block in re.findall(r"```yaml[^\n]*\n(.*?)```", PAGES[page], re.DOTALL):
        value = yaml.safe_load(block)
        found += value if isinstance(value, list) else value["evaluate"]["scorers"]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_settings_shown_are_valid(page: str, tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "order.json").write_text('{"type": "object"}')
    rules = re.search(r"```python title=\"rules.py[^\n]*\n(.*?)```", PAGES["scorers"], re.DOTALL)
    assert rules is not None
    (tmp_path / "rules.py").write_text(rules[1])
    shown = entries(page)
    assert len(shown) >= 1
    for entry in shown:
        Project.model_validate(
            {"name": "p", "model": "demo", "evaluate": {"scorers": [entry], "samples": 20}}
        )
        values = {"name": entry} if isinstance(entry, str) else dict(entry)  # type: ignore[call-overload]
        name, place = values.pop("name"), Place(root=tmp_path, samples=20)
        values.pop("as", None)
        assert make_scorer(name, options=values, place=place)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_example_prints_what_is_shown(page: str) -> None:
    code, text = re.search(
        r"```python\n(.*?)```\s*```text\n(.*?)```",
        PAGES[page].split("## From Python")[1],
        re.DOTALL,
    ).groups()  # type: ignore[union-attr]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, page, "exec"), {})
    assert out.getvalue() == text
