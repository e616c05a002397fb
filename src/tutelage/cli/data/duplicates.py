"""`tutelage data dedup`: rows that say the same, as clusters, and one decision for a whole one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame
from tutelage.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.data.dedup.view import Cluster
    from tutelage.workflows.context import Context
    from tutelage.workflows.data.duplicates import Decision

_KINDS = ("exact", "near", "semantic")


def register(app: typer.Typer) -> None:
    """Add the command to `tutelage data`."""
    app.command()(dedup)


def dedup(
    kind: Annotated[
        str | None, typer.Option("--kind", help="exact, near or semantic; unset: all.")
    ] = None,
    show: Annotated[int, typer.Option("--show", min=1, help="List this many clusters.")] = 20,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Show all rows of this cluster.")
    ] = None,
    similar_to: Annotated[
        str | None, typer.Option("--similar-to", help="Form a cluster of a row and those like it.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, max=1, help="Least cosine for --similar-to."),
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Drop the others: first, longest or a row's id.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Give all rows this label.")] = None,
    answer: Annotated[
        str | None, typer.Option("--answer", help="Give all rows this answer.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop all rows of the cluster.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, kept with the repairs.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it you see what.")] = False,
    page: Annotated[bool, typer.Option("--html", help="Write the clusters as a page.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List rows that say the same, contradictions first; decide on a whole cluster at once."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.context import open_context
        from tutelage.workflows.data.duplicates import Decision

        wish = _Wish(kind, show, cluster, similar_to, threshold, page, yes)
        decision = Decision(keep, drop, label, answer, reason)
        wish.check(decision)
        ctx = open_context(project, out.emit)
        if cluster or similar_to:
            _one(out, ctx, wish, decision)
        else:
            _list(out, ctx, wish)


@dataclass(frozen=True)
class _Wish:
    """What was asked for, but for the decision."""

    kind: str | None
    show: int
    cluster: str | None
    similar_to: str | None
    threshold: float | None
    page: bool
    yes: bool

    def check(self, decision: Decision) -> None:
        """Raise ConfigError for options that do not go together."""
        if self.kind is not None and self.kind not in _KINDS:
            raise ConfigError(f"{self.kind!r} is no kind", fix=f"Use {', '.join(_KINDS)}")
        if self.cluster and self.similar_to:
            raise ConfigError("two clusters were named", fix="Use --cluster or --similar-to")
        if decision.made and not (self.cluster or self.similar_to):
            raise ConfigError("no cluster was named", fix="Add --cluster ID or --similar-to ID")


def _list(out: Frame, ctx: Context, wish: _Wish) -> None:
    """Answer with the list of clusters."""
    from tutelage.workflows.data import duplicates as work

    found = work.find(ctx, wish.kind)
    path = work.write_page(ctx, found) if wish.page else None
    data = {
        "clusters": [cluster.as_dict() for cluster in found[: wish.show]],
        "count": len(found),
        "contradictions": sum(cluster.contradictory for cluster in found),
        "kinds": {kind: sum(c.kind == kind for c in found) for kind in _KINDS},
        "page": str(path) if path else None,
    }
    out.result(data, lambda console: _show_list(console, found, wish.show, path))


def _one(out: Frame, ctx: Context, wish: _Wish, decision: Decision) -> None:
    """Answer with one cluster, and with what a decision changes in it."""
    from tutelage.workflows.data import duplicates as work

    if wish.cluster:
        one = work.pick(ctx, wish.cluster)
    else:
        one = work.similar_to(ctx, wish.similar_to or "", wish.threshold)
    path = work.write_page(ctx, [one]) if wish.page else None
    data: dict[str, Any] = {**one.as_dict(), "page": str(path) if path else None}
    if not decision.made:
        out.result(data, lambda console: _show_one(console, one, path))
        return
    repairs = work.plan_repairs(ctx, one, decision)
    batch = work.apply(ctx, one, decision) if wish.yes else None
    data["repairs"] = [{"id": r.example_id, "action": r.action, "value": r.value} for r in repairs]
    data |= {"applied": batch is not None, "batch": batch}
    out.result(data, lambda console: _show_decision(console, one, data))


def _show_list(console: Console, found: list[Cluster], show: int, path: object) -> None:
    from rich.text import Text

    from tutelage.cli.screens import indented, simple_table

    if not found:
        console.print("No two rows say the same.")
    else:
        wrong = sum(cluster.contradictory for cluster in found)
        console.print(f"[bold]{len(found):,}[/] clusters, {wrong:,} that contradict themselves")
        rows = []
        for cluster in found[:show]:
            labels = Text(_counts(cluster.labels), style="red" if cluster.mixed else "")
            text = _short(cluster.members[0].example.input_text, 50)
            where = _counts(cluster.sides)
            rows.append((cluster.id, cluster.kind, cluster.rows, where, labels, text))
        head = ("cluster", "kind", "rows", "where", "labels", "first row")
        console.print(indented(simple_table(head, rows)))
        if len(found) > show:
            console.print(f"[dim]{len(found) - show:,} more; --show {len(found)} lists all[/]")
        console.print("[dim]--cluster ID shows the rows of one and takes a decision on it[/]")
    if path:
        console.print(str(path), markup=False)


def _show_one(console: Console, one: Cluster, path: object = None) -> None:
    from tutelage.cli.screens import indented, simple_table

    console.print(f"cluster [bold]{one.id}[/]  {one.kind}, {one.rows:,} rows")
    rows = []
    for member in one.members:
        row = member.example
        count = len(member.copies)
        copies = f" + {count} cop{'y' if count == 1 else 'ies'}" if count else ""
        answer = _short(row.label or row.answer or "", 40)
        text = _short(row.input_text, 120)
        rows.append((row.id[:8], member.side, f"{row.origin.source}{copies}", answer, text))
    head = ("row", "side", "where", "answer", "input")
    console.print(indented(simple_table(head, rows)))
    if path:
        console.print(str(path), markup=False)


def _show_decision(console: Console, one: Cluster, result: dict[str, Any]) -> None:
    _show_one(console, one)
    changes, batch = result["repairs"], result["batch"]
    if not changes:
        console.print("All rows are like that already.")
        return
    for change in changes:
        value = f" → {_short(change['value'], 60)}" if change["value"] else ""
        console.print(f"  {change['id'][:8]}  {change['action']}{value}", markup=False)
    count = f"{len(changes)} change{'s' if len(changes) > 1 else ''}"
    if batch is None:
        console.print(f"{count}; nothing is kept yet: add --yes")
        return
    console.print(f"{count} kept as batch [bold]{batch}[/]; `tutelage data split` applies them")
    console.print(f"[dim]`tutelage data repairs --undo {batch}` takes them back[/]")


def _counts(values: dict[str, int]) -> str:
    shown = [f"{_short(name, 20)} {count}" for name, count in list(values.items())[:2]]
    return ", ".join(shown) + (f", {len(values) - 2} more" if len(values) > 2 else "")


def _short(text: str, room: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"
