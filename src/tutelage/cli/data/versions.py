"""`tutelage data versions|diff|show`: the dataset's history, what changed, and one row's story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(versions)
    app.command()(diff)
    app.command()(show)


def versions(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the dataset versions, newest first: when, how many rows, made from what."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import versions as work

        found = work.versions(open_context(project, out.emit))

        def draw(console: Console) -> None:
            from tutelage.cli.screens import clock, indented, simple_table

            if not found:
                console.print("There is no dataset version yet; `tutelage data split` makes one.")
                return
            rows = [
                (
                    ("* " if entry["current"] else "  ") + entry["hash"],
                    clock(entry["created_at"]),
                    *(entry["counts"].get(side, 0) for side in ("train", "validation", "test")),
                    ", ".join(entry["parents"]) or "–",
                    _made_from(entry),
                )
                for entry in found
            ]
            head = ("version", "UTC", "train", "valid.", "test", "after", "made from")
            console.print(indented(simple_table(head, rows)))

        out.result({"versions": found}, draw)


def _made_from(entry: Mapping[str, Any]) -> str:
    if entry["erased"]:
        return f"rows of a forgotten user; see {entry['erased']['replaced_by'][:12]}"
    if not entry["on_disk"]:
        return "not on this disk"
    files, repairs = len(entry["sources"]), len(entry["repairs"])
    said = f"{files} file" if files == 1 else f"{files} files"
    return f"{said}, {repairs} repaired" if repairs else said


def diff(
    before: Annotated[
        str | None, typer.Argument(metavar="[A]", help="A version; unset: the one before B.")
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="[B]", help="A version; unset: the newest.")
    ] = None,
    page: Annotated[bool, typer.Option("--html", help="Write the comparison as a page.")] = False,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows of a kind in --json.")] = 20,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what changed from version A to B: rows, labels, lengths, findings."""
    with frame(as_json, verbose) as out:
        from tutelage.data import diff_page
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import versions as work

        ctx = open_context(project, out.emit)
        found = work.diff(ctx, before, after)
        path = work.write_diff(ctx, found) if page else None

        def draw(console: Console) -> None:
            console.print(diff_page.text(found), markup=False, end="")
            if path is not None:
                console.print(f"[dim]{path}[/]")

        out.result({**found.as_dict(rows), "page": str(path) if path else None}, draw)


def show(
    example_id: Annotated[
        str, typer.Argument(metavar="EXAMPLE_ID", help="The id, or its first digits.")
    ],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print one row: its side, origin, cluster, findings, repairs, annotations, versions."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import versions as work

        found = work.show(open_context(project, out.emit), example_id)
        out.result(found, lambda console: _draw(console, found))


def _draw(console: Console, found: Mapping[str, Any]) -> None:
    """Print what is known of a row, only what there is."""
    origin = found["origin"] or {}
    place = found["side"] or f"left out: {(found['left_out'] or {}).get('reason')}"
    console.print(f"[bold]{found['id']}[/]  version {found['version']}")
    lines = [
        ("side", place),
        ("input", found["input"]),
        ("answer", found["answer"]),
        ("label", found["label"]),
        ("from", _origin(origin)),
    ]
    for name, value in lines:
        if value is not None:
            console.print(f"[dim]{name:<9}[/]", end="")
            console.print(str(value), markup=False)
    cluster = found["cluster"]
    if cluster and cluster["rows"] > 1:
        _list(console, f"cluster of {cluster['rows']:,} rows", cluster["others"], _twin)
    _list(console, "findings", found["findings"], lambda item: f"{item['detail']} [{item['id']}]")
    _list(console, "repairs", found["repairs"], _repair)
    _list(console, "annotations", found["annotations"], _annotation)
    if len(found["versions"]) > 1:
        _list(console, "versions", found["versions"], _version)


def _list(console: Console, title: str, items: Sequence[Any], line: Any) -> None:
    if items:
        console.print(f"[bold]{title}[/]")
        for item in items:
            console.print(f"  {line(item)}", markup=False)


def _origin(origin: Mapping[str, Any]) -> str:
    parts = [str(origin.get("kind", "")), str(origin.get("source", ""))]
    if origin.get("author"):
        parts.append(f"by {origin['author']}")
    if origin.get("parents"):
        parts.append(f"made of {', '.join(origin['parents'])}")
    return ", ".join(part for part in parts if part)


def _twin(item: Mapping[str, Any]) -> str:
    return f"{item['id'][:12]} {item['side']}: {item['input'][:90]}"


def _repair(item: Mapping[str, Any]) -> str:
    undone = ", taken back" if item["undone"] else ""
    who = f" by {item['author']}" if item["author"] else ""
    value = f" {item['value'][:80]!r}" if item["value"] else ""
    return f"{item['at']}{who}: {item['action']}{value} (batch {item['batch']}{undone})"


def _annotation(item: Mapping[str, Any]) -> str:
    said = item["label"] or item["answer"] or ", ".join(item["flags"]) or "nothing"
    comment = f": {item['comment']}" if item["comment"] else ""
    return f"{item['at']} {item['annotator']} said {said!r}{comment}"


def _version(item: Mapping[str, Any]) -> str:
    where = item["side"] or f"left out: {item['reason']}"
    return f"{item['hash']} {str(item['created_at'])[:19]}: {where}"
