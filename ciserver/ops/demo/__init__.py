"""``gantry demo``: an example's way from ``git push`` to production, on this machine.

Everything goes through what a user has: ``git push``, the HTTP API and ``curl``.
"""

from __future__ import annotations

import signal
import time

from rich.console import Console
from rich.panel import Panel

from ciserver.cli.client import Client
from ciserver.cli.settings import Settings
from ciserver.config import Config
from ciserver.ops.credentials import Credentials, obtain
from ciserver.ops.demo.compare import difference
from ciserver.ops.demo.doing import doing
from ciserver.ops.demo.journey import Journey, travel
from ciserver.ops.demo.repository import Repository
from ciserver.ops.demo.scene import BASE_IMAGE, ensure_base, set_the_scene
from ciserver.ops.demo.service import running_service

PROJECT = "hello"


def demo(config: Config, *, leave: bool) -> int:
    """Plays the demo; 0 when production shows what was pushed, 130 when it was interrupted before.
    Raises OpsError otherwise."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what we started must end with us
    console = Console(highlight=False)
    try:
        _play(console, config, leave=leave)
    except KeyboardInterrupt:
        console.print("Stopped before its end. './gantry demo' goes on with what is there already.")
        return 130
    return 0


def _play(console: Console, config: Config, *, leave: bool) -> None:
    began = time.monotonic()
    with running_service(config, console):
        with doing(console, f"The base image {BASE_IMAGE}, from this machine's mirror") as tell:
            ensure_base(config, tell)
        with doing(console, "The administrator, and a token for the client here"):
            credentials = obtain(config, called="gantry demo")
        with Client(Settings(url=config.url, token=credentials.token)) as api:
            set_the_scene(api, PROJECT)
            repository = Repository(config, PROJECT, credentials)
            first = travel(api, repository, config, console)
            second = travel(api, repository, config, console)
        console.print(difference(first, second))
        _say_goodbye(console, config, credentials, second, time.monotonic() - began)
        if not leave:
            _wait_for_interrupt(console, second.production_url)


def _say_goodbye(
    console: Console, config: Config, login: Credentials, last: Journey, seconds: float
) -> None:
    console.print(
        Panel(
            f"Dashboard   [bold]{config.url}[/]\n"
            f"User        [bold]{login.username}[/]\n"
            f"Password    [bold]{login.password}[/]\n"
            f"Production  [bold]{last.production_url}[/]"
            f"   {last.release}, commit {last.commit[:8]}\n"
            f"Repository  {config.url}/git/{PROJECT}.git\n"
            f"\nThe client is ready too: [bold]./gantry status[/], [bold]./gantry --help[/]",
            title=f"Two commits in production after {seconds:.0f} s",
            border_style="green",
            expand=False,
        )
    )


def _wait_for_interrupt(console: Console, production: str) -> None:
    console.print("Gantry stays up until you press Ctrl-C.")
    try:
        while True:
            time.sleep(0.5)  # pause() would sleep on if the signal came just before it
    except KeyboardInterrupt:
        console.print(
            f"Stopping. What was deployed goes on serving: {production}\n"
            "The rest is kept, and './gantry up' starts it again; docs/install.md says how to"
            " remove all of it."
        )
