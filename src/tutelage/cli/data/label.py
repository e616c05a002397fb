"""`tutelage data label …`: guideline, giving out, labelling, drafts, imports, publication."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.data import label_review
from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="label",
    help="Experts: give items out, label, agree, decide, publish.",
    no_args_is_help=True,
)
label_review.register(app)


def register(parent: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    parent.add_typer(app)


@app.command()
def guideline(
    file: Annotated[
        Path | None, typer.Argument(help="A text file: the new version. Without it: show.")
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help="What changed, and why.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who wrote it.")] = None,
    history: Annotated[bool, typer.Option("--history", help="List all versions.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what annotators are told, or put a new version in force."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import experts_people as work

        ctx = open_context(project, out.emit)
        if file is not None:
            if not file.is_file():
                raise DataError("there is no such file", where=str(file), fix="Check the path")
            text = file.read_text(encoding="utf-8-sig", errors="replace")
            version = work.set_guideline(ctx, text, note=note or "", author=by)
            out.result(
                {"version": version},
                lambda console: console.print(f"version {version} of the guideline is in force"),
            )
            return
        found = work.guidelines(ctx)
        shown = found if history else found[:1]

        def show(console: Console) -> None:
            for one in shown:
                head = " ".join(filter(None, (one["at"][:10], one["author"], one["note"])))
                console.print(f"[bold]version {one['version']}[/]  ", end="")
                console.print(head, markup=False, style="dim")
                console.print(one["text"], markup=False)
            if not shown:
                console.print("There is no guideline yet: `tutelage data label guideline FILE`")

        out.result({"guidelines": shown}, show)


@app.command()
def assign(
    to: Annotated[str, typer.Option("--to", help="Who labels: anna,ben.")],
    overlap: Annotated[int, typer.Option("--overlap", help="Answers an item.")] = 1,
    count: Annotated[int | None, typer.Option("--count", help="Items; all by default.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", help="random, active, file, production, import, disputed."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Texts: .txt, .csv, .tsv, .jsonl, .json.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Rows of this side only.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 7,
    shared: Annotated[
        bool, typer.Option("--shared", help="Whoever is free takes the next item.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Items given out before may come back.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give items out: each to several people, everybody the same amount."""
    with frame(as_json, verbose) as out:
        from tutelage.core.example import SPLITS
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.experts_items import SOURCES, Order
        from tutelage.workflows.data.experts_items import assign as work

        order = Order(
            people=_names(to),
            overlap=overlap,
            count=_positive(count, "--count"),
            source=_one_of(source or ("file" if file else "random"), SOURCES, "source"),
            file=file,
            split=_one_of(split, SPLITS, "side") if split is not None else None,
            seed=seed,
            shared=shared,
            again=again,
        )
        done = work(open_context(project, out.emit), order)
        out.result(done, lambda console: _assigned(console, done))


@app.command("as")
def label_as(
    name: Annotated[str, typer.Argument(help="Who labels.")],
    answers: Annotated[
        Path | None, typer.Option("--answers", help="JSON lines with item or text, and label.")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Label item after item; every answer is kept at once. Keys are shown; ? is the guideline."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context

        ctx = open_context(project, out.emit)
        if answers is not None:
            from tutelage.workflows.data.experts_lines import answer_lines

            done = answer_lines(ctx, name, answers)
            told = f"answers kept {done['kept']}, there before {done['unchanged']}"
            out.result(done, lambda console: console.print(told))
            if done["refused"]:
                first = done["refused"][0]
                count = len(done["refused"])
                raise DataError(
                    f"{count} {'line' if count == 1 else 'lines'} can't be kept; first: "
                    f"{first['why']}",
                    where=f"{answers.name}:{first['line']}",
                    fix="Correct them and run the command again; the others are kept",
                )
            return
        from tutelage.cli.data.label_session import LabelSession

        summary = LabelSession(ctx, name).run()
        out.result(
            summary,
            lambda console: console.print(
                f"answers {summary['answers']}, skipped {summary['skipped']}, "
                f"left {summary['left']}"
            ),
        )


@app.command()
def todo(
    name: Annotated[str, typer.Argument(help="Whose items.")],
    count: Annotated[int, typer.Option("--count", help="How many to show.")] = 20,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List what a person still has to answer; with --json, ready to be answered in a file."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.experts import todo as work

        found = work(open_context(project, out.emit), name, _positive(count, "--count"))

        def show(console: Console) -> None:
            from tutelage.cli.screens import indented, simple_table

            rows = [
                (one.item[:10], " ".join(one.text.split())[:70], (one.draft or {}).get("text", ""))
                for one in found
            ]
            if rows:
                console.print(indented(simple_table(("item", "text", "draft"), rows)))
            else:
                console.print(f"{name} has nothing left to answer.", markup=False)

        out.result({"annotator": name, "items": [one.as_dict() for one in found]}, show)


@app.command()
def draft(
    count: Annotated[int | None, typer.Option("--count", help="Drafts; all by default.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Have the teacher draft the items that wait. Run again, it goes on where it stopped."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.experts_draft import draft as work

        ctx = open_context(project, out.emit)
        done = work(ctx, _positive(count, "--count")).as_dict()

        def show(console: Console) -> None:
            told = f"drafts by {done['model']} {done['drafted']}, tokens {done['tokens']:,}"
            for key in ("unreadable", "failed"):
                told += f", {key} {done[key]}" if done[key] else ""
            console.print(f"{told}; items without one {done['left']}", markup=False)

        out.result(done, show)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="An export of Label Studio or Argilla, as JSON.")],
    question: Annotated[
        str | None, typer.Option("--question", help="Which question, if there are several.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="The field that holds the input.")
    ] = None,
    people: Annotated[
        str | None, typer.Option("--people", help="The tool's ids and names here: 1=anna,2=ben.")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Bring answers of another tool in; importing a file again adds only what is new."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.experts_import import import_answers

        done = import_answers(
            open_context(project, out.emit), file, question=question, text=text,
            people=_mapping(people or ""),
        )  # fmt: skip
        out.result(done, lambda console: _imported(console, done))


@app.command()
def publish(
    accept: Annotated[
        str, typer.Option("--accept", help="agreed (all say the same) or majority.")
    ] = "agreed",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Bring decided items into the sources; `tutelage data split` then takes them up."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import experts_publish as work

        ctx = open_context(project, out.emit)
        done = work.publish(ctx, accept=_one_of(accept, ("agreed", "majority"), "way"))

        def show(console: Console) -> None:
            console.print(
                f"new rows {done['new']}, rows repaired {done['repaired']}, "
                f"confirmed {done['confirmed']}"
            )
            console.print(
                f"items that wait for answers {done['open']}, for a decision {done['undecided']}",
                style="dim",
            )

        out.result(done, show)
        if not done["in_sources"]:
            raise work.not_a_source(ctx, done["path"])


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _mapping(text: str) -> dict[str, str]:
    found = {}
    for pair in _names(text):
        old, equals, new = pair.partition("=")
        if not equals or not old.strip() or not new.strip():
            raise DataError(f"{pair!r} is no pair", fix="Write --people 1=anna,2=ben")
        found[old.strip()] = new.strip()
    return found


def _positive(value: int | None, option: str) -> int | None:
    if value is not None and value < 1:
        raise DataError(f"{option} {value} is too small", fix="Use 1 or more")
    return value


def _one_of(value: str, known: tuple[Any, ...], what: str) -> Any:
    from tutelage.core.errors import did_you_mean

    if value not in known:
        hint = did_you_mean(value, known)
        raise DataError(f"{value!r} is no {what}", fix=f"{hint}Known: {', '.join(known)}")
    return value


def _assigned(console: Console, done: dict[str, Any]) -> None:
    who = "shared by " + ", ".join(done["people"]) if done["shared"] else ", ".join(
        f"{name} {count}" for name, count in done["people"].items()
    )  # fmt: skip
    console.print(f"batch [bold]{done['batch']}[/]: {done['items']} items, ", end="")
    console.print(f"{done['answers']} answers wanted: {who}", markup=False)
    for finding in done["findings"]:
        console.print(f"[yellow]![/] {finding['count']} × {finding['what'].lower()}")


def _imported(console: Console, done: dict[str, Any]) -> None:
    console.print(f"{done['tool']}: {done['why']}", markup=False, style="dim")
    console.print(
        f"{done['answers']} answers of {len(done['people'])} people to {done['question']!r} on "
        f"{done['items']} items ({done['in_dataset']} of them rows of the dataset), "
        f"{done['drafts']} drafts, {done['known']} were there",
        markup=False,
    )
    for finding in done["findings"]:
        console.print(f"[yellow]![/] {finding['count']} × {finding['what'].lower()}")
