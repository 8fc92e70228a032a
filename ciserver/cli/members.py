"""``gantry members list|set|remove``: who has which role in a project."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import print_json, print_table

app = typer.Typer(help="Who has which role in a project.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A user's name; with --team a team's.")]
Team = Annotated[bool, typer.Option("--team", help="NAME is a team's.")]


@app.command("list")
def every(project: Project, as_json: AsJson = False) -> None:
    """Everybody with a role, in person or through a team; the highest counts."""
    with Client(settings.load()) as client:
        row = client.get(f"/projects/{project}/members/")
    if as_json:
        print_json(row)
        return
    people = [
        [
            one["username"],
            one["role"] if one["active"] else f"{one['role']} (switched off)",
            ", ".join(
                [
                    *(["in person"] if one["own"] else []),
                    *(f"{role} through {team}" for team, role in one["teams"].items()),
                ]
            ),
        ]
        for one in row["people"]
    ]
    teams = [[f"team {one['team']}", one["role"], f"{one['people']} in it"] for one in row["teams"]]
    print_table(["WHO", "ROLE", "HOW"], [*people, *teams])
    output.next_step(f"Next: gantry members set {project} NAME developer")


@app.command("set")
def give(
    project: Project,
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer, developer, maintainer or owner.")],
    team: Team = False,
    as_json: AsJson = False,
) -> None:
    """Give somebody, or a team, a role; who has one already gets this instead."""
    with Client(settings.load()) as client:
        row = client.put(_place(project, name, team=team), role=role)
    if as_json:
        print_json(row)
        return
    output.console.print(f"{name} is now {role} of {project}.")
    output.next_step(f"To undo it: gantry members remove {project} {name}{_flag(team=team)}")


@app.command("remove")
def remove(project: Project, name: Name, team: Team = False, as_json: AsJson = False) -> None:
    """Take a role away. With your own name: leave."""
    with Client(settings.load()) as client:
        client.delete(_place(project, name, team=team))
    if as_json:
        print_json({"project": project, "removed": name})
        return
    output.console.print(f"{name} has no role of their own in {project} any more.")


def _place(project: str, name: str, *, team: bool) -> str:
    kind = "teams" if team else "members"
    return f"/projects/{project}/{kind}/{quote(name, safe='')}/"


def _flag(*, team: bool) -> str:
    return " --team" if team else ""
