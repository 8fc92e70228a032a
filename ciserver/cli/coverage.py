"""``gantry coverage``: how much of the code a pipeline's tests ran, file by file."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.look import find_pipeline
from ciserver.cli.options import AsJson, Limit, Project
from ciserver.cli.output import print_json, print_table


def coverage(
    project: Project,
    number: Annotated[int, typer.Argument(help="A pipeline's number; the newest without.")] = 0,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """How much of the code a pipeline's tests ran.

    Files with most lines missed first.
    """
    with Client(settings.load()) as client:
        pipeline = find_pipeline(client, project, number)
        found = client.get(f"/pipelines/{pipeline['id']}/coverage/")
    if as_json:
        print_json(found)
        return
    files = found["files"]
    print_table(
        ["FILE", "LINES", "RUN", "CHANGE", "NOT RUN"],
        [
            [
                row["path"],
                str(row["lines"]),
                f"{row['percent']:.1f}%",
                _signed(row["change"]),
                row["missed"][:60],
            ]
            for row in files[:limit]
        ],
    )
    if found["coverage"] is None:
        output.console.print("No report yet. Name one in gantry.yml: tests.NAME.coverage")
        return
    against = f", {_signed(found['change'])} points" if found["change"] is not None else ""
    output.console.print(f"#{pipeline['number']}: {found['coverage']:.1f} % of lines ran{against}")


def _signed(change: float | None) -> str:
    return "" if change is None else f"{change:+.1f}"
