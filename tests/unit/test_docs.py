"""The pages say what is true: their commands, settings, requests, code and links all work."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from tutelage.cli.main import app
from tutelage.core.config import Project
from tutelage.core.config_file import parse_config
from tutelage.core.output import OutputFormat

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
GENERATED = (
    "configuration", "command-line", "plug-ins", "metrics", "findings", "planner-rules", "python",
)  # fmt: skip
SMALLEST = "name: page\nmodel: demo\n"

_FENCE = re.compile(r"^( *)(`{3,})([\w-]*)([^\n]*)\n(.*?)^\1\2 *$", re.M | re.S)
_INLINE = re.compile(r"`(tutelage [a-z][^`\n]*)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the rest of the fence line, its text."""

    page: str
    language: str
    info: str
    text: str


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
            name = str(page.relative_to(ROOT))
            yield Block(name, match[3], match[4], match[5])


BLOCKS = list(_blocks())


def _shell_lines() -> Iterator[tuple[str, str]]:
    """Yield (page, command line) of every fenced block that a person would type or CI would run."""
    for block in BLOCKS:
        text = re.sub(r"\\\n\s*", " ", block.text)
        if block.language == "console":
            found = re.findall(r"^\s*\$ (.*)$", text, re.M)
        elif block.language in ("bash", "sh"):
            found = text.splitlines()
        elif block.language == "yaml":
            found = re.findall(r"\brun: (.*)$", text, re.M)
        else:
            continue
        for line in found:
            yield block.page, line.strip()


def _calls() -> list[tuple[str, str]]:
    """Return (page, arguments) of every `tutelage …` in fenced blocks."""
    found = []
    for page, line in _shell_lines():
        for part in re.split(r"&&|\|\||[|;>]", line):
            words = part.split(maxsplit=1)
            if words and words[0].rpartition("/")[2] == "tutelage":
                found.append((page, words[1] if len(words) > 1 else ""))
    return sorted(set(found))


def _mentions() -> list[tuple[str, str]]:
    found = set()
    for page in PAGES:
        text = _FENCE.sub("", page.read_text(encoding="utf-8"))
        name = str(page.relative_to(ROOT))
        found |= {(name, call.split(maxsplit=1)[1]) for call in _INLINE.findall(text)}
    return sorted(found)


def problem(arguments: str, *, whole: bool = True) -> str | None:
    """Return what is wrong with the arguments of `tutelage`, or None."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(arguments, comments=True)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"there is no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands") and any(not word.startswith("-") for word in words):
        return "a group takes no arguments"
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    given = 0
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            given += 1
            continue
        name, sign, _ = word.partition("=")
        if name in ("--help", "-h"):
            continue
        if name not in options:
            return f"there is no option {name!r}"
        if not options[name].is_flag and not sign:
            if not words:
                return f"{name} needs a value"
            words.pop(0)
    wanted = [p for p in command.params if p.param_type_name == "argument"]
    if given > len(wanted) and all(p.nargs != -1 for p in wanted):
        return "too many arguments"
    if whole and given < sum(p.required for p in wanted):
        return "an argument is missing"
    return None


@pytest.mark.parametrize(("page", "arguments"), _calls())
def test_every_command_line_exists(page: str, arguments: str) -> None:
    assert problem(arguments) is None


@pytest.mark.parametrize(("page", "arguments"), _mentions())
def test_every_command_named_in_a_sentence_exists(page: str, arguments: str) -> None:
    assert problem(arguments, whole=False) is None


def test_the_check_of_commands_sees_mistakes() -> None:
    assert problem("data chek") == "there is no command 'chek'"
    assert problem("train --paln") == "there is no option '--paln'"
    assert problem("release show") == "an argument is missing"
    assert problem("compare a b c") == "too many arguments"
    assert problem("evaluate a b c") is None
    assert problem("init my-domain --data tickets.csv") is None


def _settings() -> list[Any]:
    found: list[Any] = []
    for block in BLOCKS:
        if block.language != "yaml":
            continue
        values = yaml.safe_load(block.text)
        if isinstance(values, dict) and set(values) <= set(Project.model_fields):
            found.append(
                pytest.param(block.text, "name" in values, id=f"{block.page}-{len(found)}")
            )
    return found


@pytest.mark.parametrize(("text", "whole"), _settings())
def test_every_piece_of_settings_can_be_used(text: str, whole: bool) -> None:
    assert parse_config(text if whole else SMALLEST + text, "page.yaml").name


def test_the_tutorial_holds_a_whole_settings_file() -> None:
    blocks = [b for b in BLOCKS if b.page.endswith("tutorial.md") and "tutelage.yaml" in b.info]
    assert [parse_config(b.text, b.page).task for b in blocks] == ["classification"]


def test_the_tutorial_guesses_what_init_guesses(tmp_path: Path) -> None:
    from tutelage.core.config_file import load_config
    from tutelage.workflows.init import init

    table = next(b for b in BLOCKS if b.page.endswith("tutorial.md") and b.language == "csv")
    header, *rows = table.text.splitlines()
    path = tmp_path / "tickets.csv"
    path.write_text("\n".join([header, *rows * 4]) + "\n", encoding="utf-8")
    made = load_config(init(tmp_path / "my-domain", data=path))
    shown = next(b for b in BLOCKS if b.page.endswith("tutorial.md") and b.language == "yaml")
    ours = parse_config(shown.text, "tutorial.md")
    assert made.data == ours.data
    assert made.output == ours.output
    assert made.prompt.split() == ours.prompt.split()


def _bodies() -> list[tuple[str, str]]:
    found = []
    for _, line in _shell_lines():
        if line.startswith("curl") and " -d " in line:
            words = shlex.split(line)
            url = next(w for w in words if w.startswith("http"))
            found.append((url.partition("/v1/")[2] or url, words[words.index("-d") + 1]))
    return found


@pytest.mark.parametrize(("path", "body"), _bodies())
def test_every_request_is_one_the_gateway_takes(path: str, body: str) -> None:
    from tutelage.feedback.signals import read_feedback
    from tutelage.serving.wire.wire_request import parse_chat

    values = json.loads(body)
    if path == "chat/completions":
        assert parse_chat(values).messages
    elif path == "feedback":
        labels = ("billing", "delivery", "refund")
        assert read_feedback(values, OutputFormat("label", labels)).rows


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "python"], ids=lambda b: str(b.page)
)
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.text, block.page, "exec")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "json"], ids=lambda b: b.page)
def test_every_json_block_parses(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    generated = {DOCS / "reference" / f"{name}.md" for name in GENERATED}
    lost = []
    for target in _LINK.findall(text):
        if target.startswith(("http://", "https://", "#", "mailto:")):
            continue
        path = (page.parent / target.partition("#")[0]).resolve()
        if not path.exists() and path not in generated:
            lost.append(target)
    assert lost == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    added = {"status.md"}  # by docs/hooks.py, where it is there
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")} - added
    assert [name for name in sorted(pages) if name not in text] == []


def test_the_table_of_detectable_differences_is_the_formula() -> None:
    from tutelage.evaluation.significance import detectable_rate

    text = (DOCS / "explanation" / "evidence.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) points \|$", text, re.M)
    assert [(n, f"{detectable_rate(int(n)) * 100:.1f}") for n, _ in rows] == rows
    assert len(rows) == 4


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """The build hook, loaded from its file."""
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)  # as MkDocs does
        return importlib.import_module("hooks")


@pytest.mark.parametrize("name", GENERATED)
def test_every_generated_page_is_made_from_the_code(hooks: ModuleType, name: str) -> None:
    text = hooks.PAGES[name]()
    assert text.startswith("# ")
    assert "not in this version yet" not in text.lower()
    assert "Not part of this version yet" not in text


def test_the_configuration_page_explains_every_setting(hooks: ModuleType) -> None:
    text = hooks.configuration()
    silent = [
        line for line in text.splitlines() if line.startswith("| `") and line.endswith("|   |")
    ]
    assert silent == []
    assert "| `learning_rate` | number, over 0 | *unset* | At its highest. |" in text


def test_the_command_line_page_holds_every_command(hooks: ModuleType) -> None:
    text = hooks.command_line()
    for name in ("quickstart", "data split", "rollout start", "gate"):
        assert re.search(rf"^##+ {name}$", text, re.M)
    assert "tutelage release show NAME [OPTIONS]" in text
