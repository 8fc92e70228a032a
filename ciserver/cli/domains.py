"""``gantry domains``: the host names that lead to an environment, and their HTTPS."""

from __future__ import annotations

from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.options import AsJson, EnvironmentName, Project
from ciserver.cli.output import print_json, print_table
from ciserver.cli.places import find


def domains(
    project: Project,
    environment: EnvironmentName,
    add: Annotated[
        list[str] | None, typer.Option("--add", help="A host name; may be given again.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="A host name; may be given again.")
    ] = None,
    https: Annotated[
        str,
        typer.Option(
            help="Certificates of a public authority (acme), of the host's own (internal), or off."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show or change an environment's host names.

    ``--add``, ``--remove`` and ``--https`` change them at once.
    """
    with Client(settings.load()) as client:
        row = find(client, project, environment)
        if add or remove:
            kept = [name for name in row["domains"] if name not in (remove or [])]
            row = client.patch(f"/environments/{row['id']}/", domains=[*kept, *(add or [])])
        if https:
            row = client.patch(f"/environments/{row['id']}/", https=https)
    if as_json:
        print_json({name: row[name] for name in ("domains", "https", "given_up")})
        return
    for one in row["given_up"]:
        when = f", by anybody from {one['free_at']} on" if one["free_at"] else ""
        output.console.print(
            f"{one['address']} was given up by {one['by']}: put back here, or elsewhere by another"
            f" owner or one who approves here{when}.",
            soft_wrap=True,
        )
    if not row["domains"]:
        output.console.print(f"{environment} of {project} has no domains.")
        output.next_step(f"Next: gantry domains {project} {environment} --add NAME")
        return
    print_table(["DOMAIN", "HTTPS"], [[name, row["https"]] for name in row["domains"]])
    if add:
        hosts = ", ".join(host["address"] or host["name"] for host in row["hosts"])
        output.next_step(f"Let them lead to its hosts by DNS: {hosts}")
