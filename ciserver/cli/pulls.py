"""``gantry pulls list|approve``: pull requests, and letting a fork's commit be built."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Limit, Project
from ciserver.cli.output import age, print_json, print_table

app = typer.Typer(help="Pull requests, and approving those of forks.", no_args_is_help=True)
LEAST = 8  # digits of a commit id that name what was looked at


@app.command("list")
def list_pulls(project: Project, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Open pull requests, newest first."""
    with Client(settings.load()) as client:
        rows = client.rows("/pull-requests/", limit=limit, project=project)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NUMBER", "COMMIT", "FROM", "STATE", "CHANGED", "TITLE"],
        [
            [
                str(row["number"]),
                row["sha"][:12],
                row["sender"],
                "waiting" if row["waits"] else "fork" if row["from_fork"] else "branch",
                age(row["updated_at"]),
                row["title"],
            ]
            for row in rows
        ],
    )
    if waiting := next((row for row in rows if row["waits"]), None):
        output.next_step(
            f"Next: gantry pulls approve {project} {waiting['number']} {waiting['sha'][:12]}"
        )


@app.command("approve")
def approve(
    project: Project,
    number: Annotated[int, typer.Argument(help="The pull request's number.", show_default=False)],
    commit: Annotated[
        str, typer.Argument(help=f"Its commit, {LEAST} digits at least.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Let this one commit of a fork be built, without secrets."""
    with Client(settings.load()) as client:
        rows = client.every("/pull-requests/", project=project)
        row = next((row for row in rows if row["number"] == number), None)
        if row is None:
            raise CliError(
                f"{project} has no open pull request {number}.",
                next_step=f"See: gantry pulls list {project}",
                exit_code=Exit.REFUSED,
            )
        if len(commit) < LEAST or not row["sha"].startswith(commit):
            raise CliError(
                f"Pull request {number} is at {row['sha'][:12]}, not at {commit}.",
                next_step="Look at what it is at now, then approve that.",
                exit_code=Exit.REFUSED,
            )
        row = client.post(f"/pull-requests/{row['id']}/approve/", sha=row["sha"])
    if as_json:
        print_json(row)
        return
    output.console.print(f"{row['sha'][:12]} of pull request {number} is being built.")
    output.next_step(f"Next: gantry pipelines {project}")
