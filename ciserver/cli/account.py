"""``gantry account``: one's own password, and where one is signed in."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.options import AsJson
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(help="Your password and your sessions.", no_args_is_help=True)


@app.command("password")
def password(as_json: AsJson = False) -> None:
    """Change your password: asked for, or the old and the new one as two lines of a pipe."""
    if sys.stdin.isatty():
        old = str(typer.prompt("Present password", hide_input=True))
        new = str(typer.prompt("New password", hide_input=True, confirmation_prompt=True))
    else:
        old, new = (sys.stdin.readline().removesuffix("\n") for _ in range(2))
    with Client(settings.load()) as client:
        client.send("POST", "/me/password/", old=old, new=new)
    if as_json:
        print_json({"changed": True})
        return
    output.console.print("Your password is changed. Every session has ended; tokens go on.")
    output.next_step("Those that somebody else may know: gantry tokens list")


@app.command("sessions")
def sessions(as_json: AsJson = False) -> None:
    """Where you are signed in with a browser."""
    with Client(settings.load()) as client:
        rows = client.list("/me/sessions/")
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "SIGNED IN", "FROM", "BROWSER"],
        [
            [row["name"], age(row["signed_in_at"]), row["address"] or "-", row["agent"] or "-"]
            for row in rows
        ],
    )
    if rows:
        output.next_step("To end one: gantry account end-session NAME")


@app.command("end-session")
def end_session(
    name: Annotated[str, typer.Argument(help="From 'gantry account sessions'.")],
    as_json: AsJson = False,
) -> None:
    """End one of your sessions."""
    with Client(settings.load()) as client:
        client.delete(f"/me/sessions/{name}/")
    if as_json:
        print_json({"ended": name})
    else:
        output.console.print("That session has ended.")
