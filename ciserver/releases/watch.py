"""Starts a container that crashed again, where its engine cannot.

Podman 4.3 leaves a port's rule behind when it restarts a container whose ids are mapped, and its
port then leads nowhere; stopped first and then started, all is well. So such containers have no
restart policy: this follows the engine's events. What it misses ``restore_routes`` finds within a
minute, as it does after a reboot.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator

from django.db import close_old_connections

from ciserver.releases import naming, restoring
from ciserver.releases.targets.engine import Engine
from ciserver.releases.targets.errors import NoEngine
from ciserver.releases.targets.local import own_engine

log = logging.getLogger(__name__)
PAUSE = 1.0  # seconds between two rounds: a container that crashes at once must not keep us busy
AGAIN = 30.0  # seconds until an engine that did not answer is asked again


def follow() -> None:
    """Never returns."""
    told = ""
    while True:
        try:
            engine = own_engine()
        except NoEngine as error:
            if str(error) != told:  # a machine may have none on purpose
                told = str(error)
                log.warning("no containers can be watched: %s", error)
            time.sleep(AGAIN)
            continue
        for _ in deaths(engine):
            time.sleep(PAUSE)
            close_old_connections()
            restoring.restore_routes()
        log.warning("%s stopped telling what happens", engine.program)
        time.sleep(PAUSE)


def deaths(engine: Engine) -> Iterator[str]:
    """The engine's account of each container of ours that ends from now on, until it stops
    telling; the first is empty, when it listens."""
    argv = engine.follow_deaths(naming.installation())
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    try:
        yield ""
        yield from process.stdout or ()
    finally:
        process.kill()
        process.wait()
