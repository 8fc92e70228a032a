"""``gantry up``: prepares $GANTRY_HOME, then runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ciserver.config import Config
from ciserver.ops import layout
from ciserver.ops.children import children_of
from ciserver.ops.errors import OpsError
from ciserver.ops.kernel import keep_who_connects
from ciserver.ops.supervisor import run_side_by_side, supervise

UP_WITHIN = 120.0  # seconds: new tables may have to be made first


def up(config: Config) -> None:
    """Blocks until SIGINT or SIGTERM. Raises OpsError when the service cannot start."""
    layout.prepare(config.home)
    with only_one(config):
        _marker(config).unlink(missing_ok=True)  # of one that was killed
        set_up_django(config)
        keep_who_connects()
        asyncio.run(_serve(config))


def set_up_django(config: Config) -> None:
    """Tables and static files."""
    verbs = ("migrate", "collectstatic")
    # Django's checks judge the code, which the tests have them do.
    options = ("--no-input", "--skip-checks")
    commands = {verb: ("python", "manage.py", verb, *options) for verb in verbs}
    run_side_by_side(commands, config)


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    began = time.monotonic()

    marker = _marker(config)

    def started() -> None:
        marker.touch()
        say("gantry", f"up after {time.monotonic() - began:.1f} s: {config.url}  (Ctrl-C stops it)")

    try:
        await supervise(children_of(config), config, say, stop=stop, started=started)
    finally:
        marker.unlink(missing_ok=True)
    say("gantry", "stopped")


def say(name: str, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {name:<10} {what}", flush=True)


@contextlib.contextmanager
def only_one(config: Config) -> Iterator[None]:
    """Holds the installation's lock. Raises OpsError when another process does."""
    pid_file = config.run / "gantry.pid"
    with pid_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            pid = file.read().strip() or "?"
            raise OpsError(
                f"Gantry already runs here as process {pid} ({config.url}).",
                next_step=f"Stop it with 'kill {pid}', or set GANTRY_HOME to another folder.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def is_up(config: Config) -> bool:
    """Have all children been ready once since the supervisor started?"""
    return running_pid(config) is not None and _marker(config).exists()


def wait_until_up(config: Config) -> None:
    """Return once the service that has just been started answers. Raises OpsError."""
    deadline = time.monotonic() + UP_WITHIN
    while not is_up(config):
        if running_pid(config) is None or time.monotonic() > deadline:
            raise OpsError(
                "The service was starting and did not come up.",
                next_step=f"See what it said, and its logs in {config.home / 'logs' / 'service'}.",
            )
        time.sleep(0.1)


def _marker(config: Config) -> Path:
    return config.run / "gantry.up"


def running_pid(config: Config) -> int | None:
    """The process that holds the installation's lock, if any."""
    try:
        with (config.run / "gantry.pid").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None
