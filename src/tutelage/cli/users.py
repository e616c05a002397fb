"""`tutelage users …`: who may open the web page, and the log of what they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, Frame, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.context import Context

app = typer.Typer(
    name="users",
    help="People of the web page: list, add, roles, password, link, disable; the audit log.",
    no_args_is_help=True,
)
_Name = Annotated[str, typer.Argument(help="The person's name.")]
_Roles = Annotated[
    list[str],
    typer.Option(
        "--role",
        help="expert: teach; engineer: build; operator: operate; admin: all. May be repeated.",
    ),
]
_Stdin = Annotated[
    bool, typer.Option("--stdin", help="Read the password from the first line of stdin.")
]


@app.command(name="list")
def list_(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the people with their roles, and when they last signed in."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people.accounts import people

        found = people(_open(project, out).store)
        out.result({"users": found}, lambda console: _show(console, found))


@app.command()
def add(
    name: _Name,
    role: _Roles,
    oidc: Annotated[
        str | None,
        typer.Option(help="Their `sub` at the server of web.oidc: they sign in there."),
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Add a person, and print the one-time link by which they choose a password."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people.accounts import add as add_person

        ctx = _open(project, out)
        subject = _subject(ctx, oidc) if oidc else None
        made = add_person(ctx.store, name, role, by=_me(), subject=subject)
        address = None if subject else _link(ctx, made["name"])
        out.result(
            {**made, "link": address}, lambda console: _show_link(console, made["name"], address)
        )


@app.command()
def roles(
    name: _Name,
    role: _Roles,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give a person these roles and no others. They sign in anew."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people.accounts import set_roles

        changed = set_roles(_open(project, out).store, name, role, by=_me())
        out.result(changed, lambda console: _show(console, [changed]))


@app.command()
def password(
    name: _Name,
    stdin: _Stdin = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give a person a password, which is asked for. They are signed out everywhere."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people.accounts import person, set_password

        ctx = _open(project, out)
        person(ctx.store, name)
        changed = set_password(ctx.store, name, _ask(stdin), by=_me())
        out.result(
            changed, lambda console: console.print(f"[green]✓[/] {changed['name']} has a password")
        )


@app.command()
def link(
    name: _Name,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print a one-time link by which a person chooses a password; it works for three days."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people.accounts import person

        ctx = _open(project, out)
        known = person(ctx.store, name)["name"]
        address = _link(ctx, known)
        out.result(
            {"name": known, "link": address}, lambda console: _show_link(console, known, address)
        )


@app.command()
def disable(
    name: _Name,
    undo: Annotated[bool, typer.Option("--undo", help="Let them in again.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Shut a person out: they are signed out at once. What they did stays."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people.accounts import set_disabled

        changed = set_disabled(_open(project, out).store, name, not undo, by=_me())
        out.result(changed, lambda console: _show(console, [changed]))


@app.command(name="sign-out")
def sign_out(
    name: _Name,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Sign a person out everywhere."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people.accounts import person
        from tutelage.workflows.people.accounts_sessions import sign_out_everywhere

        ctx = _open(project, out)
        known = person(ctx.store, name)["name"]
        count = sign_out_everywhere(ctx.store, known, by=_me())
        out.result(
            {"name": known, "sessions": count},
            lambda console: console.print(f"[green]✓[/] {known}: {count} sessions ended"),
        )


@app.command(name="audit")
def audit_(
    user: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this action, or those that begin so, such as users.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most lines.", min=1)] = 50,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no line was changed or taken out.")
    ] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show who did what, newest first."""
    with frame(as_json, verbose) as out:
        from tutelage.workflows.people import audit

        store = _open(project, out).store
        if verify:
            broken = audit.first_broken(store)
            out.result({"broken": broken}, lambda console: _show_verified(console, broken))
            if broken is not None:
                raise typer.Exit(1)
            return
        lines, count = audit.lines(store, user=user, action=action, limit=limit)
        out.result(
            {"lines": lines, "count": count}, lambda console: _show_lines(console, lines, count)
        )


def _open(project: Any, out: Frame) -> Context:
    from tutelage.workflows.context import open_context

    return open_context(project, out.emit)


def _me() -> str:
    """Return who sits at this terminal, for the audit log."""
    import getpass

    try:
        return f"{getpass.getuser()} (terminal)"
    except (KeyError, OSError):
        return "terminal"


def _link(ctx: Context, name: str) -> str:
    from tutelage.workflows.people.accounts_links import password_link

    return password_link(ctx.store, ctx.config.web, name, by=_me())


def _subject(ctx: Context, sub: str) -> str:
    from tutelage.core.errors import ConfigError
    from tutelage.workflows.people.accounts_oidc import subject_of

    oidc = ctx.config.web.oidc
    if oidc is None:
        raise ConfigError("web.oidc is not set, and --oidc is of its people", fix="Set web.oidc")
    return subject_of(oidc.issuer, sub)


def _ask(stdin: bool) -> str:
    """Return a password, typed unseen and twice, or from stdin."""
    import sys

    if stdin or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _show(console: Console, people: Sequence[Mapping[str, Any]]) -> None:
    from tutelage.cli.screens import simple_table

    if not people:
        console.print("Nobody yet. `tutelage users add NAME --role expert` adds somebody.")
        return
    rows = [
        (
            one["name"],
            ", ".join(one["roles"]),
            one["state"],
            f"{one['signed_in_at']:%Y-%m-%d %H:%M}" if one["signed_in_at"] else "never",
            one["sessions"],
        )
        for one in people
    ]
    console.print(simple_table(("name", "roles", "state", "last sign-in", "sessions"), rows))


def _show_link(console: Console, name: str, address: str | None) -> None:
    if address is None:
        console.print(f"[green]✓[/] {name} signs in at the server of web.oidc")
        return
    console.print(f"[green]✓[/] {name} chooses a password here, once, within three days:")
    console.print(f"  [bold]{address}[/]", soft_wrap=True)


def _show_lines(console: Console, lines: Sequence[Mapping[str, Any]], count: int) -> None:
    from tutelage.cli.screens import simple_table

    if not lines:
        console.print("Nothing yet.")
        return
    rows = [
        (
            f"{line['at']:%Y-%m-%d %H:%M:%S}",
            line["user"],
            line["action"],
            ", ".join(f"{name} {value}" for name, value in line["what"].items()),
            line["address"] or "–",
        )
        for line in lines
    ]
    console.print(simple_table(("at (UTC)", "who", "did", "what", "from"), rows))
    if count > len(lines):
        console.print(f"[dim]{count - len(lines)} more: --limit shows them[/]")


def _show_verified(console: Console, broken: int | None) -> None:
    if broken is None:
        console.print("[green]✓[/] no line was changed or taken out")
    else:
        console.print(f"[red]✗[/] the log was changed at line {broken} or just before it")
