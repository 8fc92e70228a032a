"""``gantry policy``: what may come into an environment, by whose hand and with whose word."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.options import AsJson, EnvironmentName, Project
from ciserver.cli.output import print_json, print_table
from ciserver.cli.places import find

NOBODY = "none"


class MayPromote(enum.Enum):
    """The API's numbers of roles."""

    VIEWER = 10
    DEVELOPER = 20
    MAINTAINER = 30
    OWNER = 40


def policy(
    project: Project,
    environment: EnvironmentName,
    promote_role: Annotated[
        str, typer.Option(help="The least role that may promote: developer, maintainer or owner.")
    ] = "",
    promoter: Annotated[
        list[str] | None,
        typer.Option(help="A member who may, whatever the role; again for more, 'none' for none."),
    ] = None,
    approvals: Annotated[
        int | None, typer.Option(min=0, help="How many a promotion needs.")
    ] = None,
    approval_hours: Annotated[
        int | None, typer.Option(help="Hours after which one that nobody answered ends.")
    ] = None,
    approver: Annotated[
        list[str] | None,
        typer.Option(help="A member whose word counts; again for more, 'none' for none."),
    ] = None,
    soak: Annotated[
        int | None, typer.Option(min=0, help="Minutes in the environment before it.")
    ] = None,
    auto: Annotated[
        bool | None, typer.Option("--auto/--no-auto", help="Whether releases come by themselves.")
    ] = None,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm", help="As another owner: what somebody weakened holds for them, too."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show or change who may promote to an environment.

    And who approves, and how long a release must have run before.
    """
    given = {
        "promote_role": _role(promote_role) if promote_role else None,
        "promoters": _names(promoter),
        "approvals": approvals,
        "approval_hours": approval_hours,
        "approvers": _names(approver),
        "soak_minutes": soak,
        "auto": auto,
    }
    wanted = {name: value for name, value in given.items() if value is not None}
    if confirm:
        wanted["confirm_policy"] = True
    with Client(settings.load()) as client:
        row = find(client, project, environment)
        if wanted:
            row = client.patch(f"/environments/{row['id']}/", **wanted)
    if as_json:
        print_json({name: row[name] for name in (*given, "kept_policy")})
        return
    print_table(["POLICY", "VALUE"], _rows(row))
    if not wanted:
        output.next_step(f"To change it: gantry policy {project} {environment} --help")


def _role(word: str) -> int:
    try:
        return MayPromote[word.upper()].value
    except KeyError:
        raise typer.BadParameter(
            f"{word!r} is no role. Use developer, maintainer or owner."
        ) from None


def _names(given: list[str] | None) -> list[str] | None:
    return [name for name in given if name != NOBODY] if given else None


def _rows(row: Row) -> list[list[str]]:
    role = MayPromote(row["promote_role"]).name.lower()
    return [
        ["may promote", ", ".join([f"{role} or more", *row["promoters"]])],
        ["approvals", str(row["approvals"])],
        ["approvers", ", ".join(row["approvers"]) or "-"],
        ["unanswered", f"{row['approval_hours']} h"],
        ["soak", f"{row['soak_minutes']} min"],
        ["by itself", "yes" if row["auto"] else "no"],
        *([f"still for {who}", _kept(own)] for who, own in row["kept_policy"].items()),
    ]


def _kept(own: dict[str, Any]) -> str:
    """What one who weakened the policy is asked for, until another owner confirms it."""
    return ", ".join(
        f"{name.replace('_', ' ')} {' and '.join(least) if isinstance(least, list) else least}"
        for name, least in own.items()
    )
