"""`tutelage keys …`: who may call the gateway, what, how fast and how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.frame import HERE, JsonOption, ProjectOption, VerboseOption, frame

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.workflows.serving.keys import KeysDesk

app = typer.Typer(
    name="keys", help="API keys: create, list, update, rotate, revoke.", no_args_is_help=True
)
_Name = Annotated[str, typer.Argument(help="The key's name.")]
_Role = Annotated[str, typer.Option(help="client: ask; operator: rollouts; admin: keys too.")]
_Expires = Annotated[
    str | None, typer.Option(help="How long it works, such as 90d.", show_default="for ever")
]
_Deployments = Annotated[
    list[str] | None,
    typer.Option("--deployment", help="May call this one; may be repeated.", show_default="all"),
]
_Requests = Annotated[
    int | None, typer.Option(help="Most requests a minute.", show_default="as deploy says")
]
_Tokens = Annotated[
    int | None, typer.Option(help="Most tokens a minute.", show_default="as deploy says")
]
_Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="Most of it in a period, such as 100000 tokens/day, '5 cost/month' or "
        "'1000 requests/total'; may be repeated.",
        show_default="as budgets says",
    ),
]


@app.command()
def create(
    name: _Name,
    role: _Role = "client",
    expires: _Expires = None,
    deployment: _Deployments = None,
    requests_per_minute: _Requests = None,
    tokens_per_minute: _Tokens = None,
    budget: _Budget = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a key. Its secret is shown this once; only its hash is kept."""
    with frame(as_json, verbose) as out:
        made = _desk(project, out).create(
            name,
            role,
            expires=expires,
            deployments=deployment,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            budgets=[_budget(text) for text in budget or []],
        )
        out.result(made, lambda console: _show_secret(console, made))


@app.command(name="list")
def list_(
    project: ProjectOption = HERE, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the keys with their roles and limits, never their secrets."""
    with frame(as_json, verbose) as out:
        found = _desk(project, out).all()
        out.result({"keys": found}, lambda console: _show(console, found))


@app.command()
def update(
    name: _Name,
    role: Annotated[str | None, typer.Option(help="client, operator or admin.")] = None,
    expires: _Expires = None,
    deployment: _Deployments = None,
    requests_per_minute: _Requests = None,
    tokens_per_minute: _Tokens = None,
    budget: _Budget = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(
            help="Take a limit away: expires, deployments, requests_per_minute, "
            "tokens_per_minute or budgets; may be repeated."
        ),
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Change a key's role or limits; the secret stays. Budgets named here take the place of all."""
    with frame(as_json, verbose) as out:
        given: dict[str, Any] = {
            "role": role,
            "expires": expires,
            "deployments": deployment or None,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "budgets": [_budget(text) for text in budget] if budget else None,
        }
        changes = {field: value for field, value in given.items() if value is not None}
        changes.update(dict.fromkeys(clear or ()))
        changed = _desk(project, out).update(name, **changes)
        out.result(changed, lambda console: _show(console, [changed]))


@app.command()
def rotate(
    name: _Name,
    grace: Annotated[str, typer.Option(help="How long the old secret works, such as 24h.")] = "0s",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Give a key a new secret. Its limits stay, and what its budgets have spent."""
    with frame(as_json, verbose) as out:
        made = _desk(project, out).rotate(name, grace=grace)
        out.result(made, lambda console: _show_secret(console, made))


@app.command()
def revoke(
    name: _Name,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a key unusable for good. A running gateway refuses it within a second."""
    with frame(as_json, verbose) as out:
        gone = _desk(project, out).revoke(name)
        out.result(gone, lambda console: console.print(f"[green]✓[/] {name} is revoked"))


def _desk(project: Any, out: Any) -> KeysDesk:
    from tutelage.workflows.context import open_context
    from tutelage.workflows.serving.keys import KeysDesk

    return KeysDesk(open_context(project, out.emit))


def _budget(text: str) -> dict[str, Any]:
    """Return the budget that `100000 tokens/day` stands for; raise DataError otherwise."""
    from tutelage.core.errors import DataError

    amount, _, rest = text.strip().partition(" ")
    unit, slash, per = rest.strip().partition("/")
    try:
        limit = float(amount.replace("_", ""))
    except ValueError:
        limit = -1.0
    if not slash or not 0 <= limit < float("inf"):
        raise DataError(
            f"{text!r} is no budget",
            fix="Write an amount, a unit and a period: '100000 tokens/day', '5 cost/month'",
        )
    return {"unit": unit, "per": per, "limit": int(limit) if limit.is_integer() else limit}


def _show_secret(console: Console, key: Mapping[str, Any]) -> None:
    console.print(f"[green]✓[/] {key['name']} ({key['role']})")
    console.print(f"  [bold]{key['key']}[/]", soft_wrap=True)
    console.print("  [dim]Keep it: it is not shown again. Clients send it as their API key.[/]")
    if key["old_secret_until"]:
        until = f"{key['old_secret_until']:%Y-%m-%d %H:%M} UTC"
        console.print(f"  [dim]The old secret works until {until}.[/]")


def _show(console: Console, keys: Sequence[Mapping[str, Any]]) -> None:
    from tutelage.cli.screens import simple_table

    if not keys:
        console.print("No keys yet. `tutelage keys create NAME` makes one.")
        return
    rows = [
        (
            key["name"],
            key["role"],
            key["state"],
            f"{key['expires_at']:%Y-%m-%d}" if key["expires_at"] else "–",
            ", ".join(key["deployments"]) if key["deployments"] else "all",
            _limits(key),
        )
        for key in keys
    ]
    headers = ("key", "role", "state", "expires", "may call", "limits")
    console.print(simple_table(headers, rows))


def _limits(key: Mapping[str, Any]) -> str:
    parts = [
        f"{key[f'{unit}_per_minute']:,} {unit} a minute"
        for unit in ("requests", "tokens")
        if key[f"{unit}_per_minute"]
    ]
    parts += [f"{b['limit']:,} {b['unit']}/{b['per']}" for b in key["budgets"]]
    return "; ".join(parts) or "–"
