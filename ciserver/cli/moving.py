"""``gantry move``: another host in place of one of an environment's."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.daytwo import find_place
from ciserver.cli.deliveries import UNFINISHED, WAITING, NoWait, wait_for
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson, Place
from ciserver.cli.output import print_json


def move(
    place: Place,
    to: Annotated[str, typer.Argument(help="The host that is to serve it.", show_default=False)],
    host: Annotated[str, typer.Option(help="The one to leave, where it has several.")] = "",
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Have another host serve what runs on one of its own.

    The old one serves until the new one is healthy.
    """
    with Client(settings.load()) as client:
        row = find_place(client, place, "move")
        deployment = client.post(f"/environments/{row['id']}/move/", to=to, host=host)
        if not no_wait:
            deployment = wait_for(client, deployment, quiet=as_json)
    if as_json:
        print_json(deployment)
    name, left, reason = deployment["release_name"], deployment["from_host"], deployment["reason"]
    if deployment["state"] not in {*UNFINISHED, WAITING, "succeeded"}:
        raise CliError(
            f"{name} of {place} is not moved to {to}: {reason}",
            next_step=f"{left} still serves it. See what is there: gantry hosts check {to}",
            exit_code=Exit.BAD_RESULT,
        )
    if not as_json:
        words = "serves" if deployment["state"] == "succeeded" else "is about to serve"
        output.console.print(f"{to} {words} {name} of {place} in place of {left}.", soft_wrap=True)
        if reason:
            output.console.print(reason, soft_wrap=True, markup=False)
