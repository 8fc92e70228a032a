"""Commands about one's own tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, given
from ciserver.cli.completion import projects
from ciserver.cli.options import AsJson, Limit
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Your tokens: list, new, revoke.")


@app.command("list")
def every(limit: Limit = 50, as_json: AsJson = False) -> None:
    """Your tokens, newest first; their texts are not kept anywhere."""
    with Client(settings.load()) as client:
        rows = client.rows("/tokens/", limit=limit)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "NAME", "BEGINS", "MAY", "IN", "MADE", "LAST USED", "ENDS"],
        [
            [
                str(row["id"]),
                row["name"],
                f"{row['hint']}…",
                row["scope"],
                row["project"] or "all",
                age(row["created_at"]),
                age(row["last_used_at"]) if row["last_used_at"] else "never",
                row["expires_at"][:10] if row["expires_at"] else "never",
            ]
            for row in rows
        ],
    )


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="What it is for, such as 'deploy script'.")],
    write: Annotated[
        bool, typer.Option("--write", help="It may also push, promote and change settings.")
    ] = False,
    project: Annotated[
        str, typer.Option(help="The only project that it opens.", autocompletion=projects)
    ] = "",
    days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=3650,
            help="How long it works.",
            show_default="90, or as long as the token that you are logged in with",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token. Its text is printed once, alone on standard output."""
    scope = "write" if write else "read"
    with Client(settings.load()) as client:
        asked = given(project=project) | ({"days": days} if days else {})
        row = client.post("/tokens/", name=name, scope=scope, **asked)
    if as_json:
        print_json(row)
        return
    typer.echo(row["token"])
    ends = f"It ends on {row['expires_at'][:10]}. " if row["expires_at"] else ""
    output.next_step(
        f"{ends}Keep it now; it is not shown again. To end it: gantry tokens revoke {row['id']}"
    )


@app.command("revoke")
def revoke(
    number: Annotated[int, typer.Argument(help="Its ID, from 'gantry tokens list'.")],
    as_json: AsJson = False,
) -> None:
    """End a token at once."""
    with Client(settings.load()) as client:
        row = client.get(f"/tokens/{number}/")
        client.delete(f"/tokens/{number}/")
    if as_json:
        print_json(row)
    else:
        output.console.print(f"“{row['name']}” no longer works.")
