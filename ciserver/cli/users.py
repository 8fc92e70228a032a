"""``gantry users``: who can sign in. For administrators."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.options import AsJson
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(help="Who can sign in; for administrators.", no_args_is_help=True)
User = Annotated[str, typer.Argument(help="A user's name.", show_default=False)]


@app.command("list")
def every(as_json: AsJson = False) -> None:
    """Everybody, with their teams."""
    with Client(settings.load()) as client:
        rows = list(client.every("/users/"))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["USER", "STATE", "SIGNED IN", "TEAMS", "MAIL"],
        [
            [
                row["username"],
                _state(row),
                age(row["last_login"]) if row["last_login"] else "never",
                " ".join(row["teams"]) or "-",
                row["email"],
            ]
            for row in rows
        ],
    )


@app.command("new")
def new(
    user: User,
    email: Annotated[str, typer.Option(help="For people; Gantry sends no mail.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="An administrator.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a user. The link to set a password is printed once, alone on standard output."""
    with Client(settings.load()) as client:
        row = client.post("/users/", username=user, email=email, admin=admin)
    _print_link(row, as_json=as_json)
    if not as_json:
        output.next_step(f"Then: gantry members set PROJECT {user} developer")


@app.command("reset")
def reset(
    user: User,
    end_tokens: Annotated[bool, typer.Option("--end-tokens", help="Revoke them, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take the password away, end all sessions, and print a link to set another."""
    with Client(settings.load()) as client:
        place = f"/users/{quote(user, safe='')}/reset-password/"
        row = client.post(place, end_tokens=end_tokens)
    _print_link(row, as_json=as_json)


@app.command("disable")
def disable(user: User, as_json: AsJson = False) -> None:
    """Switch an account off: sessions and tokens end at once."""
    _change(user, as_json=as_json, words="can sign in no more", is_active=False)


@app.command("enable")
def enable(user: User, as_json: AsJson = False) -> None:
    """Switch an account on again."""
    _change(user, as_json=as_json, words="can sign in again", is_active=True)


@app.command("admin")
def admin(
    user: User,
    off: Annotated[bool, typer.Option("--off", help="No longer one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make somebody an administrator."""
    words = "is no administrator any more" if off else "is an administrator"
    _change(user, as_json=as_json, words=words, is_superuser=not off)


def _change(user: str, *, as_json: bool, words: str, **wanted: bool) -> None:
    with Client(settings.load()) as client:
        row = client.patch(f"/users/{quote(user, safe='')}/", **wanted)
    if as_json:
        print_json(row)
    else:
        output.console.print(f"{user} {words}.")


def _print_link(row: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    typer.echo(row["link"])
    output.next_step("It works once, for three days: who opens it sets the password.")


def _state(row: Row) -> str:
    if not row["is_active"]:
        return "switched off"
    return "administrator" if row["is_superuser"] else "user"
