"""``gantry inspect``: a program over what a failed job left."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from ciserver.cli import settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.look import find_pipeline
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import print_json

PAUSE = 0.3  # seconds between two looks
PATIENCE = 120.0  # seconds: a worker may be busy first


def inspect(
    project: Project,
    job: Annotated[str, typer.Argument(help="A job that failed, such as build or unit.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(help="After --: a program and its words.", show_default="ls -la"),
    ] = None,
    number: Annotated[int, typer.Option("--pipeline", help="The newest without.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run a program over what a failed job left.

    While it is kept: GANTRY_KEEP_FAILED.
    """
    with Client(settings.load()) as client:
        pipeline = find_pipeline(client, project, number)
        found = _job(client.get(f"/pipelines/{pipeline['id']}/"), job)
        words = command or ["ls", "-la"]
        row = _ended(client, client.post("/inspections/", job=found["id"], command=words))
    if as_json:
        print_json(row)
    elif row["state"] == "failed":
        raise CliError(
            row["reason"],
            next_step=f"What the job said: gantry logs {project} {pipeline['number']} --job {job}",
            exit_code=Exit.REFUSED,
        )
    else:
        sys.stdout.write(row["output"])
        if row["reason"]:
            typer.echo(row["reason"], err=True)
    raise typer.Exit(row["exit_code"] or 0)


def _job(pipeline: Row, name: str) -> Row:
    """The newest of that name."""
    jobs = [row for row in pipeline["jobs"] if row["name"] == name]
    if not jobs:
        names = ", ".join(dict.fromkeys(row["name"] for row in pipeline["jobs"]))
        raise CliError(
            f"Pipeline #{pipeline['number']} has no job {name}.",
            next_step=f"It has {names}.",
            exit_code=Exit.REFUSED,
        )
    return max(jobs, key=lambda row: row["id"])


def _ended(client: Client, row: Row) -> Row:
    deadline = time.monotonic() + PATIENCE
    while row["state"] in ("queued", "running"):
        if time.monotonic() > deadline:
            raise CliError(
                f"No worker has answered for {PATIENCE:.0f} s.",
                next_step="They may be busy: see gantry pipelines --state running, then ask again.",
                exit_code=Exit.UNREACHABLE,
            )
        time.sleep(PAUSE)
        row = client.get(f"/inspections/{row['id']}/")
    return row
