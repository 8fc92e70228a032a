"""``gantry teams``: people who have a role together. Administrators make and fill them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.options import AsJson
from ciserver.cli.output import print_json, print_table

app = typer.Typer(help="People who have a role together.", no_args_is_help=True)
Team = Annotated[str, typer.Argument(help="A team's name.", show_default=False)]
User = Annotated[str, typer.Argument(help="A user's name.", show_default=False)]


@app.command("list")
def every(as_json: AsJson = False) -> None:
    """Your teams; an administrator's are all."""
    with Client(settings.load()) as client:
        rows = list(client.every("/teams/"))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["TEAM", "PEOPLE", "DESCRIPTION"],
        [[row["name"], " ".join(row["members"]) or "-", row["description"]] for row in rows],
    )
    if not rows:
        output.next_step("None. An administrator makes one: gantry teams new NAME")


@app.command("new")
def new(
    team: Team,
    description: Annotated[str, typer.Option(help="A line for the pages.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a team. For administrators."""
    with Client(settings.load()) as client:
        row = client.post("/teams/", name=team, description=description)
    if as_json:
        print_json(row)
        return
    output.console.print(f"Made the team {team}.")
    output.next_step(
        f"Next: gantry teams add {team} USER\n      gantry members set PROJECT {team} ROLE --team"
    )


@app.command("add")
def add(team: Team, user: User, as_json: AsJson = False) -> None:
    """Put somebody into a team. For administrators."""
    with Client(settings.load()) as client:
        row = client.put(f"/teams/{team}/members/{quote(user, safe='')}/")
    if as_json:
        print_json(row)
    else:
        output.console.print(f"{user} is in {team}.")


@app.command("remove")
def remove(team: Team, user: User, as_json: AsJson = False) -> None:
    """Take somebody out of a team. For administrators."""
    with Client(settings.load()) as client:
        client.delete(f"/teams/{team}/members/{quote(user, safe='')}/")
    if as_json:
        print_json({"team": team, "removed": user})
    else:
        output.console.print(f"{user} is not in {team} any more.")


@app.command("delete")
def delete(team: Team, as_json: AsJson = False) -> None:
    """End a team, and the roles that its people have through it. For administrators."""
    with Client(settings.load()) as client:
        client.delete(f"/teams/{team}/")
    if as_json:
        print_json({"deleted": team})
    else:
        output.console.print(f"There is no team {team} any more.")
