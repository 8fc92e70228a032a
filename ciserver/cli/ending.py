"""``gantry archive``, ``restore`` and ``delete``: what happens to a project at the end."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Project, ProjectOrPlace
from ciserver.cli.output import print_json
from ciserver.cli.places import find


def archive(project: Project, as_json: AsJson = False) -> None:
    """Make a project read-only: nothing more is pushed, built or deployed.

    What serves goes on serving.
    """
    with Client(settings.load()) as client:
        row = client.post(f"/projects/{project}/archive/")
    if as_json:
        print_json(row)
        return
    output.console.print(f"{project} is archived: it is only read from now on.")
    output.next_step(f"To open it again: gantry restore {project}")


def restore(project: Project, as_json: AsJson = False) -> None:
    """Open an archived project again, or one that is to be deleted."""
    with Client(settings.load()) as client:
        row = client.post(f"/projects/{project}/restore/")
    if as_json:
        print_json(row)
        return
    output.console.print(f"{project} is open again.")
    output.next_step(f"Next: gantry pipelines {project}")


def delete(
    what: ProjectOrPlace,
    now: Annotated[
        bool, typer.Option("--now", help="A project: at once, and not after seven days.")
    ] = False,
    confirm: Annotated[
        str, typer.Option(help="The name once more; asked for where it is left out.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Delete a project, after seven days in which it can be restored; or an environment, at once.

    What serves is stopped. With a project go its images, repository, pipelines and logs; with an
    environment its domains, secrets and history.
    """
    project, at, environment = what.partition("@")
    with Client(settings.load()) as client:
        if at:
            row = find(client, project, environment)
            path, words = f"/environments/{row['id']}/", _stops([row])
        else:
            path = f"/projects/{project}/"
            client.get(path)  # whether there is one at all, before anything is typed
            words = _stops(list(client.every("/environments/", project=project)))
        typed = confirm or _typed(what, words)
        answer = client.delete_after(path, confirm=typed, **({"now": "true"} if now else {}))
    if as_json:
        print_json(answer)
    elif at:
        output.console.print(f"{what} is being removed: a worker stops what serves it.")
        output.next_step(f"To see that it is gone: gantry status, or gantry audit {project}")
    elif now:
        output.console.print(f"{project} is being deleted.")
        output.next_step("To see that it is gone: gantry projects")
    else:
        when = answer["delete_at"][:16].replace("T", " ")
        output.console.print(f"{project} is archived, and deleted on {when} UTC.")
        output.next_step(f"To keep it: gantry restore {project}")


def _stops(environments: list[Row]) -> str:
    """What is stopped by it, in words; empty if nothing serves."""
    serving = [
        f"{row['project']}@{row['name']} on {one['host']}"
        for row in environments
        for one in row["running"]
    ]
    return f"It stops {', '.join(serving)}. " if serving else ""


def _typed(what: str, words: str) -> str:
    """What a person types to be sure. Raises CliError where there is nobody."""
    if not sys.stdin.isatty():
        raise CliError(
            f"To be sure, this needs the name of what goes: {what}",
            next_step=f"gantry delete {what} --confirm {what}",
            exit_code=Exit.USAGE,
        )
    return str(typer.prompt(f"{words}Type {what} to delete it", err=True))
