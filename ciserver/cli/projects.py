"""``gantry project``: what a project is said to be, and how its pipelines are queued."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import print_json, print_table


def project(
    project: Project,
    description: Annotated[
        str | None, typer.Option(help="One sentence; '' takes it away.", show_default=False)
    ] = None,
    cancel_superseded: Annotated[
        bool | None,
        typer.Option(
            "--cancel-superseded/--no-cancel-superseded",
            help="Whether a newer commit ends its branch's earlier pipelines.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=0, help="Pipelines at once; 0: as many as there are workers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a project's settings, or change them.

    Where its repository is, and what is protected: gantry repository.
    """
    asked = {
        "description": description,
        "cancel_superseded": cancel_superseded,
        "concurrency": concurrency,
    }
    wanted = {name: value for name, value in asked.items() if value is not None}
    with Client(settings.load()) as client:
        path = f"/projects/{project}/"
        row = client.patch(path, **wanted) if wanted else client.get(path)
    if as_json:
        print_json(row)
        return
    print_table(["SETTING", "VALUE"], _settings(row))
    if row["archived_at"]:
        output.next_step(f"To open it again: gantry restore {project}")
    elif not wanted:
        output.next_step(f"To change it: gantry project {project} --help")


def _settings(row: Row) -> list[tuple[str, str]]:
    found = [
        ("description", row["description"] or "-"),
        ("repository", row["clone_url"] or row["git_url"]),
        ("default branch", row["default_branch"]),
        ("cancel superseded", "yes" if row["cancel_superseded"] else "no"),
        ("pipelines at once", str(row["concurrency"] or "as many as there are workers")),
        ("page", row["page"]),
        ("badge", row["badge"]),
    ]
    if row["archived_at"]:
        found.append(("archived", f"by {row['archived_by']}, {row['archived_at'][:16]}"))
    if row["delete_at"]:
        found.append(("deleted", f"on {row['delete_at'][:16].replace('T', ' ')} UTC"))
    return found
