"""``gantry open``: the page of a project, pipeline, release or environment."""

from __future__ import annotations

import sys
import webbrowser
from typing import Annotated

import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.look import find_pipeline
from ciserver.cli.options import AnyProject, AsJson
from ciserver.cli.output import print_json
from ciserver.cli.places import find
from ciserver.cli.promotions import find_release


def open_page(
    project: AnyProject = "",
    what: Annotated[
        str, typer.Argument(help="A pipeline's number, a release such as v3, or an environment.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Open a page in the browser, or print its address.

    It is printed in a pipe, and where there is no browser.
    """
    with Client(settings.load()) as client:
        page = _page(client, project, what)
    if as_json:
        print_json({"page": page})
        return
    if not (sys.stdout.isatty() and webbrowser.open(page)):
        typer.echo(page)
    else:
        output.console.print(f"Opened {page}")


def _page(client: Client, project: str, what: str) -> str:
    if not project:
        return f"{client.url}/"
    if not what:
        return str(client.get(f"/projects/{project}/")["page"])
    if what.isdecimal():
        return str(find_pipeline(client, project, int(what))["page"])
    if what[0] == "v" and what[1:].isdecimal():
        return str(find_release(client, project, what)["page"])
    return str(find(client, project, what)["page"])
