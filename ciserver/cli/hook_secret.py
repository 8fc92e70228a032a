"""``gantry hook-secret show|renew|test|end-old``: what a forge signs its webhooks with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Project
from ciserver.cli.output import print_json
from ciserver.cli.secrets import read_value

app = typer.Typer(help="The secret of a project's webhooks.", no_args_is_help=True)


@app.command("show")
def show(project: Project, as_json: AsJson = False) -> None:
    """Whether there is one, never which, and where a forge sends its webhooks."""
    with Client(settings.load()) as client:
        row = client.get(_path(project))
    if as_json:
        print_json(row)
        return
    output.console.print(f"Address: {row['address']}")
    if not row["set"]:
        output.console.print("No secret is set: every webhook is refused.")
        output.next_step(f"Next: gantry hook-secret renew {project}")
        return
    output.console.print("A secret is set.")
    if row["old_until"]:
        output.console.print(f"The one before it counts until {row['old_until']}.")
        output.next_step(f"Once every forge has the new one: gantry hook-secret end-old {project}")


@app.command("renew")
def renew(
    project: Project,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="End the old one at once: it leaked.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="One that the forge made, from here; '-' is standard input."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new one and print it, this once. The old one counts for seven days more."""
    given = {} if file is None else {"secret": read_value(file).strip()}
    with Client(settings.load()) as client:
        row = client.post(_path(project), drop_old=drop_old, **given)
    if as_json:
        print_json(row)
        return
    print(row["secret"])
    output.next_step("Enter it at the forge now: it is not shown again.")


@app.command("test")
def test(project: Project, as_json: AsJson = False) -> None:
    """Send a signed webhook the whole way a forge's would go; it builds nothing."""
    with Client(settings.load()) as client:
        row = client.post(f"/projects/{project}/hook-test/")
    if as_json:
        print_json(row)
    elif row["good"]:
        output.console.print(f"{row['url']} answered {row['status']} in {row['milliseconds']} ms.")
    if not row["good"]:
        raise CliError(
            row["words"],
            next_step="It goes to GANTRY_URL, as forges do: look at the proxy and the name.",
            exit_code=Exit.BAD_RESULT,
        )


@app.command("end-old")
def end_old(project: Project, as_json: AsJson = False) -> None:
    """The one before the present one counts no more, from now on."""
    with Client(settings.load()) as client:
        client.delete(_path(project))
        row = client.get(_path(project))
    if as_json:
        print_json(row)
        return
    output.console.print(f"Of {project} only the present webhook secret counts.")


def _path(project: str) -> str:
    return f"/projects/{project}/hook-secret/"
