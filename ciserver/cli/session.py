"""``login`` and ``whoami``."""

from __future__ import annotations

from typing import Annotated

import httpx
import typer

from ciserver.cli import output, settings
from ciserver.cli.client import Client
from ciserver.cli.errors import CliError, Exit
from ciserver.cli.options import AsJson
from ciserver.cli.settings import Settings


def login(
    url: Annotated[str, typer.Argument(help="The service's address, such as https://ci.example.")],
    token: Annotated[
        str,
        typer.Option(
            prompt="Token", hide_input=True, envvar="GANTRY_TOKEN", help="Asked for if not given."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Keep a service's address and your token for other commands."""
    if not _is_address(url):
        raise CliError(
            f"{url!r} is not an address.",
            next_step="Type it with its scheme: gantry login https://ci.example",
            exit_code=Exit.USAGE,
        )
    chosen = Settings(url=url.rstrip("/"), token=token.strip())
    with Client(chosen) as client:
        name = client.get("/me/")["username"]
    file = settings.save(chosen)
    if as_json:
        output.print_json({"url": chosen.url, "username": name, "file": str(file)})
        return
    output.console.print(f"Logged in to {chosen.url} as {name}; kept in {file}.")
    output.next_step("Next: gantry status")


def whoami(as_json: AsJson = False) -> None:
    """Say which service and user the other commands use."""
    chosen = settings.load()
    with Client(chosen) as client:
        me = client.get("/me/")
    if as_json:
        output.print_json({"url": chosen.url, **me})
    else:
        output.console.print(f"{me['username']} at {chosen.url}")


def _is_address(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.host)
