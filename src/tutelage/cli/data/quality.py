"""`tutelage data outliers`, `label-errors`, `rank`, `select`: which rows deserve a look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import EXIT_NOT_ENOUGH_EVIDENCE, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from tutelage.core.example import SplitName
    from tutelage.workflows.context import Context

_TEXT = 150  # characters of a row that are shown
TopOption = Annotated[int, typer.Option("--top", "-n", min=1, help="List this many rows.")]
PageOption = Annotated[bool, typer.Option("--html", help="Write the report as a page too.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `tutelage data`."""
    app.command()(outliers)
    app.command("label-errors")(label_errors)
    app.command()(rank)
    app.command()(select)


def outliers(
    top: TopOption = 20,
    split: Annotated[
        str | None, typer.Option("--split", help="train, validation or test; unset: all.")
    ] = None,
    loss: Annotated[
        bool, typer.Option("--loss", help="Ask the base model too: minutes for many rows.")
    ] = False,
    page: PageOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the rows that are unlike the others, each with its reason. Nothing is dropped."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import quality as work

        sides = _splits(split)
        ctx = open_context(project, out.emit)
        found = work.outliers(ctx, top, splits=sides, loss=loss)
        _add_page(found, ctx, page)

        def show(console: Console) -> None:
            if not found["enough"]:
                console.print(f"{found['rows']} rows are too few to say what is unusual.")
                return
            console.print(
                f"[bold]{found['flagged']:,}[/] of {found['rows']:,} rows stand far out "
                f"[dim](embedder: {found['embedder']})[/]"
            )
            for row in found["outliers"]:
                _row(console, row, row["label"] or "", row["reason"], row["flagged"])
            console.print(
                "[dim]Wrong rows: drop or mend them (`tutelage data check --fix`, or the source). "
                "Rare but right rows: keep them and collect more.[/]"
            )
            _tell_page(console, found)

        out.result(found, show)


def label_errors(
    top: TopOption = 20,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", help="ID=LABEL or FILE:LINE=LABEL; may be given several times."),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who decided, kept with --fix.")] = None,
    page: PageOption = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List labels that the other rows contradict, or correct some. Exit 3 if rows are too few."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import quality as work

        pairs = _pairs(fix or [])
        ctx = open_context(project, out.emit)
        if pairs:
            done = work.fix_labels(ctx, pairs, author=by)
            out.result(done, lambda console: _show_fixed(console, done))
            return
        found = work.label_errors(ctx, top)
        _add_page(found, ctx, page)
        out.result(found, lambda console: _show_doubts(console, found))
        if not found["judged"]:
            raise typer.Exit(EXIT_NOT_ENOUGH_EVIDENCE)


def rank(
    top: TopOption = 10,
    judge: Annotated[
        bool, typer.Option("--judge", help="Ask the judge of tutelage.yaml for marks first.")
    ] = False,
    loss: Annotated[
        bool, typer.Option("--loss", help="Ask the base model how hard the answers are first.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Score every train row and list the best and the worst, with what speaks against them."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import quality as work

        found = work.ranking(open_context(project, out.emit), top, judge=judge, loss=loss)

        def show(console: Console) -> None:
            for name in ("worst", "best"):
                console.print(f"[bold]{name}[/] of {found['rows']:,} train rows")
                for row in found[name]:
                    label = f"{row['score']:.2f}  {row['label'] or ''}"
                    _row(console, row, label, row["reason"])

        out.result(found, show)


def select(
    best: Annotated[int, typer.Option("--best", min=1, help="Train rows that stay.")],
    top: TopOption = 15,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what training on the best rows only would keep and leave out. It changes nothing."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data import quality as work

        found = work.selection(open_context(project, out.emit), best)

        def show(console: Console) -> None:
            console.print(
                f"[bold]{found['kept']:,}[/] of {found['train']:,} train rows stay, "
                f"{found['left_out']:,} are left out; validation and test are not touched"
            )
            least = sorted(found["by_label"].items(), key=lambda item: item[1][0])[:8]
            if least:
                text = ", ".join(f"{label} {kept} of {rows}" for label, (kept, rows) in least)
                console.print(f"[dim]fewest rows:[/] {text}", highlight=False)
            console.print("[bold]stay[/], the best first")
            for row in sorted(found["stay"], key=lambda row: -row["score"])[: top // 3 + 1]:
                _row(console, row, f"{row['score']:.2f}  {row['label'] or ''}", row["reason"])
            console.print("[bold]are left out[/]" if found["left"] else "nothing is left out")
            for row in found["left"][:top]:
                _row(console, row, row["label"] or "", row["reason"])
            console.print(
                f"To train on these: `data: {{quality: {{best: {best}}}}}` in tutelage.yaml, then "
                "`tutelage data split`.",
                markup=False,
            )

        out.result(found, show)


def _splits(name: str | None) -> Sequence[SplitName]:
    from tutelage.core.example import SPLITS

    found = [split for split in SPLITS if name in (None, split)]
    if not found:
        raise ConfigError(f"{name!r} is no split", fix=f"Use {', '.join(SPLITS)}")
    return found


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """Return the label by row from ROW=LABEL arguments."""
    pairs: dict[str, str] = {}
    for text in given:
        row, sign, label = text.partition("=")
        if not sign or not row.strip() or not label.strip():
            raise ConfigError(
                f"--fix {text!r} does not say which row gets which label",
                fix="Write it as --fix ID=LABEL; `tutelage data label-errors` shows the ids",
            )
        pairs[row.strip()] = label.strip()
    return pairs


def _add_page(found: dict[str, Any], ctx: Context, wanted: bool) -> None:
    from tutelage.workflows.data.quality import write_page

    if wanted:
        found["page"] = str(write_page(ctx))


def _tell_page(console: Console, found: dict[str, Any]) -> None:
    if "page" in found:
        console.print(f"[dim]{found['page']}[/]")


def _show_doubts(console: Console, found: dict[str, Any]) -> None:
    least = found["least_a_class"]
    if not found["judged"]:
        console.print(
            f"Too little to judge labels by: at least two labels need {least} rows or more."
        )
        return
    console.print(
        f"[bold]{found['flagged']:,}[/] of {found['judged']:,} labels are contradicted by the "
        f"other rows [dim](held-out accuracy {found['accuracy']:.0%}, embedder: "
        f"{found['embedder']})[/]"
    )
    for row in found["label_errors"]:
        _row(console, row, f"{row['label']} → {row['suggested']}", row["reason"], row["flagged"])
    if found["too_few"]:
        names = ", ".join(list(found["too_few"])[:8])
        count = len(found["too_few"])
        noun = "label has" if count == 1 else "labels have"
        console.print(
            f"[dim]{count} {noun} fewer than {least} rows and were not judged: {names}[/]"
        )
    console.print("[dim]Decide them one by one: `--fix ID=LABEL`, several times if you like.[/]")
    _tell_page(console, found)


def _show_fixed(console: Console, done: dict[str, Any]) -> None:
    for row in done["fixed"]:
        console.print(
            f"{row['where'] or row['id'][:8]}: {row['label']} → {row['new_label']}", markup=False
        )
    count = done["changed"]
    if not count:
        console.print("These rows have these labels already.")
        return
    noun = "label" if count == 1 else "labels"
    console.print(
        f"{count} {noun} corrected (batch {done['batch']}); `tutelage data split` makes the next "
        f"version, `tutelage data repairs --undo {done['batch']}` takes it back",
        markup=False,
    )


def _row(
    console: Console, row: Mapping[str, Any], label: str, why: str, marked: bool = False
) -> None:
    """Print one row: where it stands and its label, its text, and the reason it is shown."""
    from rich.padding import Padding
    from rich.text import Text

    sign = ("! ", "bold yellow") if marked else ("  ", "")
    place = (f"{row['where'] or 'row'}  {row['id'][:8]}  ", "cyan")
    console.print(Text.assemble(sign, place, label))
    text = " ".join(row["text"].split())
    short = text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
    console.print(Padding(Text(short), (0, 0, 0, 4)))
    console.print(Padding(Text(why, style="dim"), (0, 0, 0, 4)))
