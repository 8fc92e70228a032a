"""Commands for the service's own machine: handed to the script or the program that does them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from ciserver.cli.errors import CliError, Exit

CHECKOUT = Path(__file__).resolve().parents[2]


def demo(context: typer.Context) -> None:
    """Set all up, push an example, follow it to production.

    ``--exit``: stop after it.
    """
    _script("demo", context)


def up(context: typer.Context) -> None:
    """Run the service until Ctrl-C."""
    _script("up", context)


def test(context: typer.Context) -> None:
    """Set up what tests need and run them; arguments go to pytest."""
    _script("test", context)


def admin(context: typer.Context) -> None:
    """Make the administrator and log this client in.

    ``--new-password``: another password.
    """
    _script("admin", context)


def collect(context: typer.Context) -> None:
    """Give back what the registry holds for no image any more.

    ``--dry-run``: only tell.
    """
    _script("collect", context)


def base(context: typer.Context) -> None:
    """Make a base image from this machine's package mirror.

    Without a name, list the recipes.
    """
    _require_checkout("base")
    command = [sys.executable, "-m", "builders", "base", *context.args]
    os.execv(command[0], command)  # noqa: S606


def _script(name: str, context: typer.Context) -> NoReturn:
    _require_checkout(name)
    script = str(CHECKOUT / "gantry")
    os.execv(script, [script, name, *context.args])  # noqa: S606


def _require_checkout(name: str) -> None:
    if not (CHECKOUT / "gantry").is_file():
        raise CliError(
            f"'gantry {name}' needs the service itself; this is the client alone.",
            next_step="Run it as ./gantry in a checkout, on the service's machine.",
            exit_code=Exit.USAGE,
        )
