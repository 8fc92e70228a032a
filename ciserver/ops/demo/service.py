"""The service the demo talks to: one that runs already, or our own for as long as we need it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from rich.console import Console

from ciserver.config import Config
from ciserver.ops.children import log_of
from ciserver.ops.demo.doing import doing
from ciserver.ops.errors import OpsError
from ciserver.ops.launch import CHECKOUT, die_with_parent
from ciserver.ops.layout import prepare
from ciserver.ops.supervisor import end_of_log, open_log
from ciserver.ops.up import is_up, running_pid, wait_until_up


@contextlib.contextmanager
def running_service(config: Config, console: Console) -> Iterator[None]:
    """Within the block the service answers. One that we started ends with the block."""
    if pid := running_pid(config):
        console.print(f"Using the service that runs already (process {pid}).")
        wait_until_up(config)
        yield
        return
    prepare(config.home)
    log = log_of(config, "supervisor")
    with open_log(log) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ciserver.ops", "up"],
            cwd=CHECKOUT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours alone
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 (we have one thread)
        )
    try:
        with doing(console, "Starting the service"):
            _wait(process, config)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], config: Config) -> None:
    while not is_up(config):
        if process.poll() is not None:
            log = log_of(config, "supervisor")
            raise OpsError(
                "The service did not start.",
                next_step=f"Its log: {log}",
                details=end_of_log(log),
            )
        time.sleep(0.05)
