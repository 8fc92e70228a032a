"""Commands that only look: status, projects, pipelines, releases."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row, given
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AnyProject, AsJson, Limit
from ciserver.cli.output import age, print_json, print_table, state


def status(as_json: AsJson = False) -> None:
    """What runs where: each environment and its release."""
    with Client(settings.load()) as client:
        environments = sorted(
            client.every("/environments/"), key=lambda row: (row["project"], row["position"])
        )
    if as_json:
        print_json(environments)
        return
    print_table(
        ["PROJECT", "ENVIRONMENT", "RELEASE", "COMMIT", "DIGEST", "HOST", "HEALTH", "SINCE", "URL"],
        [line for row in environments for line in _status_lines(row)],
    )
    if not environments:
        output.next_step("No environments yet. Next: gantry new PROJECT")


def projects(as_json: AsJson = False) -> None:
    """Your projects and where to push them."""
    with Client(settings.load()) as client:
        rows = list(client.every("/projects/"))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PROJECT", "REPOSITORY", "DESCRIPTION"],
        [[row["slug"], row["clone_url"] or row["git_url"], row["description"]] for row in rows],
    )
    output.next_step("Next: gantry pipelines PROJECT" if rows else "Next: gantry new PROJECT")


def pipelines(
    project: AnyProject = "",
    branch: Annotated[str, typer.Option(help="Only those of this branch.")] = "",
    state_: Annotated[
        str, typer.Option("--state", help="Only queued, running, passed, failed or cancelled ones.")
    ] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest pipelines, and how they went."""
    filters = given(project=project, branch=branch, state=state_)
    with Client(settings.load()) as client:
        rows = client.rows("/pipelines/", limit=limit, **filters)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PROJECT", "NUMBER", "STATE", "COMMIT", "BRANCH", "AGE", "TITLE"],
        [
            [
                row["project"],
                f"#{row['number']}",
                state(row["state"]),
                row["commit"][:8],
                row["ref"].removeprefix("refs/heads/").removeprefix("refs/tags/"),
                age(row["created_at"]),
                row["title"] if row["state"] != "failed" else why(row),
            ]
            for row in rows
        ],
    )
    output.next_step("Next: gantry logs PROJECT NUMBER" if rows else "No pipeline fits.")


def releases(project: AnyProject = "", limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest releases."""
    with Client(settings.load()) as client:
        rows = client.rows("/releases/", limit=limit, **given(project=project))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PROJECT", "RELEASE", "COMMIT", "DIGEST", "AGE", "TITLE"],
        [
            [
                row["project"],
                row["name"],
                row["commit"][:8],
                output.short(row["digest"]),
                age(row["created_at"]),
                row["title"],
            ]
            for row in rows
        ],
    )
    output.next_step("Next: gantry promote PROJECT RELEASE ENVIRONMENT")


def find_pipeline(client: Client, project: str, number: int) -> Row:
    """The project's pipeline of this number, or its newest for 0. Raises CliError."""
    which = {"number": str(number)} if number else {}
    for row in client.rows("/pipelines/", limit=1, project=project, **which):
        return row
    what = f"pipeline #{number}" if number else "pipeline yet"
    raise CliError(
        f"{project} has no {what}.",
        next_step=f"See what there is: gantry pipelines {project}",
        exit_code=Exit.REFUSED,
    )


def _status_lines(environment: Row) -> list[list[str | Text]]:
    where: list[str | Text] = [environment["project"], environment["name"]]
    if not environment["running"]:
        return [[*where, Text("nothing yet", style="dim"), "", "", "", "", "", ""]]
    return [
        [
            *where,
            run["release"],
            run["commit"][:8],
            output.short(run["digest"]),
            run["host"],
            _health(run),
            age(run["since"]),
            environment["address"],
        ]
        for run in environment["running"]
    ]


def _health(run: Row) -> Text:
    if not run["healthy"]:
        return Text("unhealthy", style="red")
    return Text("drift", style="yellow") if run["drift"] else Text("healthy", style="green")


def why(pipeline: Row) -> str:
    place = f"{pipeline['place']}: " if pipeline["place"] else ""
    return f"{place}{pipeline['reason']}"
