"""``gantry start`` and ``gantry schedules``: pipelines without a push."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import daytwo, output, settings
from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AnyProject, AsJson, ProjectOrPlace
from ciserver.cli.output import age, print_json, print_table


def start(
    project: ProjectOrPlace,
    ref: Annotated[
        str, typer.Option("--ref", help="A branch or a tag.", show_default="the default branch")
    ] = "",
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="NAME=VALUE of an input in gantry.yml."),
    ] = None,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Tell which inputs there are, and start nothing.")
    ] = False,
    host: Annotated[str, typer.Option(help="Of PROJECT@ENV: one of its hosts.")] = "",
    as_json: AsJson = False,
) -> None:
    """Start a pipeline of a branch or tag; or a stopped PROJECT@ENV."""
    if daytwo.is_place(project):
        daytwo.start(project, host=host, as_json=as_json)
        return
    with Client(settings.load()) as client:
        if inputs:
            _print_inputs(client, project, ref, as_json=as_json)
            return
        values = dict(map(_pair, given or []))
        row = client.post("/pipelines/", project=project, ref=ref, inputs=values)
    if as_json:
        print_json(row)
        return
    output.console.print(f"Started pipeline #{row['number']} of {project}: {row['page']}")
    output.next_step(f"Next: gantry logs {project} {row['number']} --follow")


def schedules(project: AnyProject = "", as_json: AsJson = False) -> None:
    """When pipelines start by themselves (UTC).

    As gantry.yml of the default branch says.
    """
    with Client(settings.load()) as client:
        filters = {"project": project} if project else {}
        rows = list(client.every("/schedules/", **filters))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["PROJECT", "CRON", "NEXT", "LAST", "PIPELINE", "TROUBLE"],
        [
            [
                row["project"],
                row["cron"],
                row["next_at"],
                age(row["last_at"]),
                f"#{row['pipeline']}" if row["pipeline"] else "-",
                row["trouble"],
            ]
            for row in rows
        ],
    )
    if not rows:
        output.next_step("None yet. Write schedule: into gantry.yml of the default branch.")


def _print_inputs(client: Client, project: str, ref: str, *, as_json: bool) -> None:
    rows = client.list("/pipelines/inputs/", project=project, ref=ref)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "TYPE", "DEFAULT", "REQUIRED", "OPTIONS", "DESCRIPTION"],
        [
            [
                row["name"],
                row["type"],
                row["default"] or "",
                "yes" if row["required"] else "",
                ", ".join(row["options"]),
                row["description"],
            ]
            for row in rows
        ],
    )


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise CliError(
            f"An input is NAME=VALUE, not {text!r}.",
            next_step="See which there are: gantry start PROJECT --inputs",
            exit_code=Exit.USAGE,
        )
    return name, value
