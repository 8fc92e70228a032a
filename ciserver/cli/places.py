"""Commands about an environment's settings, and who did what."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row, given
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AnyProject, AsJson, Limit, Project
from ciserver.cli.output import age, print_json, print_table


def env(
    project: Project,
    environment: Annotated[str, typer.Argument(help="An environment, such as prod.")],
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=value; may be given again.")
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", help="NAME; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show an environment's settings, or change its variables.

    ``--set`` and ``--unset`` change them.
    """
    with Client(settings.load()) as client:
        row = find(client, project, environment)
        if sets or unset:
            variables = _changed(row["variables"], sets or [], unset or [])
            row = client.patch(f"/environments/{row['id']}/", variables=variables)
    if as_json:
        print_json(row)
        return
    print_table(["SETTING", "VALUE"], [[name, value] for name, value in _settings(row)])
    if sets or unset:
        output.next_step("It holds from the next deployment: gantry promote or the page's button.")


def audit(
    project: AnyProject = "",
    actor: Annotated[str, typer.Option(help="Only what this user did.")] = "",
    action: Annotated[str, typer.Option(help="Only this, such as deployment.approve.")] = "",
    limit: Limit = 30,
    as_json: AsJson = False,
) -> None:
    """Who did what in the projects that you maintain."""
    filters = given(project=project, actor=actor, action=action)
    with Client(settings.load()) as client:
        rows = client.rows("/audit/", limit=limit, **filters)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["WHEN", "WHO", "WHAT", "WHERE", "DETAIL"],
        [
            [
                age(row["at"]),
                row["actor"],
                row["action"],
                row["target"],
                " ".join(f"{key}={_plain(value)}" for key, value in row["detail"].items()),
            ]
            for row in rows
        ],
    )


def find(client: Client, project: str, name: str) -> Row:
    for row in client.every("/environments/", project=project, name=name):
        return row
    raise CliError(
        f"{project} has no environment {name!r}.",
        next_step="See what there is: gantry status",
        exit_code=Exit.REFUSED,
    )


def _changed(variables: dict[str, str], sets: list[str], unset: list[str]) -> dict[str, str]:
    found = dict(variables)
    for word in sets:
        name, equals, value = word.partition("=")
        if not equals:
            raise CliError(
                f"{word!r} is not NAME=value.",
                next_step="An empty value is NAME= and --unset NAME takes it away.",
                exit_code=Exit.USAGE,
            )
        found[name] = value
    for name in unset:
        found.pop(name, None)
    return found


def _settings(row: Row) -> list[tuple[str, str]]:
    names = ("auto", "soak_minutes", "health_timeout", "memory_mib", "cpus", "pids")
    approvers = f" of {', '.join(row['approvers'])}" if row["approvers"] else ""
    return [
        ("hosts", ", ".join(host["name"] for host in row["hosts"])),
        ("approvals", f"{row['approvals']}{approvers}"),
        *((name.replace("_", " "), _plain(row[name])) for name in names),
        *((f"${name}", value) for name, value in row["variables"].items()),
    ]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
