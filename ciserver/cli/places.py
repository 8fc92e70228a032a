"""An environment by its name, and who did what."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ciserver.cli import settings
from ciserver.cli.client import Client, Row, given
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AnyProject, AsJson, Limit
from ciserver.cli.output import age, print_json, print_table


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
                " ".join(f"{key}={plain(value)}" for key, value in row["detail"].items()),
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


def plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
