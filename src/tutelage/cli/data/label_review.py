"""`tutelage data label people|progress|disputes|adjudicate`: who answered how, and what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data label`."""
    for command in (people, progress, disputes, adjudicate):
        app.command()(command)


def people(
    add: Annotated[str | None, typer.Option("--add", help="New people: anna,ben.")] = None,
    retire: Annotated[
        str | None, typer.Option("--retire", help="Take a person off; answers stay.")
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the annotators: answers, pace, agreement with the others and with decisions."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import experts_people as work
        from tutelage.workflows.data.experts_review import people as records

        ctx = open_context(project, out.emit)
        added = work.add_annotators(ctx, [n for n in (add or "").split(",") if n.strip()])
        handed = work.retire_annotator(ctx, retire) if retire is not None else 0
        by_name = {one["name"]: one for one in records(ctx)}
        found = [{**one, "record": by_name.get(one["name"])} for one in work.annotators(ctx)]

        def show(console: Console) -> None:
            from tutelage.cli.screens import indented, simple_table

            if retire is not None:
                console.print(f"{retire} is off; items for the others: {handed}", markup=False)
            head = ("name", "", "answers", "pace", "as the others", "as decided", "gave")
            rows = [_person(one) for one in found]
            if rows:
                console.print(indented(simple_table(head, rows)))
            else:
                console.print("Nobody labels yet: `tutelage data label people --add anna,ben`")

        out.result({"people": found, "added": added, "handed_back": handed}, show)


def progress(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Show how far the labelling is, and how long it will take."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.experts_progress import progress as work

        done = work(open_context(project, out.emit))

        def show(console: Console) -> None:
            from tutelage.cli.screens import duration, indented, simple_table

            states = ", ".join(f"{count} {state}" for state, count in done["states"].items())
            console.print(f"items {done['items']}: {states or 'none'}; answers {done['answers']}")
            rows = [
                (
                    one["name"],
                    one["done"],
                    one["skipped"],
                    one["left"],
                    duration(one["left_seconds"]) if one["left_seconds"] is not None else "–",
                )
                for one in done["people"]
            ]
            if rows:
                head = ("name", "done", "skipped", "left", "about")
                console.print(indented(simple_table(head, rows)))

        out.result(done, show)


def disputes(
    count: Annotated[int, typer.Option("--count", help="How many to show.")] = 10,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the items that need a decision, the most disagreed first, with a suggestion each."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.experts_review import disputed

        ctx = open_context(project, out.emit)
        whole = disputed(ctx)
        found = whole[: max(0, count)]

        def show(console: Console) -> None:
            from tutelage.cli.screens import indented, simple_table

            rows = [
                (
                    one["item"][:10],
                    " ".join(one["text"].split())[:60],
                    _votes(one),
                    _suggested(one["suggestion"]),
                )
                for one in found
            ]
            if rows:
                console.print(f"items that need a decision: {len(whole)}")
                console.print(indented(simple_table(("item", "text", "said", "likely"), rows)))
            else:
                console.print("Nothing is disputed.")

        out.result({"total": len(whole), "disputes": found}, show)


def adjudicate(
    item: Annotated[
        str | None, typer.Argument(help="The item, or the start of its id. Without it: one by one.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who decides.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="The label it has.")] = None,
    answer: Annotated[str | None, typer.Option("--answer", help="The answer it has.")] = None,
    why: Annotated[str | None, typer.Option("--why", help="The reason, for the others.")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Decide a disputed item, or go through all of them."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.experts_review import adjudicate as work

        ctx = open_context(project, out.emit)
        if by is None:
            raise DataError("nobody is named who decides", fix="Say who: --by NAME")
        if item is None:
            from tutelage.cli.data.label_session import AdjudicationSession

            summary = AdjudicationSession(ctx, by).run()
            out.result(
                summary,
                lambda console: console.print(
                    f"decided {summary['decided']}, left {summary['left']}"
                ),
            )
            return
        done = work(ctx, item, by=by, label=label, answer=answer, why=why or "")
        shown = done["label"] if done["label"] is not None else done["answer"]
        out.result(
            done,
            lambda console: console.print(f"{done['item'][:10]}: {shown}, by {by}", markup=False),
        )


def _person(one: dict[str, Any]) -> tuple[object, ...]:
    record = one["record"] or {}
    seconds = record.get("seconds")
    mixed = record.get("mixes_up") or ()
    return (
        one["name"],
        "" if one["active"] else "off",
        record.get("answers", 0),
        f"{seconds:.0f} s" if seconds is not None else "–",
        _share(record.get("with_others")),
        _share(record.get("with_adjudicated")),
        "; ".join(f"{said} for {true}" for true, said, _ in mixed[:2]),
    )


def _share(found: dict[str, Any] | None) -> str:
    if not found or found["rate"] is None:
        return "–"
    return f"{found['rate']:.0%} ({found['low']:.0%}–{found['high']:.0%}) of {found['n']}"


def _votes(one: dict[str, Any]) -> str:
    said = []
    for vote in one["votes"]:
        text = vote["label"] or " ".join((vote["answer"] or "skipped").split())[:40]
        doubt = "?" if "unsure" in vote["flags"] else ""
        said.append(f"{vote['annotator']}: {text}{doubt}")
    return "; ".join(said)


def _suggested(found: dict[str, Any] | None) -> str:
    return f"{found['label']} ({found['probability']:.0%})" if found else "–"
