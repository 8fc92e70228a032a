"""``gantry env`` and ``gantry new-env``: settings of an environment, and one more."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client, Row
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, EnvironmentName, Project
from ciserver.cli.output import print_json, print_table
from ciserver.cli.places import find, plain

OF_THE_IMAGE = "image"
SHOWN = (
    "auto",
    "port",
    "soak_minutes",
    "health_passes",
    "health_timeout",
    "stable_seconds",
    "batch_size",
    "stop_on_failure",
    "memory_mib",
    "cpus",
    "pids",
)

Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="A host that is to serve it; again for more. No others do."),
]


def env(
    project: Project,
    environment: EnvironmentName,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=value; may be given again.")
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", help="NAME; may be given again.")
    ] = None,
    host: Hosts = None,
    port: Annotated[
        int | None, typer.Option(help="Where each of its hosts answers. It holds at once.")
    ] = None,
    auto: Annotated[
        bool | None, typer.Option("--auto/--no-auto", help="Whether releases come by themselves.")
    ] = None,
    health: Annotated[
        str,
        typer.Option(help="'http /PATH', 'tcp', 'exec COMMAND', or 'image' for its HEALTHCHECK."),
    ] = "",
    health_passes: Annotated[
        int | None, typer.Option(help="How often in a row the check has to pass.")
    ] = None,
    health_timeout: Annotated[
        int | None, typer.Option(help="Seconds until it must have passed.")
    ] = None,
    stable_seconds: Annotated[
        int | None, typer.Option(help="Seconds for which it must stay up after it passed.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="How many hosts change at a time.")] = None,
    stop_on_failure: Annotated[
        bool | None,
        typer.Option(
            "--stop-on-failure/--no-stop-on-failure",
            help="Whether the other hosts stay as they are once one failed.",
        ),
    ] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory of a container.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Processors of a container: 0.5.")] = None,
    pids: Annotated[int | None, typer.Option(help="Most processes of a container.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show an environment's settings, or change them.

    They hold from the next deployment on, the port at once. Who may promote and who approves:
    gantry policy; its host names: gantry domains.
    """
    asked: dict[str, object] = {
        "hosts": host,
        "port": port,
        "auto": auto,
        "health": "" if health == OF_THE_IMAGE else health or None,
        "health_passes": health_passes,
        "health_timeout": health_timeout,
        "stable_seconds": stable_seconds,
        "batch_size": batch_size,
        "stop_on_failure": stop_on_failure,
        "memory_mib": memory_mib,
        "cpus": cpus,
        "pids": pids,
    }
    wanted = {name: value for name, value in asked.items() if value is not None}
    with Client(settings.load()) as client:
        row = find(client, project, environment)
        if sets or unset:
            wanted["variables"] = _changed(row["variables"], sets or [], unset or [])
        if wanted:
            row = client.patch(f"/environments/{row['id']}/", **wanted)
    if as_json:
        print_json(row)
        return
    print_table(["SETTING", "VALUE"], _settings(row))
    if wanted.keys() - {"port"}:
        output.next_step("It holds from the next deployment: gantry promote or the page's button.")
    else:
        output.next_step(f"To change it: gantry env {project} {environment} --help")


def new_env(
    project: Project,
    environment: Annotated[str, typer.Argument(help="Its name, such as stage.")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A host that serves it; again for more.", show_default="local"),
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Releases come by themselves.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add an environment at the end of a project's chain."""
    with Client(settings.load()) as client:
        row = client.post(
            "/environments/", project=project, name=environment, auto=auto, hosts=host or ["local"]
        )
    if as_json:
        print_json(row)
        return
    output.console.print(f"Made {project}@{environment}: {row['page']}", soft_wrap=True)
    output.next_step(f"Next: gantry env {project} {environment} --help, or gantry policy")


def _changed(variables: dict[str, str], sets: list[str], unset: list[str]) -> dict[str, str]:
    found = dict(variables)
    for word in sets:
        name, equals, value = word.partition("=")
        if not equals:
            raise CliError(
                f"{word!r} is not NAME=value.",
                next_step="An empty value is NAME= and --unset NAME takes it away.",
                exit_code=Exit.USAGE,
            )
        found[name] = value
    for name in unset:
        found.pop(name, None)
    return found


def _settings(row: Row) -> list[tuple[str, str]]:
    approvers = f" of {', '.join(row['approvers'])}" if row["approvers"] else ""
    return [
        ("hosts", ", ".join(host["name"] for host in row["hosts"])),
        ("approvals", f"{row['approvals']}{approvers}"),
        ("health", row["health"] or "the image's own"),
        *((name.replace("_", " "), plain(row[name])) for name in SHOWN),
        *((f"${name}", value) for name, value in row["variables"].items()),
    ]
