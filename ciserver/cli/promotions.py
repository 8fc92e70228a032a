"""Commands around a promotion: its preview, approving and refusing it, and stopping the line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, EnvironmentName, Project, ReleaseName
from ciserver.cli.output import print_json

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; everybody can read it.")]
SHOWN_FILES = 10


def approve(
    project: Project,
    release: ReleaseName,
    environment: EnvironmentName,
    seen: Annotated[
        str, typer.Option(help="'configuration' of the --dry-run --json that you looked at.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing in a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say yes to a promotion that waits.

    To the digest and configuration that it shows, no other: if they change meanwhile, or since
    --seen, it is refused.
    """
    with Client(settings.load()) as client:
        waiting = _waiting(client, project, release, environment)
        told = client.get(f"/releases/{waiting['release']}/preview/?environment={environment}")
        if not as_json:
            _print_preview(told, environment, waiting["release_name"], waiting["digest"])
            if not yes and sys.stdin.isatty() and sys.stdout.isatty():
                typer.confirm("Approve this?", abort=True)
        looked_at = seen or told["configuration"]
        row = client.post(f"/deployments/{waiting['id']}/approve/", configuration=looked_at)
    if as_json:
        print_json(row)
    elif row["state"] == "waiting":
        print_waiting(row)
    else:
        output.console.print(f"Approved: {row['release_name']} is on its way to {environment}.")


def reject(
    project: Project,
    release: ReleaseName,
    environment: EnvironmentName,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Say no to a promotion that waits, or withdraw your own."""
    with Client(settings.load()) as client:
        waiting = _waiting(client, project, release, environment)
        row = client.post(f"/deployments/{waiting['id']}/reject/", reason=reason)
    if as_json:
        print_json(row)
    else:
        output.console.print(row["reason"], soft_wrap=True)


def cancel(place: str, reason: str, *, as_json: bool) -> None:
    """End the deployment that goes on in ``place``, PROJECT@ENV; else the newest that has not
    begun."""
    project, _, environment = place.partition("@")
    with Client(settings.load()) as client:
        for state in ("running", "queued", "waiting"):
            where = {"project": project, "environment": environment, "state": state}
            if rows := client.rows("/deployments/", limit=1, **where):
                break
        else:
            raise CliError(
                f"Nothing is on its way to {place}.",
                next_step=f"See what was: gantry deployments {project}",
                exit_code=Exit.REFUSED,
            )
        row = client.post(f"/deployments/{rows[0]['id']}/cancel/", reason=reason)
    if as_json:
        print_json(row)
    elif row["state"] == "cancelled":
        output.console.print(row["reason"], soft_wrap=True)
    else:
        output.console.print(f"{row['release_name']} to {environment} is being cancelled.")
        output.next_step(f"Next: gantry deployment {row['id']}")


def stop_line(
    project: Annotated[str, typer.Argument(help="A project; all of them without.")] = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Let nothing but roll-backs begin, until 'gantry resume-line'."""
    where = {"project": project} if project else {}
    with Client(settings.load()) as client:
        row = client.post("/stops/", reason=reason, **where)
    if as_json:
        print_json(row)
    else:
        output.console.print(f"The line of {project or 'every project'} is stopped.")
        output.next_step(f"Next: gantry resume-line {project}".rstrip())


def resume_line(
    project: Annotated[str, typer.Argument(help="A project; all of them without.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let what waited since 'gantry stop-line' go on."""
    with Client(settings.load()) as client:
        for row in client.every("/stops/"):
            if row["ended_at"] is None and (row["project"] or "") == project:
                ended = client.post(f"/stops/{row['id']}/resume/")
                break
        else:
            raise CliError(
                f"The line of {project or 'every project'} is not stopped.",
                next_step=_other_stops(client, project),
                exit_code=Exit.REFUSED,
            )
    if as_json:
        print_json(ended)
    else:
        output.console.print("The line runs again.")


def preview(project: str, release: str, environment: str, *, as_json: bool) -> None:
    """What ``gantry promote`` would change."""
    with Client(settings.load()) as client:
        row = find_release(client, project, release)
        told = client.get(f"/releases/{row['id']}/preview/?environment={environment}")
    if as_json:
        print_json(told)
        return
    _print_preview(told, environment, row["name"], row["digest"])
    output.next_step(f"Next: gantry promote {project} {row['name']} {environment}")


def _print_preview(told: Row, environment: str, name: str, digest: str) -> None:
    out = output.console
    now = told["current"] or "nothing"
    out.print(f"{environment} runs {now}; {name} would take its place.")
    out.print(Text(f"  image   {digest}"), soft_wrap=True)
    for word in told["waits_for"]:
        out.print(Text(f"  waits   {word}", style="yellow"), soft_wrap=True)
    for commit in told["commits"] or []:
        out.print(Text(f"  commit  {commit['sha'][:8]} {commit['subject']}"), soft_wrap=True)
    for change in [*told["variables"], *told["settings"]]:
        line = f"  change  {change['name']}: {_shown(change['old'])} -> {_shown(change['new'])}"
        out.print(Text(line), soft_wrap=True)
    for layer in told["layers"] or []:
        out.print(Text(f"  layer   {output.short(layer['digest'])} {layer['size']:,} bytes"))
        for file in (layer["files"] or [])[:SHOWN_FILES]:
            out.print(Text(f"          {file}"), soft_wrap=True)
        if layer["files"] and layer["count"] > SHOWN_FILES:
            out.print(f"          and {layer['count'] - SHOWN_FILES} more")
    for travel in told["travels"] or []:
        out.print(f"  travel  {travel['bytes']:,} bytes to {travel['host']}")
    for word in told["unknown"]:
        out.print(Text(f"  {word}", style="dim"), soft_wrap=True)


def print_waiting(deployment: Row) -> None:
    name, where = deployment["release_name"], deployment["environment"]
    out = output.console
    out.print(f"{name} waits for {where}. {deployment['reason']}", soft_wrap=True)
    output.next_step(f"Next, by an approver: gantry approve {deployment['project']} {name} {where}")


def find_release(client: Client, project: str, name: str) -> Row:
    number = name.removeprefix("v")
    if number.isdecimal():
        for row in client.rows("/releases/", limit=1, project=project, number=number):
            return row
    raise CliError(
        f"{project} has no release {name}.",
        next_step=f"See what there is: gantry releases {project}",
        exit_code=Exit.REFUSED,
    )


def previous(client: Client, project: str, environment: str) -> str:
    """The name of the release that served well before the one that does."""
    served: list[str] = []
    where = {"project": project, "environment": environment, "state": "succeeded"}
    for row in client.every("/deployments/", **where):
        if row["release_name"] not in served:
            served.append(row["release_name"])
        if len(served) == 2:
            return served[1]
    raise CliError(
        f"Nothing ran in {environment} before what runs now.",
        next_step=f"See what there is: gantry releases {project}",
        exit_code=Exit.REFUSED,
    )


def _other_stops(client: Client, project: str) -> str:
    """What to type instead to let something go on."""
    others = [row["project"] for row in client.rows("/stops/") if row["ended_at"] is None]
    if None in others:
        return "That of every project is, by an administrator's hand: gantry resume-line"
    if others:
        return f"That of {', '.join(others)} is: gantry resume-line {others[0]}"
    return "Nothing is: what waits is told by gantry deployments --state waiting"


def _waiting(client: Client, project: str, release: str, environment: str) -> Row:
    where = {"project": project, "environment": environment, "state": "waiting"}
    for row in client.every("/deployments/", **where):
        if row["release_name"].removeprefix("v") == release.removeprefix("v"):
            return row
    raise CliError(
        f"{release} does not wait for {environment}.",
        next_step=f"Ask for it: gantry promote {project} {release} {environment}",
        exit_code=Exit.REFUSED,
    )


def _shown(value: str | None) -> str:
    return "(unset)" if value is None else value
