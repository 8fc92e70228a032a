"""``gantry tests``: how single tests fared."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.look import find_pipeline
from ciserver.cli.options import AsJson, Limit, Project
from ciserver.cli.output import print_json, print_table, state


def tests(
    project: Project,
    number: Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")] = 0,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    flaky: Annotated[
        bool, typer.Option("--flaky", help="Those that failed and then passed, of all pipelines.")
    ] = False,
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """The tests of a pipeline, as reported, failed ones first."""
    with Client(settings.load()) as client:
        filters = {"project": project}
        if flaky:
            filters["flaky"] = "1"
        else:
            filters["pipeline"] = str(find_pipeline(client, project, number)["number"])
        rows = client.rows("/cases/", limit=limit, outcome="failed,error", **filters)
        if not failed and not flaky and len(rows) < limit:
            left = limit - len(rows)
            rows += client.rows("/cases/", limit=left, outcome="passed,skipped", **filters)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["OUTCOME", "PIPELINE", "JOB", "SECONDS", "TEST"],
        [
            [
                state(row["outcome"]),
                f"#{row['pipeline']}",
                row["job"],
                f"{row['seconds']:.2f}",
                f"{row['suite']}.{row['name']}" if row["suite"] else row["name"],
            ]
            for row in rows
        ],
    )
    if not rows:
        output.next_step("None. A test job names its reports by 'junit': see docs/tests.md")
