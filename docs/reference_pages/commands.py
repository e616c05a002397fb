"""Every command, argument and option, from the Typer application."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from reference_pages.markdown import Cells, code, table

_HEAD = ("argument or option", "default", "meaning")


def command_line() -> str:
    """Return the page of every command, argument and option."""
    import typer

    from tutelage.cli.main import app

    root = typer.main.get_command(app)
    parts = [
        "# Command line\n",
        "This page is made from the commands themselves. Every command prints its result to "
        "stdout and its progress to stderr; `--json` makes the result one JSON document.\n",
        table(
            ("exit code", "meaning"),
            [
                ("0", "done, or the verdict is a pass"),
                ("1", "the answer is no: a failing verdict, a refused plan, leaks found"),
                ("2", "something for you to correct: settings, rows, model, machine"),
                ("3", "not enough evidence for a verdict"),
                ("130", "interrupted; run the same command again to go on"),
            ],
        ),
    ]
    for name, command in _commands(root, ()):
        parts.append(f"## {name}\n" if " " not in name else f"### {name}\n")
        parts.append(_command(name, command))
    return "\n".join(parts)


def _commands(group: Any, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield " ".join((*above, name)), command
        if hasattr(command, "commands"):
            yield from _commands(command, (*above, name))


def _command(name: str, command: Any) -> str:
    text = _plain(command.help or "")
    if hasattr(command, "commands"):
        return text + "\n"
    words = ["tutelage", name]
    rows: list[Cells] = []
    for param in command.params:
        if param.param_type_name == "argument":
            label = param.name.upper()
            words.append(label if param.required else f"[{label}]")
            rows.append((code(label), _shown_default(param), _plain(param.help or "")))
        else:
            names = ", ".join(code(option) for option in param.opts)
            rows.append((names, _shown_default(param), _plain(param.help or "")))
    usage = " ".join([*words, "[OPTIONS]"])
    return f"{text}\n\n```text\n{usage}\n```\n\n{table(_HEAD, rows)}"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _shown_default(param: Any) -> str:
    value = param.default
    if isinstance(param.show_default, str):
        return param.show_default
    if param.required or value is None or value is False or str(value) == ".":
        return "here" if str(value) == "." else ("required" if param.required else " ")
    return code(value.value if isinstance(value, Enum) else value)
