"""``gantry run``: what an environment runs, on this machine's own podman or docker."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from ciserver.cli import engines, output, places, ports, settings, variables
from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.locally import Local
from ciserver.cli.options import AsJson, Place

INTERRUPTED = 128 + signal.SIGINT


def run(
    place: Place,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="After --: instead of the image's own.", show_default=False),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", help="NAME=value, or NAME for yours; may be given again."),
    ] = None,
    env_file: Annotated[
        list[Path] | None, typer.Option("--env-file", help="A file of such lines.")
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", "-p", help="HERE or HERE:CONTAINER; 0 is any that is free."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it running, and say how to end it.")
    ] = False,
    no_limits: Annotated[
        bool, typer.Option("--no-limits", help="Without the environment's memory, CPUs, processes.")
    ] = False,
    engine: Annotated[str, typer.Option(help="podman or docker; whichever works without.")] = "",
    as_json: AsJson = False,
) -> None:
    """Run on this machine what an environment runs.

    By its very digest and with its variables.

    Secrets stay in the service: give your own with --env or --env-file. Ctrl-C ends and removes
    it; its exit code is passed on."""
    if as_json and not detach:
        raise CliError(
            "--json needs --detach: otherwise the output is the container's.",
            next_step=f"Type: gantry run {place} --detach --json",
            exit_code=Exit.USAGE,
        )
    project, environment = _parse(place)
    given = variables.read(env_file or [], env or [])
    service = settings.load()
    with Client(service) as client:
        row = places.find(client, project, environment)
        recipe = client.get(f"/environments/{row['id']}/container/")
    local = Local(
        place=place,
        recipe=recipe,
        engine=engines.find_engine(engine),
        service=service.url,
        # A command beside the server that its image is: no port of it is asked for by chance.
        publish=ports.choose(port or [], recipe["port"]) if port or not command else [],
        given=given,
        command=command or [],
        limited=not no_limits,
    )
    try:
        code = local.leave(quiet=as_json) if detach else local.show()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        output.print_json(local.described)
    raise typer.Exit(code)


def _parse(place: str) -> tuple[str, str]:
    project, at, environment = place.partition("@")
    if not (project and at and environment):
        raise CliError(
            f"{place!r} is not PROJECT@ENVIRONMENT.",
            next_step="Such as shop@prod. See which there are: gantry status",
            exit_code=Exit.USAGE,
        )
    return project, environment
